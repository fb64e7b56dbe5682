// What is asked of prompts alone: their embeddings and their log-probabilities.
#include "tests/unit/runtime/server/api_fixture.h"

namespace quern::server {
namespace {

GenerationDelta Vector(std::vector<float> values) {
  GenerationDelta delta;
  delta.embedding = std::move(values);
  delta.finish = FinishReason::kLength;
  return delta;
}

TEST_F(ApiTest, EachInputBecomesAVectorInItsPlace) {
  StartServer();
  RawClient client(port);
  client.Send(Request("POST", "/v1/embeddings",
                      R"({"model":"m","input":["a",[5,6]],"priority":2,"cache_salt":"s"})"));
  const auto second = engine->WaitForRequest(2);
  ASSERT_TRUE(second);
  EXPECT_EQ(second->prompt, (std::vector<TokenId>{5, 6}));
  EXPECT_EQ(second->max_tokens, 0);
  EXPECT_EQ(second->pooling, Pooling::kLast);
  EXPECT_EQ(second->priority, 2);
  EXPECT_EQ(second->cache_salt, "s");
  EXPECT_EQ(engine->WaitForRequest(1)->prompt, (std::vector<TokenId>{256, 'a'})) << "with BOS";
  engine->Emit(2, Vector({0, 0, 7}), 0);
  engine->Emit(1, Vector({3, 4, 0}), 0);
  const Reply reply = Split(client.ReadResponse());
  EXPECT_EQ(reply.status, 200);
  EXPECT_EQ(reply.Json(), json::parse(R"({"object":"list","model":"m","data":[
      {"object":"embedding","index":0,"embedding":[0.6,0.8,0]},
      {"object":"embedding","index":1,"embedding":[0,0,1]}],
      "usage":{"prompt_tokens":4,"total_tokens":4}})"));
}

TEST_F(ApiTest, ALongListOfInputsTakesTurnsWithOthers) {
  StartServer();
  json body = {{"model", "m"}};
  body["input"] = std::vector<std::string>(100, "ab");
  RawClient client(port);
  client.Send(Request("POST", "/v1/embeddings", body.dump()));
  ASSERT_TRUE(engine->WaitForRequest(32));
  EXPECT_EQ(engine->num_requests(), 32u) << "not all at once";
  // Here and now there is no room for more: the rest waits for what is there.
  engine->SetCapacity(32);
  for (RequestId id = 1; id <= 16; ++id) engine->Emit(id, Vector({1, 0, 0}), 0);
  engine->SetCapacity(1000);
  for (RequestId id = 17; id <= 100; ++id) {
    ASSERT_TRUE(engine->WaitForRequest(id)) << id;
    engine->Emit(id, Vector({1, 0, 0}), 0);
  }
  const json answer = Split(client.ReadResponse()).Json();
  EXPECT_EQ(answer["data"].size(), 100u);
  EXPECT_EQ(answer["usage"]["total_tokens"], 300);
}

TEST_F(ApiTest, EmbeddingsThatFailAnswerOnceAndCancelTheRest) {
  StartServer();
  RawClient client(port);
  client.Send(Request("POST", "/v1/embeddings", R"({"model":"m","input":["a","b","c"]})"));
  ASSERT_TRUE(engine->WaitForRequest(3));
  GenerationDelta failed;
  failed.finish = FinishReason::kError;
  failed.error = "the device fell off the bus";
  engine->Emit(2, std::move(failed), 0);
  const Reply reply = Split(client.ReadResponse());
  EXPECT_EQ(reply.status, 500);
  EXPECT_EQ(reply.Error("code"), "generation_failed");
  EXPECT_TRUE(engine->WaitForCancel(1));
  EXPECT_TRUE(engine->WaitForCancel(3));
}

TEST_F(ApiTest, EmbeddingsOfAllRequestsAreBoundedInBytes) {
  options.max_embedding_bytes = 4000;
  StartServer();
  json body = {{"model", "m"}};
  body["input"] = std::vector<std::string>(20, "a");
  RawClient client(port);
  client.Send(Request("POST", "/v1/embeddings", body.dump()));
  ASSERT_TRUE(engine->WaitForRequest(20));
  const Reply reply = Ask("POST", "/v1/embeddings", R"({"model":"m","input":"a"})");
  EXPECT_EQ(reply.status, 429);
  EXPECT_EQ(reply.Error("code"), "admission_full");
  for (RequestId id = 1; id <= 20; ++id) engine->Emit(id, Vector({1, 0, 0}), 0);
  EXPECT_EQ(Split(client.ReadResponse()).status, 200);
  RawClient next(port);
  next.Send(Request("POST", "/v1/embeddings", R"({"model":"m","input":"a"})"));
  EXPECT_TRUE(engine->WaitForRequest(21)) << "the place is free again";
}

TEST_F(ApiTest, AListGoesOnWhenItsOnlyPlaceIsFreeAMomentLater) {
  StartServer();
  engine->SetCapacity(1);
  RawClient client(port);
  client.Send(Request("POST", "/v1/embeddings", R"({"model":"m","input":["a","b"]})"));
  ASSERT_TRUE(engine->WaitForRequest(1));
  engine->Emit(1, Vector({1, 0, 0}), 0);  // it finds no room at first
  engine->SetCapacity(2);
  ASSERT_TRUE(engine->WaitForRequest(2));
  engine->Emit(2, Vector({1, 0, 0}), 0);
  EXPECT_EQ(Split(client.ReadResponse()).status, 200);
}

TEST_F(ApiTest, AVectorThatIsNoNumberIsAnErrorNotAnAnswer) {
  StartServer();
  RawClient client(port);
  client.Send(Request("POST", "/v1/embeddings", R"({"model":"m","input":"a"})"));
  ASSERT_TRUE(engine->WaitForRequest(1));
  engine->Emit(1, Vector({1, std::numeric_limits<float>::quiet_NaN(), 0}), 0);
  EXPECT_EQ(Split(client.ReadResponse()).status, 500);
}

TEST_F(ApiTest, AClientThatLeavesTakesItsEmbeddingsWithIt) {
  StartServer();
  {
    RawClient client(port);
    client.Send(Request("POST", "/v1/embeddings", R"({"model":"m","input":["a","b"]})"));
    ASSERT_TRUE(engine->WaitForRequest(2));
  }
  EXPECT_TRUE(engine->WaitForCancel(1));
  EXPECT_TRUE(engine->WaitForCancel(2));
}

TEST_F(ApiTest, EmbeddingsThatCannotBeAreRefusedWithTheReason) {
  StartServer();
  const auto ask = [&](const std::string& members) {
    return Ask("POST", "/v1/embeddings", R"({"model":"m",)" + members + "}");
  };
  EXPECT_NE(ask(R"("input":"a","dimensions":2)").Error("message").find("have 3 numbers"),
            std::string::npos);
  EXPECT_EQ(ask(R"("input":["a",[1,300]])").Error("param"), "input[1][1]");
  json body = {{"model", "m"}, {"input", {"a", std::string(1000, 'b')}}};
  const Reply reply = Ask("POST", "/v1/embeddings", body.dump());
  EXPECT_EQ(reply.Error("code"), "context_length_exceeded");
  EXPECT_EQ(reply.Error("param"), "input[1]");
  EXPECT_EQ(Ask("POST", "/v1/embeddings", R"({"model":"x","input":"a"})").status, 404);
  EXPECT_EQ(Ask("GET", "/v1/embeddings").status, 405);
  engine->SetPooling(std::nullopt);
  EXPECT_EQ(ask(R"("input":"a")").Error("param"), "model");
  engine->SetPooling(Pooling::kLast);
  engine->SetCapacity(0);
  EXPECT_EQ(ask(R"("input":"a")").status, 429);
}

TEST_F(ApiTest, AnEchoWithLogprobsHasThoseOfThePromptFirst) {
  StartServer();
  RawClient client(port);
  client.Send(Request("POST", "/v1/completions",
                      R"({"model":"m","prompt":"ab","echo":true,"logprobs":1,"max_tokens":1})"));
  const auto request = engine->WaitForRequest(1);
  ASSERT_TRUE(request);
  EXPECT_EQ(request->prompt_logprobs, 1);
  GenerationDelta prompt;
  prompt.prompt_logprobs = {{.token = {256, 0}, .predicted = false},
                            {.token = {'a', -1.5f}, .top = {{'x', -0.25f}}},
                            {.token = {'b', -2.5f}, .top = {{'b', -2.5f}}}};
  engine->Emit(1, std::move(prompt), 0);
  GenerationDelta last;
  last.text = "c";
  last.logprobs = {{.token = {'c', -0.5f}, .top = {{'c', -0.5f}}}};
  last.finish = FinishReason::kLength;
  engine->Emit(1, std::move(last), 1);
  const json choice = Split(client.ReadResponse()).Json()["choices"][0];
  EXPECT_EQ(choice["text"], "abc");
  EXPECT_EQ(choice["logprobs"], json::parse(R"({"tokens":["<s>","a","b","c"],
      "token_logprobs":[null,-1.5,-2.5,-0.5],
      "top_logprobs":[null,{"x":-0.25,"a":-1.5},{"b":-2.5},{"c":-0.5}],
      "text_offset":[0,0,1,2]})"));
}

TEST_F(ApiTest, APromptAloneCanBeScored) {
  StartServer();
  RawClient client(port);
  client.Send(Request(
      "POST", "/v1/completions",
      R"({"model":"m","prompt":[97,98],"echo":true,"logprobs":0,"max_tokens":0,"stream":true})"));
  const auto request = engine->WaitForRequest(1);
  ASSERT_TRUE(request);
  EXPECT_EQ(request->max_tokens, 0);
  GenerationDelta prompt;
  prompt.prompt_logprobs = {{.token = {97, 0}, .predicted = false}, {.token = {98, -2.5f}}};
  prompt.finish = FinishReason::kLength;
  engine->Emit(1, std::move(prompt), 0);
  const std::string all = client.ReadUntil("data: [DONE]\n\n");
  EXPECT_NE(all.find(R"("text":"ab")"), std::string::npos);
  EXPECT_NE(all.find(R"("token_logprobs":[null,-2.5])"), std::string::npos);
  EXPECT_NE(all.find(R"("finish_reason":"length")"), std::string::npos);
}

TEST_F(ApiTest, LogprobsOfPromptsCountToWhatAnAnswerMayTake) {
  StartServer();
  json body = {{"model", "m"}, {"max_tokens", 1}, {"echo", true}, {"n", 2}, {"logprobs", 20}};
  body["prompt"] = std::vector<std::vector<int>>(64, std::vector<int>(900, 97));
  EXPECT_EQ(Ask("POST", "/v1/completions", body.dump()).Error("param"), "logprobs");
  body.erase("logprobs");
  RawClient client(port);
  client.Send(Request("POST", "/v1/completions", body.dump()));
  EXPECT_TRUE(engine->WaitForRequest(128));
}

TEST_F(ApiTest, OfEachPromptTheChoicesAndTheLongestAreCountedWhenAllHaveEnded) {
  StartServer();
  RawClient client(port);
  client.Send(Request("POST", "/v1/completions", R"({"model":"m","prompt":["a","b"],"n":2})"));
  ASSERT_TRUE(engine->WaitForRequest(4));
  const auto emit = [&](RequestId id, int32_t tokens) {
    GenerationDelta delta;
    delta.finish = FinishReason::kStop;
    engine->Emit(id, std::move(delta), tokens);
  };
  emit(1, 7);
  emit(3, 2);
  emit(4, 3);
  EXPECT_TRUE(MetricIs(R"(quern_request_params_n_sum{model="m"})", 2)) << "the second prompt";
  EXPECT_TRUE(MetricIs(R"(quern_request_max_generation_tokens_sum{model="m"})", 3));
  emit(2, 5);
  EXPECT_EQ(Split(client.ReadResponse()).status, 200);
  EXPECT_TRUE(MetricIs(R"(quern_request_params_n_sum{model="m"})", 4));
  EXPECT_TRUE(MetricIs(R"(quern_request_params_n_count{model="m"})", 2));
  EXPECT_TRUE(MetricIs(R"(quern_request_max_generation_tokens_sum{model="m"})", 3 + 7));
  EXPECT_TRUE(MetricIs(R"(quern_request_max_generation_tokens_count{model="m"})", 2));
}

}  // namespace
}  // namespace quern::server
