#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "runtime/server/api.h"
#include "tests/unit/runtime/server/api_fixture.h"

// What the server says of itself while it loads, drains, stalls and serves.
namespace quern::server {
namespace {

TEST_F(ApiTest, WhileLoadingItIsLiveButNotReadyAndSaysWhy) {
  StartServer(/*load=*/false);
  state.SetLoading("weights");
  EXPECT_EQ(Ask("GET", "/health/live").status, 200);
  const Reply ready = Ask("GET", "/health/ready", "", true);
  EXPECT_EQ(ready.status, 503);
  EXPECT_EQ(ready.body, R"({"reason":"weights","status":"loading"})");
  const Reply refused = Ask("POST", "/v1/completions", R"({"model":"m","prompt":"a"})");
  EXPECT_EQ(refused.status, 503);
  EXPECT_EQ(refused.Error("code"), "model_loading");
  EXPECT_NE(refused.head.find("Retry-After"), std::string::npos);
  Load();
  EXPECT_EQ(Ask("GET", "/health/ready").status, 200);
}

TEST_F(ApiTest, DrainingRefusesNewWorkAndLetsOldWorkFinish) {
  StartServer();
  RawClient client(port);
  client.Send(Request("POST", "/v1/completions", R"({"model":"m","prompt":"a","stream":true})"));
  ASSERT_TRUE(engine->WaitForRequest(1));
  state.SetDraining();
  server->BeginDrain();
  EXPECT_EQ(Ask("GET", "/health/ready").status, 503);
  EXPECT_EQ(Ask("GET", "/health/live").status, 200);
  const Reply refused = Ask("POST", "/v1/completions", R"({"model":"m","prompt":"a"})");
  EXPECT_EQ(refused.status, 503);
  EXPECT_EQ(refused.Error("code"), "draining");
  engine->Emit(1, "last", FinishReason::kStop);
  EXPECT_NE(client.ReadUntil("0\r\n\r\n").find("[DONE]"), std::string::npos);
  EXPECT_TRUE(server->Stop(RawClient::kPatience));
}

TEST_F(ApiTest, StalledEngineFailsLivenessOnBothPorts) {
  options.stall_timeout = Seconds(60);
  StartServer();
  engine->SetStalled(Seconds(59));
  EXPECT_EQ(Ask("GET", "/health/live").status, 200);
  engine->SetStalled(Seconds(61));
  EXPECT_EQ(Ask("GET", "/health/live").status, 503);
  EXPECT_EQ(Ask("GET", "/health/live", "", true).status, 503);
}

TEST_F(ApiTest, StalledEngineIsNotReadyLongBeforeItIsNotLive) {
  options.stall_timeout = Seconds(60);
  StartServer();
  engine->SetStalled(Seconds(14));
  EXPECT_EQ(Ask("GET", "/health/ready").status, 200);
  engine->SetStalled(Seconds(16));
  EXPECT_EQ(Ask("GET", "/health/ready").status, 503);
  EXPECT_EQ(Ask("GET", "/health/ready", "", true).status, 503);
  EXPECT_EQ(Ask("GET", "/health/live").status, 200);
  engine->SetStalled(Seconds(0));
  EXPECT_EQ(Ask("GET", "/health/ready").status, 200);
}

TEST_F(ApiTest, WithoutAStallTimeoutNoStallCounts) {
  options.stall_timeout = Seconds(0);
  StartServer();
  engine->SetStalled(Seconds(1e6));
  EXPECT_EQ(Ask("GET", "/health/ready").status, 200);
  EXPECT_EQ(Ask("GET", "/health/live").status, 200);
}

TEST_F(ApiTest, MetricsAreOnTheAdministrativePortOnly) {
  StartServer();
  EXPECT_EQ(Ask("GET", "/metrics").status, 404);
  EXPECT_EQ(Ask("GET", "/v1/models", "", true).status, 404);
  EXPECT_NE(Metrics().find("quern_kv_cache_tokens_capacity{model=\"m\"} 1024\n"),
            std::string::npos);
}

}  // namespace
}  // namespace quern::server
