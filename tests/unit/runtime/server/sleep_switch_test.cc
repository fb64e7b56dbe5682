// The routes that put the model to sleep, over real sockets. Run under ThreadSanitizer as well.

#include "runtime/server/sleep_switch.h"

#include <gtest/gtest.h>

#include <new>
#include <string>

#include "tests/unit/runtime/server/api_fixture.h"

namespace quern::server {
namespace {

using SleepSwitchTest = ApiTest;

constexpr const char* kCompletion = R"({"model":"m","prompt":"a"})";

TEST_F(SleepSwitchTest, AsleepItIsLiveAndNotReadyAndSaysHowToWakeIt) {
  StartServer();
  EXPECT_EQ(Ask("GET", "/is_sleeping", "", true).body, R"({"is_sleeping":false})");
  for (int i = 0; i < 2; ++i) {
    const Reply asleep = Ask("POST", "/sleep", "", true);
    EXPECT_EQ(asleep.status, 200);
    EXPECT_EQ(asleep.body, R"({"status":"sleeping"})");
  }
  EXPECT_EQ(Ask("GET", "/is_sleeping", "", true).body, R"({"is_sleeping":true})");
  EXPECT_EQ(Ask("GET", "/health/live").status, 200);
  const Reply ready = Ask("GET", "/health/ready");
  EXPECT_EQ(ready.status, 503);
  EXPECT_EQ(ready.Json()["status"], "sleeping");
  const Reply refused = Ask("POST", "/v1/completions", kCompletion);
  EXPECT_EQ(refused.status, 503);
  EXPECT_EQ(refused.Error("code"), "model_sleeping");
  EXPECT_NE(refused.Error("message").find("/wake_up"), std::string::npos) << refused.body;
  EXPECT_NE(refused.head.find("Retry-After"), std::string::npos);

  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(Ask("POST", "/wake_up", "", true).body, R"({"status":"awake"})");
  }
  EXPECT_EQ(Ask("GET", "/health/ready").status, 200);
}

TEST_F(SleepSwitchTest, OnlyTheAdministrativePortHasIt) {
  StartServer();
  EXPECT_EQ(Ask("POST", "/sleep").status, 404);
  EXPECT_EQ(Ask("POST", "/wake_up").status, 404);
  EXPECT_EQ(Ask("GET", "/sleep", "", true).status, 405);
}

TEST_F(SleepSwitchTest, WhoIsNotDoneInTimeKeepsItAwake) {
  StartServer();
  engine->SetBusy(true);
  const Reply reply = Ask("POST", "/sleep", "", true);
  EXPECT_EQ(reply.status, 409);
  EXPECT_EQ(reply.Error("code"), "busy");
  EXPECT_EQ(Ask("GET", "/health/ready").status, 200);
}

TEST_F(SleepSwitchTest, SleepsOnWhenTheModelCannotBeLoaded) {
  wake = []() -> Status { return MakeError(ErrorCode::kNotFound, "m.gguf: no such file"); };
  StartServer();
  EXPECT_EQ(Ask("POST", "/sleep", "", true).status, 200);
  const Reply reply = Ask("POST", "/wake_up", "", true);
  EXPECT_EQ(reply.status, 503);
  EXPECT_EQ(reply.Error("code"), "cannot_load");
  EXPECT_EQ(reply.Error("message"), "m.gguf: no such file");
  EXPECT_EQ(Ask("GET", "/is_sleeping", "", true).body, R"({"is_sleeping":true})");
}

TEST_F(SleepSwitchTest, AnswersWhenThereIsNoMemoryForTheModel) {
  wake = []() -> Status { throw std::bad_alloc(); };
  StartServer();
  EXPECT_EQ(Ask("POST", "/sleep", "", true).status, 200);
  EXPECT_EQ(Ask("POST", "/wake_up", "", true).Error("code"), "cannot_load");
  EXPECT_EQ(Ask("GET", "/is_sleeping", "", true).body, R"({"is_sleeping":true})");
}

TEST_F(SleepSwitchTest, WhileLoadingOrDrainingThereIsNothingToPutToSleep) {
  StartServer(/*load=*/false);
  EXPECT_EQ(Ask("POST", "/sleep", "", true).Error("code"), "model_loading");
  EXPECT_EQ(Ask("POST", "/wake_up", "", true).Error("code"), "model_loading");
  Load();
  EXPECT_EQ(Ask("POST", "/sleep", "", true).status, 200);
  state.SetDraining();
  EXPECT_EQ(Ask("POST", "/wake_up", "", true).Error("code"), "draining");
  EXPECT_EQ(Ask("GET", "/health/ready").Json()["status"], "draining");
}

}  // namespace
}  // namespace quern::server
