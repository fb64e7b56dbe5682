#include "operator/reconcilers/scaler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/operator/reconcilers/observed.h"

namespace quern::control {
namespace {

// Stores filled by hand, a clock moved by hand, and pods whose counters the test sets.
class ScalerTest : public ::testing::Test {
 protected:
  ScalerTest() : children_(std::size(kChildKinds)), metrics_("test") {
    stores_.endpoints = &endpoints_;
    stores_.pods = &pods_;
    for (Store& store : children_) stores_.children.push_back(&store);
    clock_.Advance(std::chrono::hours(500'000));  // some time in 2027
    endpoints_.Put(EndpointObject(R"({"model": {"uri": "file:///a"}, "scaling": {"maxReplicas": 5,
        "targetTokensPerSecond": "100", "targetUtilization": "0.5", "stableWindow": "20s", "panicWindow": "10s",
        "scaleDownDelay": "20s"}})"));
    scaler_.emplace(
        stores_, board_, metrics_, ScalerOptions{},
        [this](const kube::ObjectKey& key) { asked_.push_back(key); }, clock_,
        [this](const auto& targets, const auto&, std::stop_token) { return Scrape(targets); });
  }

  void PutPod(const std::string& name, bool ready = true, const std::string& endpoint = "a") {
    json pod = json::parse(
        R"({"metadata": {"namespace": "ns", "labels": {"serving.quern.dev/endpoint": "a"},
        "creationTimestamp": "2027-01-01T00:00:00Z"}, "status": {"podIP": "10.0.0.1", "conditions": [{"type": "Ready",
        "lastTransitionTime": "2027-01-01T00:00:12Z"}], "containerStatuses": [{"name": "quern-serve", "started": true,
        "state": {"running": {"startedAt": "2027-01-01T00:00:02Z"}}}]}})");
    pod["metadata"]["name"] = name;
    pod["metadata"]["labels"][kEndpointLabel] = endpoint;
    pod["metadata"]["uid"] = "uid-" + name;
    pod.merge_patch(OwnPod(name));
    pod["status"]["conditions"][0]["status"] = ready ? "True" : "False";
    pods_.Put(pod);
  }

  std::vector<ScrapeResult> Scrape(const std::vector<ScrapeTarget>& targets) {
    std::vector<ScrapeResult> out;
    for (const ScrapeTarget& target : targets) {
      asked_pods_.push_back(target.name);
      if (target.name == silent_) {
        out.push_back({target.uid,
                       MakeError(ErrorCode::kDeadlineExceeded, "pod {}: silence", target.name),
                       {}});
        continue;
      }
      if (failing_) {
        out.push_back(
            {target.uid, MakeError(ErrorCode::kUnavailable, "pod {}: refused", target.name), {}});
        continue;
      }
      PodReading reading;
      reading.sample.counters[PodCounters::kAdmittedPromptTokens] = tokens_;
      const bool slow = target.name.starts_with("slow");
      out.push_back({target.uid, reading, Seconds(slow ? slow_seconds_ : 0.005)});
    }
    scraped_ += targets.size();
    return out;
  }

  // Rounds of 2 s with this many prompt tokens arriving a second.
  void Rounds(int rounds, double tokens_per_second) {
    for (int i = 0; i < rounds; ++i) {
      clock_.Advance(std::chrono::seconds(2));
      tokens_ += 2 * tokens_per_second;
      scaler_->Round({});
    }
  }

  ScalingReport Report() {
    const auto report = board_.Get({"ns", "a"}, "u");
    EXPECT_TRUE(report);
    return report.value_or(ScalingReport{});
  }

  Store endpoints_, pods_;
  std::vector<Store> children_;
  Stores stores_;
  ScalingBoard board_;
  OperatorMetrics metrics_;
  ManualClock clock_;
  std::vector<kube::ObjectKey> asked_;
  double tokens_ = 0;
  size_t scraped_ = 0;
  bool failing_ = false;
  double slow_seconds_ = 0;  // what pods whose names begin with "slow" take
  std::string silent_;       // a pod that does not answer
  std::vector<std::string> asked_pods_;
  std::optional<Scaler> scaler_;
};

TEST_F(ScalerTest, ScalesUpOnTokensAndAsksForAReconcileAtOnce) {
  PutPod("a-1");
  Rounds(1, 0);
  asked_.clear();
  Rounds(15, 80);
  EXPECT_EQ(Report().decision->replicas, 2);
  EXPECT_EQ(Report().active.status, "True");
  EXPECT_FALSE(asked_.empty());
}

// Its reconciles come back by themselves; each asked for besides would be one more.
TEST_F(ScalerTest, ForASettledEndpointNoReconcileIsAskedFor) {
  PutPod("a-1");
  Rounds(30, 10);
  EXPECT_FALSE(asked_.empty());
  asked_.clear();
  Rounds(60, 10);
  EXPECT_TRUE(asked_.empty());
  EXPECT_EQ(Report().active.reason, "Scaling");
}

TEST_F(ScalerTest, ARoundThatThrowsIsNotTheLast) {
  PutPod("a-1");
  ScalerOptions options;
  options.interval = std::chrono::milliseconds(1);
  std::stop_source stop;
  int rounds = 0;
  Scaler scaler(
      stores_, board_, metrics_, options, [](const kube::ObjectKey&) {}, clock_,
      [&](const auto&, const auto&, std::stop_token) -> std::vector<ScrapeResult> {
        if (++rounds == 3) stop.request_stop();
        throw std::bad_alloc();
      });
  scaler.Run(stop.get_token());
  EXPECT_EQ(rounds, 3);
}

TEST_F(ScalerTest, PodsThatAreSlowButAnswerDoNotMakeTheOthersStale) {
  PutPod("a-1");
  json other = EndpointObject(R"({"model": {"uri": "file:///a"}, "scaling": {"minReplicas": 100,
      "maxReplicas": 100}})");
  other["metadata"]["name"] = "slow";
  other["metadata"]["uid"] = "u-slow";
  endpoints_.Put(other);
  for (int i = 0; i < 100; ++i) PutPod("slow-" + std::to_string(i), true, "slow");
  slow_seconds_ = 1.45;
  Rounds(5, 10);
  asked_pods_.clear();
  Rounds(100, 10);
  EXPECT_EQ(std::count(asked_pods_.begin(), asked_pods_.end(), "a-1"), 100);  // in every round
  EXPECT_LT(asked_pods_.size(), 100u * 25);  // 16 threads have 32 s in 2 s
  for (int i = 0; i < 100; ++i)              // and each of the slow ones in its turn
    EXPECT_GE(std::count(asked_pods_.begin(), asked_pods_.end(), "slow-" + std::to_string(i)), 15);
}

TEST_F(ScalerTest, NamesThePodWhoseMetricsAreMissing) {
  PutPod("a-1");
  Rounds(20, 80);
  failing_ = true;
  Rounds(60, 0);
  EXPECT_EQ(Report().decision->replicas, 2);
  EXPECT_EQ(Report().active.reason, "MetricsMissing");
  EXPECT_THAT(Report().active.message, ::testing::HasSubstr("pod a-1: refused"));
}

TEST_F(ScalerTest, APodThatKeepsSilentIsAskedEverLessOftenAndTheOthersAsBefore) {
  PutPod("a-1");
  PutPod("a-2");
  silent_ = "a-2";
  Rounds(150, 10);
  const auto asked = [this](const char* pod) {
    return std::count(asked_pods_.begin(), asked_pods_.end(), pod);
  };
  EXPECT_EQ(asked("a-1"), 150);
  EXPECT_LT(asked("a-2"), 20);  // 300 s, and 30 s from one to the next in the end
  EXPECT_GT(asked("a-2"), 8);
  silent_.clear();  // it speaks again: after the next attempt as often as the other
  Rounds(16, 10);
  asked_pods_.clear();
  Rounds(10, 10);
  EXPECT_EQ(asked("a-2"), 10);
}

TEST_F(ScalerTest, OneTimeoutIsNoReasonToAskLess) {
  PutPod("a-1");
  silent_ = "a-1";
  Rounds(1, 10);
  silent_.clear();
  Rounds(4, 10);
  EXPECT_EQ(asked_pods_.size(), 5u);
}

TEST_F(ScalerTest, WithoutPodsItWaits) {
  Rounds(3, 0);
  EXPECT_EQ(Report().active.reason, "NoReplicaReady");
  EXPECT_EQ(scraped_, 0u);
}

TEST_F(ScalerTest, AFixedEndpointIsScrapedForItsFiguresButNotDecidedOn) {
  endpoints_.Put(EndpointObject());
  PutPod("a-1");
  Rounds(3, 10);
  EXPECT_FALSE(Report().decision);
  EXPECT_EQ(Report().active.reason, "Fixed");
  EXPECT_GT(scraped_, 0u);
}

TEST_F(ScalerTest, InExternalModeItSaysWhoDecidesAndWhatLimitsThem) {
  json object = EndpointObject();
  object["spec"]["scaling"] = {{"mode", "external"}, {"minReplicas", 2}, {"maxReplicas", 4}};
  struct Case {
    int replicas;
    const char* reason;
    const char* says;
  };
  for (const Case& c : {Case{3, "External", "spec.replicas decides"},
                        Case{1, "ExternalLimited", "spec.replicas is 1"},
                        Case{5, "ExternalLimited", "there are 4 replicas"}}) {
    object["spec"]["replicas"] = c.replicas;
    endpoints_.Put(object);
    Rounds(1, 0);
    EXPECT_FALSE(Report().decision);
    EXPECT_EQ(Report().active.status, "False");
    EXPECT_EQ(Report().active.reason, c.reason);
    EXPECT_THAT(Report().active.message, ::testing::HasSubstr(c.says));
  }
}

TEST_F(ScalerTest, AnotherEndpointOfTheSameNameStartsAfresh) {
  PutPod("a-1");
  Rounds(20, 200);
  EXPECT_GT(Report().decision->replicas, 1);
  json again = *endpoints_.Get("ns", "a");
  again["metadata"]["uid"] = "u2";
  endpoints_.Put(again);
  Rounds(1, 0);
  EXPECT_FALSE(board_.Get({"ns", "a"}, "u"));
  EXPECT_EQ(board_.Get({"ns", "a"}, "u2")->decision->replicas, 1);
}

}  // namespace
}  // namespace quern::control
