#include "operator/controller/leader_election.h"

#include <gmock/gmock.h>

#include <future>

#include "tests/unit/operator/controller/fake_client.h"

namespace quern::control {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::FakeClient;

LeaderElectionOptions Options(const std::string& identity) {
  LeaderElectionOptions options;
  options.ns = "quern";
  options.name = "lock";
  options.identity = identity;
  return options;
}

// Waits until `done` holds; false when that takes far too long.
bool Eventually(const std::function<bool()>& done) {
  const auto deadline = std::chrono::steady_clock::now() + seconds(30);
  while (!done()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::yield();
  }
  return true;
}

class LeaderElectionTest : public ::testing::Test {
 protected:
  json Spec() { return client_.Find("quern", "lock").value("spec", json::object()); }

  FakeClient client_;
  ManualClock clock_;
  LeaderElector a_{client_, Options("a"), clock_};
  LeaderElector b_{client_, Options("b"), clock_};
};

TEST_F(LeaderElectionTest, TheFirstTakesTheLeaseAndTheSecondWaits) {
  EXPECT_TRUE(*a_.TryAcquireOrRenew());
  EXPECT_FALSE(*b_.TryAcquireOrRenew());
  EXPECT_EQ(b_.Holder(), "a");
  EXPECT_EQ(Spec()["leaseDurationSeconds"], 15);
  EXPECT_EQ(Spec()["leaseTransitions"], 0);
}

TEST_F(LeaderElectionTest, ALeaseThatIsNotRenewedIsTakenAfterItsTimeHasPassedHere) {
  ASSERT_TRUE(*a_.TryAcquireOrRenew());
  ASSERT_FALSE(*b_.TryAcquireOrRenew());
  clock_.Advance(seconds(14));
  EXPECT_FALSE(*b_.TryAcquireOrRenew());
  clock_.Advance(seconds(1));
  EXPECT_TRUE(*b_.TryAcquireOrRenew());
  EXPECT_EQ(Spec()["holderIdentity"], "b");
  EXPECT_EQ(Spec()["leaseTransitions"], 1);
  EXPECT_FALSE(*a_.TryAcquireOrRenew());
}

TEST_F(LeaderElectionTest, ARenewedLeaseIsNotTaken) {
  ASSERT_TRUE(*a_.TryAcquireOrRenew());
  const json acquired = Spec()["acquireTime"];
  for (int i = 0; i < 5; ++i) {
    clock_.Advance(seconds(10));
    EXPECT_TRUE(*a_.TryAcquireOrRenew());
    EXPECT_FALSE(*b_.TryAcquireOrRenew());
  }
  EXPECT_EQ(Spec()["acquireTime"], acquired);
}

TEST_F(LeaderElectionTest, TimesWrittenInTheLeaseByAWrongClockDoNotMatter) {
  ASSERT_TRUE(*a_.TryAcquireOrRenew());
  for (const char* time : {"1970-01-01T00:00:00.000000Z", "2999-01-01T00:00:00.000000Z"}) {
    json lease = client_.Find("quern", "lock");
    lease["spec"]["renewTime"] = time;
    ASSERT_TRUE(client_.Update({}, "quern", lease).ok());
    EXPECT_FALSE(*b_.TryAcquireOrRenew()) << time;  // seen to change just now: it is held
  }
  clock_.Advance(seconds(15));
  EXPECT_TRUE(*b_.TryAcquireOrRenew());
}

TEST_F(LeaderElectionTest, TheHoldersOwnDurationIsWaitedFor) {
  auto longer = Options("long");
  longer.lease_duration = seconds(60);
  LeaderElector holder(client_, longer, clock_);
  ASSERT_TRUE(*holder.TryAcquireOrRenew());
  ASSERT_FALSE(*b_.TryAcquireOrRenew());
  clock_.Advance(seconds(59));
  EXPECT_FALSE(*b_.TryAcquireOrRenew());
  clock_.Advance(seconds(1));
  EXPECT_TRUE(*b_.TryAcquireOrRenew());
}

TEST_F(LeaderElectionTest, AReleasedLeaseIsTakenAtOnceAndOnlyTheHolderReleases) {
  ASSERT_TRUE(*a_.TryAcquireOrRenew());
  ASSERT_TRUE(b_.Release().ok());
  EXPECT_EQ(Spec()["holderIdentity"], "a");
  ASSERT_TRUE(a_.Release().ok());
  EXPECT_TRUE(*b_.TryAcquireOrRenew());
}

TEST_F(LeaderElectionTest, LosingTheRaceToWriteIsNoErrorAndNoLead) {
  client_.intercept = [](const std::string& verb, const json&) -> Status {
    if (verb == "create") return MakeError(ErrorCode::kAlreadyExists, "somebody was faster");
    return {};
  };
  EXPECT_FALSE(*a_.TryAcquireOrRenew());
  client_.intercept = nullptr;
  ASSERT_TRUE(*a_.TryAcquireOrRenew());
  client_.intercept = [](const std::string& verb, const json&) -> Status {
    if (verb == "update") return MakeError(ErrorCode::kConflict, "somebody was faster");
    return {};
  };
  EXPECT_FALSE(*a_.TryAcquireOrRenew());
}

TEST_F(LeaderElectionTest, ALeaseOfAWrongShapeIsTaken) {
  for (const json& spec : {json(), json(1), json{{"holderIdentity", 5}}}) {
    client_.Erase("quern", "lock");
    ASSERT_TRUE(
        client_.Create({}, "quern", {{"metadata", {{"name", "lock"}}}, {"spec", spec}}).ok());
    LeaderElector elector(client_, Options("c"), clock_);
    EXPECT_TRUE(*elector.TryAcquireOrRenew()) << spec;
  }
}

LeaderElectionOptions Quick(const std::string& identity) {
  LeaderElectionOptions options = Options(identity);
  options.lease_duration = milliseconds(1000);
  options.renew_deadline = milliseconds(400);
  options.retry_period = milliseconds(20);
  return options;
}

// Renews as often, but a machine that stands still for a while does not cost it the lead.
LeaderElectionOptions Patient(const std::string& identity) {
  LeaderElectionOptions options = Quick(identity);
  options.lease_duration = seconds(120);
  options.renew_deadline = seconds(60);
  return options;
}

TEST(LeaderElectionRun, LeadsUntilStoppedAndReleases) {
  FakeClient client;
  LeaderElector elector(client, Patient("a"));
  std::stop_source stop;
  std::promise<void> leading;
  auto run = std::async(std::launch::async, [&] {
    return elector
        .Run(stop.get_token(),
             [&](std::stop_token lead) {
               leading.set_value();
               EXPECT_TRUE(Eventually([&] { return lead.stop_requested(); }));
             })
        .ok();
  });
  leading.get_future().wait();
  EXPECT_TRUE(elector.IsLeader());
  const json first = client.Find("quern", "lock")["spec"]["renewTime"];
  EXPECT_TRUE(
      Eventually([&] { return client.Find("quern", "lock")["spec"]["renewTime"] != first; }));
  stop.request_stop();
  EXPECT_TRUE(run.get());
  EXPECT_FALSE(elector.IsLeader());
  EXPECT_EQ(client.Find("quern", "lock")["spec"]["holderIdentity"], "");
}

TEST(LeaderElectionRun, AReleaseThatFailsIsTriedAgain) {
  FakeClient client;
  std::atomic<int> failures{0};
  client.intercept = [&](const std::string&, const json&) -> Status {
    if (failures > 0 && failures-- > 0) return MakeError(ErrorCode::kUnavailable, "reset");
    return {};
  };
  LeaderElectionOptions options = Patient("a");
  options.retry_period = seconds(30);  // no renewal takes the failures
  LeaderElector elector(client, options);
  std::stop_source stop;
  EXPECT_TRUE(elector
                  .Run(stop.get_token(),
                       [&](std::stop_token) {
                         failures = 2;
                         stop.request_stop();
                       })
                  .ok());
  EXPECT_EQ(failures, 0);
  EXPECT_EQ(client.Find("quern", "lock")["spec"]["holderIdentity"], "");
}

TEST(LeaderElectionRun, TellsWhoLeadsToStopWhenTheLeaseCannotBeRenewed) {
  FakeClient client;
  std::atomic<bool> broken{false};
  client.intercept = [&](const std::string&, const json&) -> Status {
    if (broken) return MakeError(ErrorCode::kUnavailable, "the server is gone");
    return {};
  };
  LeaderElector elector(client, Quick("a"));
  const Status status = elector.Run({}, [&](std::stop_token lead) {
    broken = true;
    EXPECT_TRUE(Eventually([&] { return lead.stop_requested(); }));
    EXPECT_FALSE(elector.IsLeader());
  });
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().code, ErrorCode::kUnavailable);
}

TEST(LeaderElectionRun, ACallThatHangsDoesNotKeepALeadThatIsOver) {
  FakeClient client;
  std::atomic<bool> hang{false};
  std::atomic<bool> let_go{false};
  client.intercept = [&](const std::string&, const json&) -> Status {
    if (hang) {
      EXPECT_TRUE(Eventually([&] { return let_go.load(); }));
    }
    return {};
  };
  LeaderElector elector(client, Quick("a"));
  const Status status = elector.Run({}, [&](std::stop_token lead) {
    hang = true;
    EXPECT_TRUE(Eventually([&] { return lead.stop_requested(); }));
    let_go = true;
  });
  EXPECT_FALSE(status.ok());
}

TEST(LeaderElectionRun, StoppedWhileItWaitsItNeverLeads) {
  FakeClient client;
  LeaderElector holder(client, Quick("a"));
  ASSERT_TRUE(*holder.TryAcquireOrRenew());
  LeaderElector waiting(client, Quick("b"));
  std::stop_source stop;
  stop.request_stop();
  EXPECT_TRUE(waiting.Run(stop.get_token(), [](std::stop_token) { FAIL(); }).ok());
}

TEST(LeaderElectionRun, OptionsThatCannotWorkAreRefused) {
  FakeClient client;
  auto options = Options("a");
  options.renew_deadline = options.lease_duration;
  const Status status = LeaderElector(client, options).Run({}, [](std::stop_token) { FAIL(); });
  ASSERT_FALSE(status.ok());
  EXPECT_THAT(status.error().message, ::testing::HasSubstr("renew deadline 15000 ms"));
  EXPECT_FALSE(LeaderElector(client, Options("")).Run({}, [](std::stop_token) {}).ok());
}

TEST(LeaseCallTimeout, LeavesTimeForAnotherAttemptWhenACallHangs) {
  const LeaderElectionOptions options = Options("a");
  const auto call = LeaseCallTimeout(options);
  // The pause before, a slow read, a write that hangs, and the pause before the next attempt.
  EXPECT_LT(2 * options.retry_period + 2 * call, options.renew_deadline);
}

}  // namespace
}  // namespace quern::control
