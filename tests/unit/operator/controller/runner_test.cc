#include "operator/controller/runner.h"

#include <gmock/gmock.h>

#include <atomic>
#include <future>
#include <map>

#include "tests/unit/operator/controller/fake_client.h"

namespace quern::control {
namespace {

using kube::WatchEvent;
using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::FakeClient;
using testing::kThings;
using testing::Object;

// A runner over a scripted client, run on a thread until the test ends.
class RunnerTest : public ::testing::Test {
 protected:
  void Start(ReconcileFunction reconcile) {
    runner_->SetReconcile([this, reconcile](const ObjectKey& key, const ReconcileContext& context) {
      auto result = reconcile(key, context);
      const std::lock_guard lock(mutex_);
      ++reconciled_[key.name];
      changed_.notify_all();
      return result;
    });
    run_ = std::async(std::launch::async, [this] { return runner_->Run(stop_.get_token()); });
  }
  void Watched() { runner_->Watch(kThings, {}); }
  // Waits until a key has been reconciled so many times.
  bool Reconciled(const std::string& name, int times) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, seconds(60), [&] { return reconciled_[name] >= times; });
  }
  int Count(const std::string& name) {
    const std::lock_guard lock(mutex_);
    return reconciled_[name];
  }
  void TearDown() override {
    stop_.request_stop();
    if (run_.valid()) EXPECT_TRUE(run_.get().ok());
    runner_.reset();
  }
  static Result<Action> Done(const ObjectKey&, const ReconcileContext&) { return Action::Await(); }

  FakeClient client_;
  RunnerOptions options_{.name = "test"};
  std::unique_ptr<Runner> runner_ = std::make_unique<Runner>(client_, options_);
  std::stop_source stop_;
  std::future<Status> run_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::string, int> reconciled_;
};

TEST_F(RunnerTest, ReconcilesWhatIsListedAndWhatComesLater) {
  client_.OnList({Object("a", "1")}, "10");
  client_.OnWatch([](const auto&, const FakeClient::OnEvent& on_event, std::stop_token) {
    on_event({WatchEvent::Type::kAdded, Object("b", "11")});
    return Status();
  });
  Watched();
  Start(Done);
  EXPECT_TRUE(Reconciled("a", 1));
  EXPECT_TRUE(Reconciled("b", 1));
}

TEST_F(RunnerTest, AnEventThatChangedOnlyStatusDoesNotReconcile) {
  client_.OnList({Object("a", "1"), Object("z", "2")}, "10");
  std::promise<void> go;
  client_.OnWatch([&](const auto&, const FakeClient::OnEvent& on_event, std::stop_token) {
    go.get_future().wait();
    json status_only = Object("a", "11");
    status_only["status"] = {{"replicas", 1}};
    on_event({WatchEvent::Type::kModified, status_only});
    on_event({WatchEvent::Type::kModified, Object("z", "12", {{"x", 1}})});
    return Status();
  });
  Watched();
  Start(Done);
  ASSERT_TRUE(Reconciled("a", 1));
  ASSERT_TRUE(Reconciled("z", 1));
  go.set_value();
  ASSERT_TRUE(Reconciled("z", 2));  // told after a's, so a's would have been queued by now
  EXPECT_EQ(Count("a"), 1);
}

TEST_F(RunnerTest, AChildWakesItsOwner) {
  client_.OnList({Object("a", "1")}, "10");
  json child = Object("child", "2");
  child["metadata"]["ownerReferences"] = {{{"apiVersion", "g/v1"},
                                           {"kind", "Thing"},
                                           {"name", "owner"},
                                           {"uid", "u"},
                                           {"controller", true}}};
  runner_->Watch(kThings, {}, ControllerOwnerKey("g", "Thing"), AnyChange);
  client_.OnWatch([child](const auto&, const FakeClient::OnEvent& on_event, std::stop_token) {
    on_event({WatchEvent::Type::kDeleted, child});  // unknown: nothing to tell
    on_event({WatchEvent::Type::kAdded, child});
    return Status();
  });
  Start(Done);
  EXPECT_TRUE(Reconciled("owner", 1));
  EXPECT_EQ(Count("child"), 0);
}

TEST_F(RunnerTest, AFailureComesAgainWithBackOffAndSuccessForgetsIt) {
  client_.OnList({Object("a", "1")}, "10");
  Watched();
  std::vector<int> retries;
  Start([&](const ObjectKey&, const ReconcileContext& context) -> Result<Action> {
    retries.push_back(context.retries);
    if (retries.size() < 4) return MakeError(ErrorCode::kUnavailable, "not yet");
    return Action::Await();
  });
  ASSERT_TRUE(Reconciled("a", 4));
  EXPECT_EQ(retries, (std::vector<int>{0, 1, 2, 3}));
  const auto deadline = std::chrono::steady_clock::now() + seconds(30);
  while (runner_->queue().Retries({"ns", "a"}) != 0) {
    ASSERT_LT(std::chrono::steady_clock::now(), deadline);
    std::this_thread::yield();
  }
}

TEST_F(RunnerTest, TheErrorPolicyDecides) {
  client_.OnList({Object("never", "1"), Object("after", "2")}, "10");
  options_.error_policy = [](const ObjectKey& key, const Error&, int) {
    if (key.name == "never") return Requeue{Requeue::Kind::kNever, {}};
    return Requeue{Requeue::Kind::kAfter, milliseconds(1)};
  };
  runner_ = std::make_unique<Runner>(client_, options_);
  Watched();
  Start([](const ObjectKey&, const ReconcileContext&) -> Result<Action> {
    return MakeError(ErrorCode::kInvalidArgument, "wrong");
  });
  EXPECT_TRUE(Reconciled("after", 20));
  EXPECT_EQ(Count("never"), 1);
}

TEST_F(RunnerTest, AnActionBringsTheKeyBackAfterItsTime) {
  client_.OnList({Object("a", "1")}, "10");
  Watched();
  Start([](const ObjectKey&, const ReconcileContext&) -> Result<Action> {
    return Action::RequeueAfter(milliseconds(1));
  });
  EXPECT_TRUE(Reconciled("a", 5));
}

TEST_F(RunnerTest, AReconcileThatThrowsIsAnErrorOfItsKeyAlone) {
  client_.OnList({Object("bad", "1"), Object("good", "2")}, "10");
  std::promise<std::string> told;
  options_.on_reconcile = [&, once = std::make_shared<std::once_flag>()](
                              const ObjectKey&, const Result<Action>& result, Seconds) {
    if (!result.ok()) std::call_once(*once, [&] { told.set_value(result.error().message); });
  };
  runner_ = std::make_unique<Runner>(client_, options_);
  Watched();
  Start([](const ObjectKey& key, const ReconcileContext&) -> Result<Action> {
    if (key.name == "bad") throw std::runtime_error("a bug");
    return Action::Await();
  });
  EXPECT_TRUE(Reconciled("good", 1));
  EXPECT_THAT(told.get_future().get(), ::testing::HasSubstr("a bug"));
}

TEST_F(RunnerTest, AResyncBringsEveryObjectOfTheFirstSourceBack) {
  client_.OnList({Object("a", "1")}, "10");
  options_.resync_period = milliseconds(5);
  runner_ = std::make_unique<Runner>(client_, options_);
  Watched();
  Start(Done);
  EXPECT_TRUE(Reconciled("a", 5));
}

TEST_F(RunnerTest, NothingIsReconciledBeforeEveryInformerHasItsList) {
  std::promise<void> second_list;
  std::atomic<bool> listed{false};
  client_.OnList({Object("a", "1")}, "10");
  client_.OnList([&](const kube::ListOptions&) -> Result<kube::ObjectList> {
    second_list.get_future().wait();
    listed = true;
    return kube::ObjectList{{Object("a", "1")}, "10"};  // either may be the one that is watched
  });
  Watched();
  runner_->Cache(kThings, {});
  std::atomic<bool> too_early{false};
  Start([&](const ObjectKey&, const ReconcileContext&) -> Result<Action> {
    if (!listed) too_early = true;
    return Action::Await();
  });
  const auto deadline = std::chrono::steady_clock::now() + seconds(30);
  const auto one_synced = [&] {
    const auto health = runner_->Health();
    return health.at(0).synced != health.at(1).synced;
  };
  while (!one_synced()) {
    ASSERT_LT(std::chrono::steady_clock::now(), deadline);
    std::this_thread::yield();
  }
  EXPECT_FALSE(runner_->HasSynced());
  second_list.set_value();
  EXPECT_TRUE(Reconciled("a", 1));
  EXPECT_FALSE(too_early.load());
}

TEST_F(RunnerTest, ListsThatNeverSucceedEndARunWithATimeLimit) {
  options_.sync_timeout = milliseconds(50);
  Runner runner(client_, options_);
  runner.Watch(kThings, {});
  runner.SetReconcile(Done);
  const Status status = runner.Run({});
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().code, ErrorCode::kDeadlineExceeded);
  EXPECT_THAT(status.error().message, ::testing::HasSubstr("things (no list is scripted)"));
}

TEST_F(RunnerTest, ARunnerThatCannotWorkSaysSo) {
  Runner nothing(client_, options_);
  nothing.SetReconcile(Done);
  EXPECT_THAT(nothing.Run({}).error().message, ::testing::HasSubstr("nothing is watched"));
  Runner idle(client_, options_);
  idle.Watch(kThings, {});
  EXPECT_THAT(idle.Run({}).error().message, ::testing::HasSubstr("no reconcile function"));
}

TEST_F(RunnerTest, AReconcileThatWasCutShortIsNoFailure) {
  std::atomic<int> told = 0;
  options_.on_reconcile = [&](const ObjectKey&, const Result<Action>&, Seconds) { ++told; };
  runner_ = std::make_unique<Runner>(client_, options_);
  client_.OnList({Object("a", "1")}, "1");
  Watched();
  Start([this](const ObjectKey&, const ReconcileContext& context) -> Result<Action> {
    stop_.request_stop();
    EXPECT_TRUE(context.stop.stop_requested());
    return MakeError(ErrorCode::kCancelled, "asked to stop");
  });
  ASSERT_TRUE(Reconciled("a", 1));
  EXPECT_TRUE(run_.get().ok());
  EXPECT_EQ(told, 0);
  EXPECT_EQ(runner_->queue().Retries({"ns", "a"}), 0);
  EXPECT_EQ(runner_->queue().Get({}), (ObjectKey{"ns", "a"}));  // for whoever works next
}

}  // namespace
}  // namespace quern::control
