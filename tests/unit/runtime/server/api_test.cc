#include "runtime/server/api.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "tests/unit/runtime/server/api_fixture.h"

namespace quern::server {
namespace {

TEST_F(ApiTest, CompletionIsAnsweredWhole) {
  StartServer();
  RawClient client(port);
  client.Send(Request("POST", "/v1/completions",
                      R"({"model":"m","prompt":"ab","max_tokens":9,"stop":"x","seed":3})"));
  const auto request = engine->WaitForRequest(1);
  ASSERT_TRUE(request);
  EXPECT_EQ(request->prompt, (std::vector<TokenId>{256, 'a', 'b'}));
  EXPECT_EQ(request->max_tokens, 9);
  EXPECT_EQ(request->stop, std::vector<std::string>{"x"});
  EXPECT_EQ(request->sampling.seed, 3u);
  engine->Emit(1, "Hel");
  engine->Emit(1, "lo \xE2\x82\xAC\n", FinishReason::kStop);
  const Reply reply = Split(client.ReadResponse());
  EXPECT_EQ(reply.status, 200);
  const json body = reply.Json();
  EXPECT_EQ(body["object"], "text_completion");
  EXPECT_EQ(body["model"], "m");
  EXPECT_EQ(body["choices"][0]["text"], "Hello \xE2\x82\xAC\n");
  EXPECT_EQ(body["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(body["usage"].dump(),
            R"({"completion_tokens":2,"prompt_tokens":3,)"
            R"("prompt_tokens_details":{"cached_tokens":2},"total_tokens":5})");
}

TEST_F(ApiTest, ChatIsStreamedAsEventsThatEndWithDone) {
  StartServer();
  RawClient client(port);
  client.Send(Request("POST", "/v1/chat/completions",
                      R"({"model":"m","messages":[{"role":"user","content":"hi"}],"stream":true,)"
                      R"("stream_options":{"include_usage":true}})"));
  const auto request = engine->WaitForRequest(1);
  ASSERT_TRUE(request);
  EXPECT_EQ(request->prompt.size(), std::string("[user]hi[assistant]").size());
  EXPECT_EQ(request->max_tokens, 1000 - static_cast<int>(request->prompt.size()));
  EXPECT_NE(client.ReadUntil("\r\n\r\n").find("text/event-stream"), std::string::npos);
  engine->Emit(1, "a");
  client.ReadUntil("\"content\":\"a\"");
  engine->Emit(1, "");  // a token without text makes no event
  engine->Emit(1, "b", FinishReason::kLength);
  const std::string all = client.ReadUntil("data: [DONE]\n\n");
  std::vector<json> events;
  for (size_t at = all.find("data: {"); at != std::string::npos; at = all.find("data: {", at + 1)) {
    events.push_back(json::parse(all.substr(at + 6, all.find("\n\n", at) - at - 6)));
  }
  ASSERT_EQ(events.size(), 5u) << all;
  EXPECT_EQ(events[0]["choices"][0]["delta"]["role"], "assistant");
  EXPECT_EQ(events[0]["object"], "chat.completion.chunk");
  EXPECT_TRUE(events[0]["usage"].is_null());
  EXPECT_EQ(events[1]["choices"][0]["delta"]["content"], "a");
  EXPECT_EQ(events[2]["choices"][0]["delta"]["content"], "b");
  EXPECT_TRUE(events[2]["choices"][0]["finish_reason"].is_null());
  EXPECT_EQ(events[3]["choices"][0]["finish_reason"], "length");
  EXPECT_TRUE(events[4]["choices"].empty());
  EXPECT_EQ(events[4]["usage"]["completion_tokens"], 3);
  for (const json& event : events) EXPECT_EQ(event["id"], events[0]["id"]);
}

TEST_F(ApiTest, SeveralPromptsBecomeSeveralChoices) {
  StartServer();
  RawClient client(port);
  client.Send(Request("POST", "/v1/completions", R"({"model":"m","prompt":["a","bc"]})"));
  ASSERT_TRUE(engine->WaitForRequest(2));
  engine->Emit(2, "two", FinishReason::kStop);
  engine->Emit(1, "one", FinishReason::kLength);
  const json body = Split(client.ReadResponse()).Json();
  EXPECT_EQ(body["choices"][0]["text"], "one");
  EXPECT_EQ(body["choices"][1]["text"], "two");
  EXPECT_EQ(body["choices"][1]["index"], 1);
  EXPECT_EQ(body["usage"]["prompt_tokens"], 5);
}

TEST_F(ApiTest, ChoicesOfAPromptStandSideBySideWithSeedsOfTheirOwnAndItsTokensCountOnce) {
  StartServer();
  RawClient client(port);
  client.Send(Request("POST", "/v1/completions",
                      R"({"model":"m","prompt":["a","bc"],"n":2,"seed":9,"echo":true})"));
  const auto last = engine->WaitForRequest(4);
  ASSERT_TRUE(last);
  EXPECT_EQ(engine->WaitForRequest(1)->sampling.seed, 9u) << "as with n = 1";
  EXPECT_NE(engine->WaitForRequest(2)->sampling.seed, 9u);
  EXPECT_EQ(engine->WaitForRequest(2)->sampling.seed, last->sampling.seed);
  EXPECT_EQ(engine->WaitForRequest(2)->prompt, engine->WaitForRequest(1)->prompt);
  EXPECT_EQ(last->prompt, engine->WaitForRequest(3)->prompt);
  for (RequestId id = 4; id > 0; --id) {
    engine->Emit(id, " " + std::to_string(id), FinishReason::kStop);
  }
  const json body = Split(client.ReadResponse()).Json();
  ASSERT_EQ(body["choices"].size(), 4u);
  const std::vector<std::string> texts = {"a 1", "a 2", "bc 3", "bc 4"};
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(body["choices"][i]["text"], texts[i]);
    EXPECT_EQ(body["choices"][i]["index"], i);
    EXPECT_TRUE(body["choices"][i]["logprobs"].is_null());
  }
  // Two prompts of 2 and 3 tokens; ScriptedEngine finds all but one of each in its cache.
  EXPECT_EQ(body["usage"]["prompt_tokens"], 5);
  EXPECT_EQ(body["usage"]["prompt_tokens_details"]["cached_tokens"], 3);
  EXPECT_EQ(body["usage"]["completion_tokens"], 4);
}

// What the model says of a token 'a' and its rivals, one of which is half a character.
GeneratedLogprobs LogprobsOfA(int32_t offset) {
  return {.token = {'a', -0.5f}, .top = {{0xC3, -0.25f}, {'b', -1.5f}}, .text_offset = offset};
}

TEST_F(ApiTest, LogprobsOfACompletionHaveOpenAisShape) {
  StartServer();
  RawClient client(port);
  client.Send(Request("POST", "/v1/completions", R"({"model":"m","prompt":"p","logprobs":2})"));
  const auto request = engine->WaitForRequest(1);
  ASSERT_TRUE(request);
  EXPECT_EQ(request->top_logprobs, 2);
  engine->Emit(1, "a", {}, {}, {LogprobsOfA(0)});
  engine->Emit(1, "a", FinishReason::kLength, {}, {LogprobsOfA(1)});
  const json logprobs = Split(client.ReadResponse()).Json()["choices"][0]["logprobs"];
  EXPECT_EQ(logprobs["tokens"].dump(), R"(["a","a"])");
  EXPECT_EQ(logprobs["token_logprobs"].dump(), "[-0.5,-0.5]");
  EXPECT_EQ(logprobs["text_offset"].dump(), "[0,1]");
  EXPECT_EQ(logprobs["top_logprobs"][1].dump(), R"({"a":-0.5,"b":-1.5,"bytes:\\xc3":-0.25})");
}

TEST_F(ApiTest, LogprobsOfAStreamedChatComeWithTheirTextAndNoEventIsHuge) {
  StartServer();
  RawClient client(port);
  client.Send(Request("POST", "/v1/chat/completions",
                      R"({"model":"m","messages":[{"role":"user","content":"hi"}],"stream":true,)"
                      R"("logprobs":true,"top_logprobs":2})"));
  ASSERT_TRUE(engine->WaitForRequest(1));
  engine->Emit(1, "a", {}, {}, {LogprobsOfA(0)});
  const std::string first = client.ReadUntil(R"("refusal":null},"finish_reason")");
  EXPECT_NE(
      first.find("\"logprobs\":{\"content\":[{\"token\":\"a\",\"logprob\":-0.5,\"bytes\":[97],"
                 "\"top_logprobs\":[{\"token\":\"\xEF\xBF\xBD\",\"logprob\":-0.25,"
                 "\"bytes\":[195]},"),
      std::string::npos)
      << first;
  engine->Emit(1, "bcd", FinishReason::kStop, {},
               std::vector<GeneratedLogprobs>(100, LogprobsOfA(1)));
  const std::string all = client.ReadUntil("data: [DONE]\n\n");
  size_t entries = 0, events = 0;
  for (size_t at = all.find("data: {"); at != std::string::npos; at = all.find("data: {", at + 1)) {
    const json choice =
        json::parse(all.substr(at + 6, all.find("\n\n", at) - at - 6))["choices"][0];
    ++events;
    if (choice["logprobs"].is_null()) continue;
    EXPECT_LE(choice["logprobs"]["content"].size(), 16u);
    entries += choice["logprobs"]["content"].size();
  }
  EXPECT_EQ(entries, 101u);
  EXPECT_EQ(events, 10u) << "the role, one and seven with entries, the reason";
}

TEST_F(ApiTest, FullQueueIs429WithRetryAfterAndLeavesNoHalfOfARequestBehind) {
  StartServer();
  engine->SetCapacity(1);
  const Reply reply = Ask("POST", "/v1/completions", R"({"model":"m","prompt":["a","b"]})");
  EXPECT_EQ(reply.status, 429);
  EXPECT_EQ(reply.Error("code"), "queue_full");
  EXPECT_NE(reply.head.find("Retry-After: 1"), std::string::npos);
  EXPECT_TRUE(engine->WaitForCancel(1));
  engine->Emit(1, "", FinishReason::kCancelled);
  EXPECT_TRUE(MetricIs(R"(quern_requests_rejected_total{model="m",reason="queue_full"})", 1));
}

TEST_F(ApiTest, ErrorsHaveOpenAisShapeAndStatus) {
  StartServer();
  struct Case {
    const char *method, *path, *body;
    int status;
    const char *param, *code;
  };
  const Case cases[] = {
      {"POST", "/v1/completions", "{", 400, "null", "invalid_json"},
      {"POST", "/v1/completions", "", 400, "null", "invalid_json"},
      {"POST", "/v1/completions", "{\"model\":\"m\",\"prompt\":\"\xff\"}", 400, "null",
       "invalid_json"},
      {"POST", "/v1/completions", R"({"model":"other","prompt":"a"})", 404, "model",
       "model_not_found"},
      {"POST", "/v1/completions", R"({"model":"m","prompt":"a","max_tokens":0})", 400, "max_tokens",
       "invalid_value"},
      {"POST", "/v1/completions", R"({"model":"m","prompt":[1,999]})", 400, "prompt[1]",
       "invalid_value"},
      {"POST", "/v1/completions", R"({"model":"m","prompt":[[1,2,999]]})", 400, "prompt[0][2]",
       "invalid_value"},
      {"POST", "/v1/completions", R"({"model":"m","prompt":[""],"add_special_tokens":false})", 400,
       "prompt[0]", "invalid_value"},
      {"POST", "/v1/embeddings", R"({"model":"m","input":[[1,999]]})", 400, "input[0][1]",
       "invalid_value"},
      {"POST", "/v1/completions", R"({"model":"m","prompt":"a","logit_bias":{"257":1}})", 400,
       R"(logit_bias["257"])", "invalid_value"},
      {"POST", "/v1/completions", R"({"model":"m","prompt":["a",""],"add_special_tokens":false})",
       400, "prompt[1]", "invalid_value"},
      {"POST", "/v1/completions", R"({"model":"m","prompt":"a","min_tokens":17})", 400,
       "min_tokens", "invalid_value"},
      {"POST", "/v1/completions",
       R"({"model":"m","prompt":"a","logprobs":20,"max_tokens":900,"n":14})", 400, "logprobs",
       "invalid_value"},
      {"POST", "/v1/completions", R"({"model":"m","prompt":"","add_special_tokens":false})", 400,
       "prompt", "invalid_value"},
      {"POST", "/v1/chat/completions",
       R"({"model":"m","messages":[{"role":"user","content":"raise"}]})", 400, "messages",
       "invalid_value"},
      {"GET", "/v1/completions", "", 405, "null", "method_not_allowed"},
      {"GET", "/v1/nothing", "", 404, "null", "not_found"},
      {"GET", "/v1/models/other", "", 404, "model", "model_not_found"},
      {"POST", "/detokenize", R"({"tokens":[1,257]})", 400, "tokens[1]", "invalid_value"},
      {"POST", "/tokenize", R"({"prompt":1})", 400, "prompt", "invalid_type"},
      {"GET", "/v1/models/a%2", "", 400, "null", "invalid_request"},
      {"GET", "/v1/\x01", "", 400, "null", "invalid_request"},
  };
  for (const Case& c : cases) {
    const Reply reply = Ask(c.method, c.path, c.body);
    EXPECT_EQ(reply.status, c.status) << c.path << c.body;
    ASSERT_TRUE(reply.Json().contains("error")) << reply.body;
    EXPECT_EQ(reply.Error("param"), c.param) << reply.body;
    EXPECT_EQ(reply.Error("code"), c.code) << reply.body;
    EXPECT_EQ(reply.Error("type"), "invalid_request_error");
  }
}

TEST_F(ApiTest, APathThatThereIsNotNamesThoseThatThereAreTheLikeliestFirst) {
  StartServer();
  struct Case {
    const char *path, *first;
  };
  for (const Case& c :
       {Case{"/v1/chat/completion", "/v1/chat/completions"},
        Case{"/chat/completions", "/v1/chat/completions"},
        Case{"/v1/v1/chat/completions", "/v1/chat/completions"},
        Case{"/completions", "/v1/completions"}, Case{"/v1/completions/", "/v1/completions"},
        Case{"/v1/Completions", "/v1/completions"}, Case{"/v1/embedding", "/v1/embeddings"},
        Case{"/health", "/health/live"}, Case{"/v1/tokenize", "/tokenize"}}) {
    const Reply reply = Ask("POST", c.path, "{}");
    EXPECT_EQ(reply.status, 404) << c.path;
    const std::string message = reply.Error("message");
    EXPECT_NE(message.find(fmt::format("'{}' here; the paths", c.path)), std::string::npos)
        << message;
    EXPECT_NE(message.find(fmt::format("first: {}, ", c.first)), std::string::npos) << message;
    EXPECT_NE(message.find("/v1/models"), std::string::npos) << message;
  }
  EXPECT_NE(
      Ask("GET", "/metrics").Error("message").find("'/metrics' is on the administrative port"),
      std::string::npos);
  EXPECT_NE(Ask("GET", "/v1/models/other").Error("message").find("this server has 'm'"),
            std::string::npos);
}

TEST_F(ApiTest, AnEncodedBodyIs415AndSaysWhatToSend) {
  StartServer();
  RawClient client(port);
  ASSERT_TRUE(
      client.Send("POST /v1/completions HTTP/1.1\r\nHost: t\r\nContent-Encoding: gzip\r\n"
                  "Content-Length: 3\r\n\r\n\x1f\x8b\x08"));
  const Reply reply = Split(client.ReadResponse());
  EXPECT_EQ(reply.status, 415);
  EXPECT_NE(reply.head.find("Accept-Encoding: identity"), std::string::npos) << reply.head;
  EXPECT_EQ(reply.Error("code"), "unsupported_content_encoding");
  EXPECT_EQ(reply.Error("type"), "invalid_request_error");
  EXPECT_NE(reply.Error("message").find("encoded with 'gzip'"), std::string::npos) << reply.body;
}

TEST_F(ApiTest, ModelWithoutAChatTemplatePointsToCompletions) {
  with_template = false;
  StartServer();
  const Reply reply = Ask("POST", "/v1/chat/completions",
                          R"({"model":"m","messages":[{"role":"user","content":"a"}]})");
  EXPECT_EQ(reply.status, 400);
  EXPECT_EQ(reply.Error("code"), "no_chat_template");
  EXPECT_NE(reply.Error("message").find("/v1/completions"), std::string::npos);
}

TEST_F(ApiTest, ModelsAreListedAndShown) {
  StartServer();
  EXPECT_EQ(Ask("GET", "/v1/models").Json()["data"][0]["id"], "m");
  const json model = Ask("GET", "/v1/models/m").Json();
  EXPECT_EQ(model["max_model_len"], 1000);
  EXPECT_EQ(model["meta"], json::parse(R"({"architecture": "llama", "n_params": 1234,
      "n_ctx_train": 2000, "n_vocab": 257, "n_embd": 3, "size": 750, "quantization": "Q4_1",
      "size_by_type": {"Q4_1": 700, "F32": 50}, "kv_cache_dtype": "int8"})"));
}

TEST_F(ApiTest, TokenizeAndDetokenizeHaveVllmsShapes) {
  StartServer();
  EXPECT_EQ(Ask("POST", "/tokenize", R"({"prompt":"ab"})").body,
            R"({"count":3,"max_model_len":1000,"token_strs":null,"tokens":[256,97,98]})");
  EXPECT_EQ(Ask("POST", "/tokenize",
                R"({"prompt":"a","add_special_tokens":false,"return_token_strs":true})")
                .body,
            R"({"count":1,"max_model_len":1000,"token_strs":["a"],"tokens":[97]})");
  EXPECT_EQ(
      Ask("POST", "/tokenize", R"({"messages":[{"role":"user","content":"a"}]})").Json()["count"],
      18);
  EXPECT_EQ(Ask("POST", "/detokenize", R"({"tokens":[256,97,98]})").body, R"({"prompt":"<s>ab"})");
  EXPECT_EQ(Ask("POST", "/detokenize", R"({"tokens":[]})").body, R"({"prompt":""})");
}

TEST_F(ApiTest, EchoComesOnceBeforeEachChoiceOfAStream) {
  StartServer();
  RawClient client(port);
  client.Send(Request("POST", "/v1/completions",
                      R"({"model":"m","prompt":["ab","cd"],"n":2,"echo":true,"stream":true})"));
  ASSERT_TRUE(engine->WaitForRequest(4));
  for (RequestId id = 1; id <= 4; ++id) engine->Emit(id, std::to_string(id));
  for (RequestId id = 1; id <= 4; ++id) engine->Emit(id, "!", FinishReason::kStop);
  const std::string all = client.ReadUntil("data: [DONE]\n\n");
  std::vector<std::string> texts(4);
  for (size_t at = all.find("data: {"); at != std::string::npos; at = all.find("data: {", at + 1)) {
    const json choice =
        json::parse(all.substr(at + 6, all.find("\n\n", at) - at - 6))["choices"][0];
    texts[choice["index"].get<size_t>()] += choice["text"].get<std::string>();
  }
  EXPECT_EQ(texts, (std::vector<std::string>{"ab1!", "ab2!", "cd3!", "cd4!"}));
}

TEST_F(ApiTest, SlowReaderGetsFewerLargerEventsAndLosesNothing) {
  options.max_backlog_bytes = 32 << 20;
  StartServer();
  RawClient client(port, /*receive_buffer=*/4096);
  client.Send(Request("POST", "/v1/completions", R"({"model":"m","prompt":"a","stream":true})"));
  ASSERT_TRUE(engine->WaitForRequest(1));
  for (int i = 0; i < kPieces; ++i) engine->Emit(1, kPiece);
  engine->Emit(1, "", FinishReason::kStop);
  const std::string all = client.ReadUntil("[DONE]");
  EXPECT_EQ(std::count(all.begin(), all.end(), '~'), int64_t{8000} * kPieces);
}

}  // namespace
}  // namespace quern::server
