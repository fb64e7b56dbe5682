// The API with keys, over real sockets. Run under ThreadSanitizer as well.

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "runtime/server/api.h"
#include "tests/unit/runtime/server/api_fixture.h"

namespace quern::server {
namespace {

using TenantsApiTest = ApiTest;

const char kTenants[] = R"({"tenants": [
  {"name": "a", "keys": ["sk-aaaaaaaaaaaaaaaa"], "weight": 2, "priority": 3, "max_requests": 1},
  {"name": "b", "keys": ["sk-bbbbbbbbbbbbbbbb"]}]})";
const char kKeyA[] = "sk-aaaaaaaaaaaaaaaa";
const char kKeyB[] = "sk-bbbbbbbbbbbbbbbb";

TEST_F(TenantsApiTest, WithTenantsNothingButHealthIsAnsweredWithoutAKey) {
  tenants = kTenants;
  StartServer();
  for (const char* path :
       {"/v1/completions", "/v1/chat/completions", "/v1/responses", "/tokenize", "/detokenize"}) {
    const Reply reply = Ask("POST", path, R"({"model":"m","prompt":"ab"})");
    EXPECT_EQ(reply.status, 401) << path;
    EXPECT_EQ(reply.Error("code"), "invalid_api_key");
    EXPECT_EQ(reply.Error("type"), "invalid_request_error");
    EXPECT_NE(reply.head.find("WWW-Authenticate: Bearer"), std::string::npos);
  }
  EXPECT_EQ(Ask("GET", "/v1/models").status, 401);
  EXPECT_EQ(Ask("GET", "/health/ready").status, 200);
  EXPECT_EQ(Ask("GET", "/metrics", "", true).status, 200);
  RawClient client(port);
  client.Send(Request("POST", "/tokenize", R"({"prompt":"ab"})", "sk-cccccccccccccccc"));
  const Reply wrong = Split(client.ReadResponse());
  EXPECT_EQ(wrong.status, 401);
  EXPECT_EQ(wrong.body.find("cccc"), std::string::npos);
  client.Send(Request("POST", "/tokenize", R"({"prompt":"ab"})", kKeyA));
  EXPECT_EQ(Split(client.ReadResponse()).status, 200);
}

TEST_F(TenantsApiTest, EngineIsToldTheTenantThePriorityAndTheSaltAndMayRefuseIt) {
  tenants = kTenants;
  StartServer();
  RawClient client(port);
  client.Send(Request("POST", "/v1/completions",
                      R"({"model":"m","prompt":"ab","user":"b","priority":4,"cache_salt":"s"})",
                      kKeyA));
  const auto request = engine->WaitForRequest(1);
  ASSERT_TRUE(request && request->tenant);
  EXPECT_EQ(request->tenant->name, "a");
  EXPECT_EQ(request->tenant->weight, 2);
  EXPECT_EQ(request->tenant->max_requests, 1);
  EXPECT_EQ(request->tenant->priority, 3);
  EXPECT_EQ(request->priority, 4);
  EXPECT_EQ(request->cache_salt, "s");
  RawClient second(port);
  second.Send(Request("POST", "/v1/completions", R"({"model":"m","prompt":"ab"})", kKeyA));
  const Reply refused = Split(second.ReadResponse());
  EXPECT_EQ(refused.status, 429);
  EXPECT_EQ(refused.Error("code"), "tenant_limit");
  EXPECT_NE(refused.head.find("Retry-After: 1"), std::string::npos);
  EXPECT_TRUE(MetricIs(R"(quern_requests_rejected_total{model="m",reason="tenant_limit"})", 1));
  engine->Emit(1, "x");
  engine->Emit(1, "y", FinishReason::kStop);
  EXPECT_EQ(Split(client.ReadResponse()).status, 200);
  EXPECT_TRUE(MetricIs(R"(quern_tenant_requests_total{model="m",reason="stop",tenant="a"})", 1));
  EXPECT_TRUE(MetricIs(R"(quern_tenant_prompt_tokens_total{model="m",tenant="a"})", 3));
  EXPECT_TRUE(MetricIs(R"(quern_tenant_generation_tokens_total{model="m",tenant="a"})", 2));
  EXPECT_TRUE(MetricIs(R"(quern_tenant_generation_tokens_total{model="m",tenant="b"})", 0));
}

TEST_F(TenantsApiTest, TokensOfAClientThatLeftAreItsTenantsToo) {
  tenants = kTenants;
  StartServer();
  {
    RawClient client(port);
    client.Send(
        Request("POST", "/v1/completions", R"({"model":"m","prompt":"ab","stream":true})", kKeyB));
    ASSERT_TRUE(engine->WaitForRequest(1));
    engine->Emit(1, "x");
    client.ReadUntil("\"x\"");
  }
  ASSERT_TRUE(engine->WaitForCancel(1));
  engine->Emit(1, "", FinishReason::kCancelled);
  EXPECT_TRUE(
      MetricIs(R"(quern_tenant_requests_total{model="m",reason="cancelled",tenant="b"})", 1));
  EXPECT_TRUE(MetricIs(R"(quern_tenant_prompt_tokens_total{model="m",tenant="b"})", 3));
}

TEST_F(TenantsApiTest, WithoutTenantsAnyKeyIsTakenAndTheTenantIsNobody) {
  StartServer();
  RawClient client(port);
  client.Send(Request("POST", "/v1/completions", R"({"model":"m","prompt":"ab"})", "anything"));
  const auto request = engine->WaitForRequest(1);
  ASSERT_TRUE(request);
  EXPECT_FALSE(request->tenant);
  EXPECT_EQ(Metrics().find("quern_tenant"), std::string::npos);
}

}  // namespace
}  // namespace quern::server
