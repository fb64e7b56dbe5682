// Between a request's body and the engine: long prompts, hard ones, the pool that encodes them.
#include <gtest/gtest.h>

#include <chrono>
#include <new>
#include <nlohmann/json.hpp>
#include <string>

#include "tests/unit/runtime/server/api_fixture.h"

namespace quern::server {
namespace {

TEST_F(ApiTest, PromptLongerThanTheContextIs400WithFigures) {
  StartServer();
  const Reply reply =
      Ask("POST", "/v1/completions", R"({"model":"m","prompt":")" + std::string(1000, 'a') + "\"}");
  EXPECT_EQ(reply.status, 400);
  EXPECT_EQ(reply.Error("code"), "context_length_exceeded");
  EXPECT_NE(reply.Error("message").find("1001 tokens"), std::string::npos);
  EXPECT_NE(reply.Error("message").find("1000"), std::string::npos);
  const Reply sum =
      Ask("POST", "/v1/completions", R"({"model":"m","prompt":"abc","max_tokens":997})");
  EXPECT_EQ(sum.status, 400);
  EXPECT_NE(sum.Error("message").find("at most 996"), std::string::npos) << sum.body;
  EXPECT_TRUE(MetricIs(R"(quern_requests_rejected_total{model="m",reason="context_length"})", 2));
}

TEST_F(ApiTest, HugePromptIsRefusedBeforeItIsEncoded) {
  StartServer();
  const Reply reply = Ask("POST", "/v1/completions",
                          R"({"model":"m","prompt":")" + std::string(900'000, 'a') + "\"}");
  EXPECT_EQ(reply.status, 400);
  EXPECT_EQ(reply.Error("code"), "context_length_exceeded");
  EXPECT_NE(reply.Error("message").find("the prompt has at least 1757 tokens; the model's context "
                                        "holds 1000"),
            std::string::npos)
      << reply.body;
}

TEST_F(ApiTest, HugeTextToCountIsRefusedBeforeItIsEncodedWithItsOwnLimit) {
  longest_token_bytes = 100;
  StartServer();
  const std::string text(900'000, 'a');
  const json messages = json::array({{{"role", "user"}, {"content", text}}});
  for (const json& body : {json{{"prompt", text}}, json{{"messages", messages}}}) {
    const Reply reply = Ask("POST", "/tokenize", body.dump());
    EXPECT_EQ(reply.status, 400);
    EXPECT_EQ(reply.Error("code"), "context_length_exceeded");
    EXPECT_NE(reply.Error("message").find("makes at least 9000 tokens; at most 4000 are taken"),
              std::string::npos)
        << reply.body;
  }
}

TEST_F(ApiTest, PromptThatTakesTooMuchWorkIsABadRequestNotAFullQueue) {
  StartServer();
  const Reply chat = Ask("POST", "/v1/chat/completions",
                         R"({"model":"m","messages":[{"role":"user","content":"endless"}]})");
  const Reply text = Ask("POST", "/v1/completions", R"({"model":"m","prompt":"too hard"})");
  EXPECT_EQ(chat.Error("param"), "messages");
  EXPECT_NE(chat.Error("message").find("chat template"), std::string::npos);
  EXPECT_EQ(text.Error("param"), "prompt");
  for (const Reply& reply : {chat, text}) {
    EXPECT_EQ(reply.status, 400) << reply.body;
    EXPECT_EQ(reply.Error("code"), "invalid_value");
    EXPECT_EQ(reply.Error("type"), "invalid_request_error");
    EXPECT_EQ(reply.head.find("Retry-After"), std::string::npos);
  }
  EXPECT_TRUE(MetricIs(R"(quern_requests_rejected_total{model="m",reason="queue_full"})", 0));
}

TEST_F(ApiTest, FullAdmissionGateIs429ForLongRequestsAndNothingForShortOnes) {
  options.max_preparing = 0;
  options.long_body_bytes = 1000;
  StartServer();
  const Reply reply =
      Ask("POST", "/v1/completions", R"({"model":"m","prompt":")" + std::string(1000, 'a') + "\"}");
  EXPECT_EQ(reply.status, 429);
  EXPECT_EQ(reply.Error("code"), "admission_full");
  EXPECT_EQ(Ask("POST", "/tokenize", R"({"prompt":"ab"})").status, 200);
}

TEST_F(ApiTest, WhatMustBeCompiledGoesThroughTheGateHoweverShort) {
  options.max_preparing = 0;
  StartServer();
  for (const char* format : {R"("response_format":{"type":"json_object"})", R"("guided_regex":"a")",
                             R"("guided\u005fchoice":["a"])"}) {
    const Reply reply =
        Ask("POST", "/v1/completions", fmt::format(R"({{"model":"m","prompt":"a",{}}})", format));
    EXPECT_EQ(reply.status, 429) << format;
    EXPECT_EQ(reply.Error("code"), "admission_full");
  }
}

// The tokenizer of these tests has no end of generation, which the compiler wants.
TEST_F(ApiTest, AFormatIsCompiledOnThePoolAndItsErrorIsTheAnswer) {
  StartServer();
  const Reply reply =
      Ask("POST", "/v1/completions", R"({"model":"m","prompt":"a","guided_regex":"a"})");
  EXPECT_EQ(reply.status, 400);
  EXPECT_EQ(reply.Error("param"), "guided_regex");
  EXPECT_NE(reply.Error("message").find("no end-of-generation token"), std::string::npos);
}

TEST_F(ApiTest, LongPromptIsPreparedOffTheLoopAndAnsweredTheSame) {
  options.long_body_bytes = 100;
  StartServer();
  RawClient client(port);
  client.Send(Request("POST", "/v1/completions",
                      R"({"model":"m","prompt":")" + std::string(900, 'a') + "\"}"));
  const auto request = engine->WaitForRequest(1);
  ASSERT_TRUE(request);
  EXPECT_EQ(request->prompt.size(), 901u);
  engine->Emit(1, "ok", FinishReason::kStop);
  EXPECT_EQ(Split(client.ReadResponse()).Json()["choices"][0]["text"], "ok");
}

TEST_F(ApiTest, RequestThatIsBeingEncodedWhenTheDrainBeginsStillRuns) {
  http::Gate gate;
  bool encoding = false, go_on = false;
  before_encode = [&] {
    gate.Change([&] { encoding = true; });
    gate.Wait([&] { return go_on; });
  };
  options.long_body_bytes = 100;
  StartServer();
  RawClient client(port);
  client.Send(Request("POST", "/v1/completions",
                      R"({"model":"m","prompt":")" + std::string(900, 'a') + "\"}"));
  ASSERT_TRUE(gate.Wait([&] { return encoding; }));
  state.SetDraining();
  EXPECT_FALSE(api->WaitForPreparing(std::chrono::milliseconds(0)));
  gate.Change([&] { go_on = true; });
  EXPECT_TRUE(api->WaitForPreparing(RawClient::kPatience));
  ASSERT_EQ(engine->Stats().running, 1);  // was handed over by then
  engine->Emit(1, "ok", FinishReason::kStop);
  EXPECT_EQ(Split(client.ReadResponse()).Json()["choices"][0]["text"], "ok");
}

TEST_F(ApiTest, LongPromptOfAClientThatHasGoneIsNotEncoded) {
  http::Gate gate;
  int encoded = 0;
  bool go_on = false;
  before_encode = [&] {
    gate.Change([&] { ++encoded; });
    gate.Wait([&] { return go_on; });
  };
  options.long_body_bytes = 100;
  options.encode_threads = 1;
  StartServer();
  const std::string body = R"({"prompt":")" + std::string(900, 'a') + "\"}";
  RawClient first(port);
  first.Send(Request("POST", "/tokenize", body));
  ASSERT_TRUE(gate.Wait([&] { return encoded == 1; }));
  {
    RawClient leaves(port);
    leaves.Send(Request("POST", "/tokenize", body));
  }
  ASSERT_TRUE(
      MetricIs(R"(quern_http_requests_total{model="m",handler="tokenize",status="499"})", 1));
  RawClient last(port);
  last.Send(Request("POST", "/tokenize", body));
  gate.Change([&] { go_on = true; });
  EXPECT_EQ(Split(first.ReadResponse()).status, 200);
  EXPECT_EQ(Split(last.ReadResponse()).status, 200);
  EXPECT_EQ(encoded, 2);
}

TEST_F(ApiTest, TokenizeAndDetokenizeTakeFourContextsAndNoMore) {
  StartServer();
  const auto tokenize = [&](int bytes) {
    return Ask("POST", "/tokenize",
               R"({"add_special_tokens":false,"prompt":")" +
                   std::string(static_cast<size_t>(bytes), 'a') + "\"}");
  };
  EXPECT_EQ(tokenize(4000).Json()["count"], 4000);
  const Reply reply = tokenize(4001);
  EXPECT_EQ(reply.status, 400);
  EXPECT_EQ(reply.Error("code"), "context_length_exceeded");
  EXPECT_NE(reply.Error("message").find("4001 tokens; at most 4000"), std::string::npos);
  const auto detokenize = [&](int count) {
    return Ask("POST", "/detokenize",
               json{{"tokens", std::vector<int>(static_cast<size_t>(count), 97)}}.dump());
  };
  EXPECT_EQ(detokenize(4000).status, 200);
  EXPECT_EQ(detokenize(4001).Error("code"), "context_length_exceeded");
}

TEST_F(ApiTest, AnswerThatMayTakeTooMuchMemoryIsRefusedUnlessItIsAStream) {
  StartServer();
  // 128 choices of 900 tokens; each token counts for 512 bytes.
  json body = {{"model", "m"}, {"n", 2}, {"max_tokens", 900}};
  body["prompt"] = std::vector<std::string>(64, "ab");
  const Reply reply = Ask("POST", "/v1/completions", body.dump());
  EXPECT_EQ(reply.status, 400);
  EXPECT_EQ(reply.Error("param"), "max_tokens");
  EXPECT_NE(reply.Error("message").find("may take 58982400 bytes; at most 33554432"),
            std::string::npos)
      << reply.body;
  // The echo of token 256, "<s>", counts as text for every choice.
  body = {{"model", "m"}, {"n", 1}, {"max_tokens", 512}, {"echo", true}};
  body["prompt"] = std::vector<std::vector<int>>(64, std::vector<int>(480, 256));
  body["n"] = 2;
  EXPECT_EQ(Ask("POST", "/v1/completions", body.dump()).Error("param"), "echo");
  body["stream"] = true;
  RawClient client(port);
  client.Send(Request("POST", "/v1/completions", body.dump()));
  EXPECT_TRUE(engine->WaitForRequest(128));
}

TEST_F(ApiTest, WithoutALengthAnAnswerGetsWhatCanBeGivenWithItsLogprobs) {
  StartServer();
  json body = {{"model", "m"}, {"n", 16}, {"logprobs", true}, {"top_logprobs", 20}};
  body["messages"] = json::array({{{"role", "user"}, {"content", "hi"}}});
  RawClient client(port);
  client.Send(Request("POST", "/v1/chat/completions", body.dump()));
  ASSERT_TRUE(engine->WaitForRequest(16));
  const TokenSizes sizes;
  EXPECT_EQ(engine->WaitForRequest(16)->max_tokens,
            kMaxAnswerBytes / (16 * (sizes.text + 22 * sizes.logprob)));
  body["max_tokens"] = 100;
  EXPECT_EQ(Ask("POST", "/v1/chat/completions", body.dump()).Error("param"), "logprobs");
}

TEST(TokenSizes, AreWhatTheLargestTokenTakesInAnAnswerOrALittleMore) {
  for (const std::string text : {"", "a\"\\\b\x01\x7F", "caf\xC3\xA9", "\xE2\x82z\xFF"}) {
    const auto written = static_cast<int64_t>(QuotedJson(text).size()) - 2;
    EXPECT_GE(QuotedBytes(text), written) << text;
    if (text[0] != '\xE2') {
      EXPECT_EQ(QuotedBytes(text), written) << text;
    }
  }
  const ByteTokenizer tokenizer;
  const TokenSizes sizes = TokenSizesOf(tokenizer);
  EXPECT_EQ(sizes.text, 6);
  EXPECT_LT(sizes.logprob, 120);
  for (TokenId id = 0; id < tokenizer.vocab_size(); ++id) {
    const GeneratedLogprobs one{
        .token = {id, -1.1920929e-07f}, .top = {{id, -1.1920929e-07f}}, .text_offset = 1 << 30};
    const std::vector<GeneratedLogprobs> many(10, one);
    const auto most = 10 * 3 * sizes.logprob;  // as for one alternative
    EXPECT_LE(std::ssize(ChatLogprobs(many, tokenizer)), most) << id;
    EXPECT_LE(std::ssize(CompletionLogprobs(many, tokenizer)), most) << id;
  }
}

TEST(EncodePool, TaskThatThrowsDoesNotEndItsThread) {
  EncodePool pool(1);
  http::Gate gate;
  bool done = false;
  pool.Run("", [] { throw std::bad_alloc(); });
  pool.Run("", [&] { gate.Change([&] { done = true; }); });
  EXPECT_TRUE(gate.Wait([&] { return done; }));
}

TEST(EncodePool, TenantsTakeTurns) {
  EncodePool pool(1);
  http::Gate gate;
  bool begun = false, go_on = false;
  std::string order;
  const auto note = [&](char name) { return [&, name] { gate.Change([&] { order += name; }); }; };
  pool.Run("a", [&] {
    gate.Change([&] { begun = true; });
    gate.Wait([&] { return go_on; });
  });
  ASSERT_TRUE(gate.Wait([&] { return begun; }));
  for (int i = 0; i < 4; ++i) pool.Run("a", note('a'));
  for (int i = 0; i < 2; ++i) pool.Run("b", note('b'));
  pool.Run("c", note('c'));
  gate.Change([&] { go_on = true; });
  ASSERT_TRUE(gate.Wait([&] { return order.size() == 7; }));
  EXPECT_EQ(order, "abcabaa");
}

TEST_F(ApiTest, TenantThatFloodsTheGateShutsOutItselfAndNoOther) {
  tenants = R"({"tenants": [{"name": "a", "keys": ["sk-aaaaaaaaaaaaaaaa"]},
                            {"name": "b", "keys": ["sk-bbbbbbbbbbbbbbbb"]}]})";
  http::Gate gate;
  bool encoding = false, go_on = false;
  before_encode = [&] {
    gate.Change([&] { encoding = true; });
    gate.Wait([&] { return go_on; });
  };
  options.max_preparing = 2;
  options.long_body_bytes = 100;
  StartServer();
  const std::string body = R"({"prompt":")" + std::string(900, 'a') + "\"}";
  RawClient first(port), second(port), other(port);
  first.Send(Request("POST", "/tokenize", body, "sk-aaaaaaaaaaaaaaaa"));
  ASSERT_TRUE(gate.Wait([&] { return encoding; }));
  second.Send(Request("POST", "/tokenize", body, "sk-aaaaaaaaaaaaaaaa"));
  const Reply refused = Split(second.ReadResponse());
  EXPECT_EQ(refused.status, 429);
  EXPECT_EQ(refused.Error("code"), "tenant_limit");
  EXPECT_EQ(refused.Error("type"), "rate_limit_error");
  EXPECT_NE(refused.head.find("Retry-After: 1"), std::string::npos);
  other.Send(Request("POST", "/tokenize", body, "sk-bbbbbbbbbbbbbbbb"));
  gate.Change([&] { go_on = true; });
  EXPECT_EQ(Split(other.ReadResponse()).status, 200);
  EXPECT_EQ(Split(first.ReadResponse()).status, 200);
  EXPECT_TRUE(MetricIs(R"(quern_requests_rejected_total{model="m",reason="tenant_limit"})", 1));
  EXPECT_TRUE(
      MetricIs(R"(quern_tenant_requests_total{model="m",reason="rejected",tenant="a"})", 1));
}

}  // namespace
}  // namespace quern::server
