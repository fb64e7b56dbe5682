#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "runtime/server/api.h"
#include "tests/unit/runtime/server/api_fixture.h"

// Answers that end otherwise than by their last token.
namespace quern::server {
namespace {

TEST_F(ApiTest, ClientThatLeavesCancelsItsWorkBeforeAnotherToken) {
  StartServer();
  {
    RawClient client(port);
    client.Send(Request("POST", "/v1/completions", R"({"model":"m","prompt":"a","stream":true})"));
    ASSERT_TRUE(engine->WaitForRequest(1));
    engine->Emit(1, "x");
    client.ReadUntil("\"x\"");
  }
  EXPECT_TRUE(engine->WaitForCancel(1));
  engine->Emit(1, "", FinishReason::kCancelled);
  EXPECT_TRUE(
      MetricIs(R"(quern_http_requests_total{model="m",handler="completions",status="499"})", 1));
}

TEST_F(ApiTest, ClientThatLeavesBeforeAWholeAnswerCancelsToo) {
  StartServer();
  {
    RawClient client(port);
    client.Send(Request("POST", "/v1/completions", R"({"model":"m","prompt":["a","b"]})"));
    ASSERT_TRUE(engine->WaitForRequest(2));
  }
  EXPECT_TRUE(engine->WaitForCancel(1));
  EXPECT_TRUE(engine->WaitForCancel(2));
  engine->Emit(1, "", FinishReason::kCancelled);
  engine->Emit(2, "", FinishReason::kCancelled);
}

TEST_F(ApiTest, EngineFailureMidStreamIsAnErrorEvent) {
  StartServer();
  RawClient client(port);
  client.Send(Request("POST", "/v1/completions", R"({"model":"m","prompt":"a","stream":true})"));
  ASSERT_TRUE(engine->WaitForRequest(1));
  engine->Emit(1, "x");
  engine->Emit(1, "", FinishReason::kError, "the forward pass failed");
  const std::string all = client.ReadUntil("[DONE]");
  EXPECT_NE(
      all.find(R"(data: {"error":{"code":"generation_failed","message":"the forward pass failed")"),
      std::string::npos)
      << all;
}

TEST_F(ApiTest, AFormatThatNothingFitsIsTheClientsError) {
  StartServer();
  RawClient client(port);
  client.Send(Request("POST", "/v1/completions", R"({"model":"m","prompt":"a"})"));
  ASSERT_TRUE(engine->WaitForRequest(1));
  engine->Emit(1, "", FinishReason::kFormat, "nothing fits");
  const Reply reply = Split(client.ReadResponse());
  EXPECT_EQ(reply.status, 400);
  EXPECT_EQ(reply.Error("code"), "format_cannot_be_followed");
  EXPECT_EQ(reply.Error("type"), "invalid_request_error");
}

TEST_F(ApiTest, EngineFailureIsA500ForAWholeAnswer) {
  StartServer();
  RawClient client(port);
  client.Send(Request("POST", "/v1/completions", R"({"model":"m","prompt":"a"})"));
  ASSERT_TRUE(engine->WaitForRequest(1));
  engine->Emit(1, "", FinishReason::kError, "the forward pass failed");
  const Reply reply = Split(client.ReadResponse());
  EXPECT_EQ(reply.status, 500);
  EXPECT_EQ(reply.Error("message"), "the forward pass failed");
}

TEST_F(ApiTest, RequestsThatTheDrainCutsAreToldToTryElsewhere) {
  StartServer();
  RawClient whole(port), streamed(port);
  whole.Send(Request("POST", "/v1/completions", R"({"model":"m","prompt":"a"})"));
  ASSERT_TRUE(engine->WaitForRequest(1));
  streamed.Send(Request("POST", "/v1/completions", R"({"model":"m","prompt":"a","stream":true})"));
  ASSERT_TRUE(engine->WaitForRequest(2));
  engine->Emit(1, "", FinishReason::kCancelled);
  engine->Emit(2, "", FinishReason::kCancelled);
  const Reply reply = Split(whole.ReadResponse());
  EXPECT_EQ(reply.status, 503);
  EXPECT_EQ(reply.Error("code"), "draining");
  EXPECT_NE(reply.head.find("Retry-After: 1"), std::string::npos);
  EXPECT_NE(streamed.ReadUntil("[DONE]").find(R"(data: {"error":{"code":"draining")"),
            std::string::npos);
}

TEST_F(ApiTest, StreamThatFallsTooFarBehindEndsWithAnErrorAndItsWorkIsCancelled) {
  StartServer();
  RawClient client(port, /*receive_buffer=*/4096);
  client.Send(Request("POST", "/v1/completions", R"({"model":"m","prompt":"a","stream":true})"));
  ASSERT_TRUE(engine->WaitForRequest(1));
  for (int i = 0; i < kPieces; ++i) engine->Emit(1, kPiece);
  EXPECT_TRUE(engine->WaitForCancel(1));
  const std::string all = client.ReadUntil("[DONE]");
  EXPECT_NE(all.find(R"("code":"client_too_slow")"), std::string::npos);
  EXPECT_LT(std::count(all.begin(), all.end(), '~'), int64_t{8000} * kPieces);
  EXPECT_TRUE(MetricIs(R"(quern_requests_rejected_total{model="m",reason="stream_buffer"})", 1));
}

}  // namespace
}  // namespace quern::server
