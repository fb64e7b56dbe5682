// Knative's KPA: examples worked by hand from its algorithm. The target is 7 for 10 concurrent
// requests at 70 %.
#include <gtest/gtest.h>

#include "tests/unit/operator/simulation/views.h"

namespace quern::simulation {
namespace {

// Ticks every 2 s against `requests` in all, spread over as many pods as it asked for, all ready.
class KnativeRun {
 public:
  explicit KnativeRun(int64_t most = 100) : policy_(MakeKnative(10, {1, most})) {}

  int64_t Tick(double requests) {
    for (size_t i = active_.size(); i < static_cast<size_t>(replicas_); ++i) active_.push_back(0);
    active_.resize(static_cast<size_t>(replicas_));
    now_ += 2;
    FleetView view = ViewOf(now_, replicas_);
    for (size_t i = 0; i < active_.size(); ++i) {
      active_[i] += 2 * requests / static_cast<double>(replicas_);
      view.pods[i].active_seconds = active_[i];
    }
    return replicas_ = policy_->Decide(view);
  }
  int64_t Ticks(double requests, int count) {
    for (int i = 0; i < count; ++i) Tick(requests);
    return replicas_;
  }

 private:
  std::unique_ptr<Policy> policy_;
  std::vector<double> active_;
  double now_ = 0;
  int64_t replicas_ = 1;
};

TEST(Knative, TheStableWindowTakesSeventyPercentOfTheTarget) {
  KnativeRun run;
  EXPECT_EQ(run.Ticks(13, 30), 2);  // ceil(13 / 7): below the panic threshold of 2 x 7
  EXPECT_EQ(run.Ticks(14, 30), 2);
  EXPECT_EQ(run.Ticks(15, 60), 3);  // the mean over 60 s has passed 14
}

TEST(Knative, ABurstOfTwiceThePodsStartsAPanicThatNeverGoesDown) {
  KnativeRun run;
  run.Ticks(5, 30);
  // The panic window is 6 s: after one tick it holds (5 + 5 + 50) / 3 = 20: ceil(20 / 7) = 3 >= 2 x
  // 1 pods. The stable window alone holds (29 x 5 + 50) / 30 = 6.5, which needs 1.
  EXPECT_EQ(run.Tick(50), 3);
  EXPECT_EQ(run.Tick(50), 5);      // (5 + 50 + 50) / 3 = 35
  EXPECT_EQ(run.Tick(50), 8);      // 50 / 7
  EXPECT_EQ(run.Ticks(0, 30), 8);  // 60 s later it still holds
  // Then the stable window decides: what it holds is 0, and no more than half may go at once.
  EXPECT_EQ(run.Tick(0), 4);
  EXPECT_EQ(run.Tick(0), 2);
  EXPECT_EQ(run.Tick(0), 1);
}

TEST(Knative, TheMaximumHolds) {
  KnativeRun run(4);
  EXPECT_EQ(run.Ticks(1000, 10), 4);
}

TEST(Knative, APodThatIsNotReadyIsNoCapacity) {
  const auto policy = MakeKnative(10, {1, 100});
  FleetView view = ViewOf(2, 1, 1);
  view.pods[0].active_seconds =
      2 * 14;  // ceil(14 / 7) = 2 >= 2 x 1: panic, though 2 were asked for
  EXPECT_EQ(policy->Decide(view), 2);
  for (double now = 4; now <= 62; now += 2) {
    FleetView later = ViewOf(now, 2);
    later.pods[0].active_seconds = 2 * 14;
    EXPECT_EQ(policy->Decide(later), 2) << now;  // held by the panic
  }
}

}  // namespace
}  // namespace quern::simulation
