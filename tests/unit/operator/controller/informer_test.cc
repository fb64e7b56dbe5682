#include "operator/controller/informer.h"

#include <gtest/gtest.h>

#include "tests/unit/operator/controller/fake_client.h"

namespace quern::control {
namespace {

using kube::WatchEvent;
using testing::FakeClient;
using testing::kThings;
using testing::Object;
using Phase = InformerState::Phase;
using Type = WatchEvent::Type;

class InformerTest : public ::testing::Test {
 protected:
  InformerTest() {
    InformerOptions options;
    options.jitter_seed = 1;
    informer_ = std::make_unique<Informer>(client_, kThings, options, clock_);
    informer_->AddListener([this](const Change& change) {
      told_ += (!change.before  ? "+"
                : !change.after ? "-"
                                : "~") +
               kube::ObjectName(change.object());
    });
  }

  // One step; keeps the state.
  InformerStep Step() {
    InformerStep step = informer_->Step(state_, stop_.get_token());
    state_ = step.next;
    return step;
  }
  std::string Told() { return std::exchange(told_, ""); }
  // A watch that tells these events and then ends as `end` says.
  void OnWatch(std::vector<WatchEvent> events, Status end = {}) {
    client_.OnWatch([this, events, end](const kube::WatchOptions& options,
                                        const FakeClient::OnEvent& on_event, std::stop_token) {
      watched_from_.push_back(options.resource_version);
      for (const WatchEvent& event : events) on_event(event);
      clock_.Advance(std::chrono::seconds(290));
      return end;
    });
  }

  FakeClient client_;
  ManualClock clock_;
  std::stop_source stop_;
  std::unique_ptr<Informer> informer_;
  InformerState state_;
  std::string told_;
  std::vector<std::string> watched_from_;
};

TEST_F(InformerTest, ListsThenWatchesFromTheListsVersion) {
  client_.OnList({Object("a", "1"), Object("b", "2")}, "10");
  EXPECT_FALSE(informer_->HasSynced());
  EXPECT_TRUE(Step().status.ok());
  EXPECT_EQ(state_, (InformerState{Phase::kListed, "10", 0}));
  EXPECT_TRUE(informer_->HasSynced());
  EXPECT_EQ(Told(), "+a+b");
  OnWatch({{Type::kModified, Object("a", "11")},
           {Type::kDeleted, Object("b", "12")},
           {Type::kAdded, Object("c", "13")}});
  EXPECT_TRUE(Step().status.ok());
  EXPECT_EQ(state_, (InformerState{Phase::kWatching, "13", 0}));
  EXPECT_EQ(watched_from_, std::vector<std::string>{"10"});
  EXPECT_EQ(Told(), "~a-b+c");
  EXPECT_EQ(informer_->store().size(), 2u);
}

TEST_F(InformerTest, GoesOnFromTheLastEventOrBookmark) {
  client_.OnList({}, "10");
  Step();
  OnWatch({{Type::kAdded, Object("a", "11")}, {Type::kBookmark, Object("", "50")}});
  Step();
  EXPECT_EQ(Told(), "+a");
  OnWatch({});
  EXPECT_EQ(Step().wait.count(), 0);
  EXPECT_EQ(watched_from_, (std::vector<std::string>{"10", "50"}));
  EXPECT_EQ(informer_->lists(), 1u);
}

TEST_F(InformerTest, GoesOnAfterABrokenWatchWithoutListingAgain) {
  client_.OnList({}, "10");
  Step();
  OnWatch({{Type::kAdded, Object("a", "11")}}, MakeError(ErrorCode::kUnavailable, "reset"));
  const InformerStep step = Step();
  EXPECT_FALSE(step.status.ok());
  EXPECT_GT(step.wait.count(), 0);
  EXPECT_EQ(informer_->LastError(), "reset");
  EXPECT_EQ(state_.phase, Phase::kWatching);
  OnWatch({{Type::kModified, Object("a", "12")}});
  Step();
  EXPECT_EQ(watched_from_, (std::vector<std::string>{"10", "11"}));
  EXPECT_EQ(informer_->LastError(), "");
  EXPECT_EQ(Told(), "+a~a");
}

TEST_F(InformerTest, AnExpiredVersionListsAgainAndFindsWhatWasDeletedMeanwhile) {
  client_.OnList({Object("a", "1"), Object("b", "2")}, "10");
  Step();
  Told();
  OnWatch({{Type::kModified, Object("b", "11")}}, MakeError(ErrorCode::kExpired, "too old"));
  EXPECT_EQ(Step().wait.count(), 0);  // expected after a silence: at once
  EXPECT_EQ(state_.phase, Phase::kEmpty);
  Told();
  client_.OnList({Object("b", "11"), Object("c", "19")}, "20");
  Step();
  EXPECT_EQ(Told(), "-a+c");
  OnWatch({});
  Step();
  EXPECT_EQ(watched_from_.back(), "20");
}

TEST_F(InformerTest, AVersionThatExpiresRightAfterItsListIsSlowedDown) {
  std::chrono::milliseconds last{0};
  for (int i = 0; i < 4; ++i) {
    client_.OnList({}, "10");
    EXPECT_EQ(Step().wait.count(), 0);
    OnWatch({}, MakeError(ErrorCode::kExpired, "too old"));
    const InformerStep step = Step();
    EXPECT_EQ(state_.phase, Phase::kEmpty);
    EXPECT_GE(step.wait, last);
    EXPECT_GT(step.wait.count(), 0);
    last = step.wait;
  }
  EXPECT_GT(last, std::chrono::milliseconds(600));
}

TEST_F(InformerTest, FailingListsBackOffUpToTheLimitAndRecover) {
  std::chrono::milliseconds longest{0};
  for (int i = 0; i < 40; ++i) {
    const InformerStep step = Step();  // nothing is scripted: unavailable
    EXPECT_FALSE(step.status.ok());
    EXPECT_EQ(state_.phase, Phase::kEmpty);
    longest = std::max(longest, step.wait);
  }
  EXPECT_LE(longest, std::chrono::seconds(30));
  EXPECT_GE(longest, std::chrono::seconds(15));
  EXPECT_FALSE(informer_->HasSynced());
  client_.OnList({}, "10");
  EXPECT_TRUE(Step().status.ok());
  OnWatch({{Type::kBookmark, Object("", "11")}});
  Step();
  EXPECT_EQ(state_.failures, 0);
}

TEST_F(InformerTest, AServerThatEndsEveryWatchAtOnceIsSlowedDown) {
  client_.OnList({}, "10");
  Step();
  client_.OnWatch([](const auto&, const auto&, auto) { return Status(); });
  const InformerStep step = Step();
  EXPECT_FALSE(step.status.ok());
  EXPECT_GT(step.wait.count(), 0);
  EXPECT_EQ(state_.resource_version, "10");
}

TEST_F(InformerTest, SilenceIsMeasuredFromTheLastWordOfTheServer) {
  clock_.Advance(std::chrono::seconds(5));
  EXPECT_EQ(informer_->SinceContact(), std::chrono::seconds(5));
  client_.OnList({}, "10");
  Step();
  EXPECT_EQ(informer_->SinceContact().count(), 0);
  OnWatch({{Type::kBookmark, Object("", "11")}}, MakeError(ErrorCode::kUnavailable, "reset"));
  Step();
  EXPECT_EQ(informer_->SinceContact(), std::chrono::seconds(290));
}

TEST_F(InformerTest, ManagedFieldsAreNotKept) {
  json object = Object("a", "1");
  object["metadata"]["managedFields"] = {1, 2};
  client_.OnList({object}, "10");
  Step();
  EXPECT_FALSE((*informer_->store().Get("ns", "a"))["metadata"].contains("managedFields"));
}

TEST_F(InformerTest, StoppedWithinAWatchItKeepsItsPlace) {
  client_.OnList({}, "10");
  Step();
  client_.OnWatch([this](const auto&, const FakeClient::OnEvent& on_event, auto) {
    on_event({Type::kAdded, Object("a", "11")});
    stop_.request_stop();
    return Status();
  });
  const InformerStep step = Step();
  EXPECT_TRUE(step.status.ok());
  EXPECT_EQ(step.wait.count(), 0);
  EXPECT_EQ(state_.resource_version, "11");
}

}  // namespace
}  // namespace quern::control
