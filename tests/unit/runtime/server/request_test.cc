#include "runtime/server/request.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <string>

#include "runtime/server/fields.h"

namespace quern::server {
namespace {

// The error that a completion with these further members gets.
ApiError CompletionError(const std::string& members) {
  auto parsed = ParseCompletionRequest(R"({"model":"m","prompt":"p")" + members + "}");
  return std::holds_alternative<ApiError>(parsed) ? std::get<ApiError>(parsed)
                                                  : ApiError{0, "accepted"};
}
CompletionRequest Completion(const std::string& members) {
  auto parsed = ParseCompletionRequest(R"({"model":"m")" + members + "}");
  EXPECT_TRUE(std::holds_alternative<CompletionRequest>(parsed))
      << std::get<ApiError>(parsed).message;
  return std::get<CompletionRequest>(std::move(parsed));
}

TEST(CompletionRequest, DefaultsAreOpenAis) {
  const auto request = Completion(R"(,"prompt":"hi")");
  EXPECT_EQ(std::get<std::string>(request.prompts.at(0)), "hi");
  EXPECT_EQ(request.params.max_tokens, 16);
  EXPECT_EQ(request.params.sampling.temperature, 1.0f);
  EXPECT_EQ(request.params.sampling.top_p, 1.0f);
  EXPECT_EQ(request.params.sampling.top_k, 0);
  EXPECT_FALSE(request.params.sampling.seed.has_value());
  EXPECT_FALSE(request.params.stream);
  EXPECT_TRUE(request.add_special_tokens);
}

TEST(CompletionRequest, ReadsEverySamplingParameter) {
  const auto request = Completion(
      R"(,"prompt":"p","temperature":0.5,"top_p":0.9,"top_k":40,"min_p":0.05,"seed":-7,)"
      R"("max_tokens":5.0,"stop":["a","b"],"ignore_eos":true,"stream":true,"cache_salt":"mine",)"
      R"("stream_options":{"include_usage":true})");
  EXPECT_EQ(request.params.sampling.temperature, 0.5f);
  EXPECT_EQ(request.params.sampling.top_p, 0.9f);
  EXPECT_EQ(request.params.sampling.top_k, 40);
  EXPECT_EQ(request.params.sampling.min_p, 0.05f);
  EXPECT_EQ(request.params.sampling.seed, static_cast<uint64_t>(-7));
  EXPECT_EQ(request.params.max_tokens, 5);
  EXPECT_EQ(request.params.stop, (std::vector<std::string>{"a", "b"}));
  EXPECT_TRUE(request.params.ignore_eos && request.params.stream && request.params.include_usage);
  EXPECT_EQ(request.params.cache_salt, "mine");
}

TEST(CompletionRequest, NumbersThatNoFloatHoldStayWithinTheirBounds) {
  const auto request =
      Completion(R"(,"prompt":"p","top_p":5e-324,"typical_p":1e-300,"repetition_penalty":5e-324,)"
                 R"("min_p":0.99999999999)");
  EXPECT_GT(request.params.sampling.top_p, 0);
  EXPECT_TRUE(ValidateSamplingParams(request.params.sampling).ok());
}

TEST(CompletionRequest, ReadsPenaltiesBiasesChoicesAndLogprobs) {
  const auto request = Completion(
      R"(,"prompt":"p","frequency_penalty":-0.5,"presence_penalty":2,"repetition_penalty":1.25,)"
      R"("typical_p":0.5,"logit_bias":{"7":-100,"300":2.5},"min_tokens":3,"n":16,"best_of":16,)"
      R"("logprobs":0)");
  const SamplingParams& sampling = request.params.sampling;
  EXPECT_EQ(sampling.frequency_penalty, -0.5f);
  EXPECT_EQ(sampling.presence_penalty, 2.0f);
  EXPECT_EQ(sampling.repetition_penalty, 1.25f);
  EXPECT_EQ(sampling.typical_p, 0.5f);
  ASSERT_EQ(sampling.logit_bias.size(), 2u);
  for (const TokenBias& entry : sampling.logit_bias) {
    EXPECT_EQ(entry.bias, entry.token == 7 ? -100.0f : 2.5f) << entry.token;
  }
  EXPECT_EQ(request.params.min_tokens, 3);
  EXPECT_EQ(request.params.n, 16);
  EXPECT_EQ(request.params.top_logprobs, 0);
  EXPECT_FALSE(Completion(R"(,"prompt":"p","logprobs":false)").params.top_logprobs.has_value());
  EXPECT_TRUE(Completion(R"(,"prompt":"p","echo":true)").echo);
}

TEST(CompletionRequest, NullMeansAbsent) {
  const auto request = Completion(
      R"(,"prompt":"p","temperature":null,"stop":null,"logprobs":null,"suffix":null,"n":null)");
  EXPECT_EQ(request.params.sampling.temperature, 1.0f);
  EXPECT_TRUE(request.params.stop.empty());
}

TEST(CompletionRequest, PromptMayBeStringsOrTokens) {
  EXPECT_EQ(Completion(R"(,"prompt":["a","b"])").prompts.size(), 2u);
  const auto tokens = Completion(R"(,"prompt":[1,2,3])");
  EXPECT_EQ(std::get<1>(tokens.prompts.at(0)), (std::vector<TokenId>{1, 2, 3}));
  EXPECT_EQ(Completion(R"(,"prompt":[[1],[2,3]])").prompts.size(), 2u);
}

TEST(CompletionRequest, WrongTypesNameTheParameterAndWhatWasSent) {
  struct Case {
    std::string members;
    const char* param;
    const char* says;
  };
  const Case cases[] = {
      {R"(,"temperature":"hot")", "temperature", "a number from 0 to 2, not the string \"hot\""},
      {R"(,"temperature":2.1)", "temperature", "not 2.1"},
      {R"(,"temperature":true)", "temperature", "not the boolean true"},
      {R"(,"top_p":0)", "top_p", "greater than 0 and at most 1, not 0; for the likeliest"},
      {R"(,"top_p":1.5)", "top_p", "greater than 0 and at most 1, not 1.5"},
      {R"(,"top_k":-2)", "top_k", "at least -1"},
      {R"(,"top_k":1.5)", "top_k", "whole number"},
      {R"(,"min_p":1)", "min_p", "of at least 0 and less than 1, not 1"},
      {R"(,"frequency_penalty":2.5)", "frequency_penalty", "from -2 to 2"},
      {R"(,"presence_penalty":"x")", "presence_penalty", "from -2 to 2"},
      {R"(,"repetition_penalty":0)", "repetition_penalty", "greater than 0 and at most 10, not 0"},
      {R"(,"typical_p":0)", "typical_p", "greater than 0 and at most 1, not 0"},
      {R"(,"logit_bias":[])", "logit_bias", "an object of token ids and numbers"},
      {R"(,"logit_bias":{"cat":1})", R"(logit_bias["cat"])", "named by a token id"},
      {R"(,"logit_bias":{"07":1})", R"(logit_bias["07"])", "named by a token id"},
      {R"(,"logit_bias":{"-1":1})", R"(logit_bias["-1"])", "named by a token id"},
      {R"(,"logit_bias":{"99999999999":1})", R"(logit_bias["99999999999"])", "named by a token id"},
      {R"(,"logit_bias":{"7":101})", R"(logit_bias["7"])", "from -100 to 100"},
      {R"(,"logit_bias":{"7":null})", R"(logit_bias["7"])", "from -100 to 100"},
      {R"(,"min_tokens":-1)", "min_tokens", "at least 0"},
      {R"(,"n":0)", "n", "from 1 to 16, not 0"},
      {R"(,"n":17)", "n", "from 1 to 16"},
      {R"(,"n":2,"best_of":1)", "best_of", "must be equal to 'n'; leave it out or send 2"},
      {R"(,"best_of":"two")", "best_of", "not the string"},
      {R"(,"logprobs":21)", "logprobs", "from 0 to 20, not 21"},
      {R"(,"logprobs":true)", "logprobs", "from 0 to 20"},
      {R"(,"seed":"x")", "seed", "whole number"},
      {R"(,"seed":18446744073709551615)", "seed", "whole number"},
      {R"(,"seed":1e300)", "seed", "whole number"},
      {R"(,"max_tokens":0)", "max_tokens", "at least 1, not 0"},
      {R"(,"max_tokens":-1)", "max_tokens", "at least 1, not -1"},
      {R"(,"max_tokens":1e12)", "max_tokens", "from 1 to 2147483647"},
      {R"(,"max_tokens":[])", "max_tokens", "not an array"},
      {R"(,"stream":"yes")", "stream", "true or false"},
      {R"(,"stream_options":{"include_usage":true})", "stream_options", "'stream': true"},
      {R"(,"cache_salt":")" + std::string(257, 'x') + "\"", "cache_salt",
       "from 1 to 256 characters"},
      {R"(,"stream":true,"stream_options":{"include_usage":1})", "stream_options.include_usage",
       "true or false"},
      {R"(,"priority":-1)", "priority", "a whole number from 0"},
      {R"(,"priority":1.5)", "priority", "a whole number from 0"},
      {R"(,"cache_salt":"")", "cache_salt", "from 1 to 256 characters"},
      {R"(,"cache_salt":1)", "cache_salt", "a string"},
      {R"(,"stop":1)", "stop", "a string or an array of strings"},
      {R"(,"stop":["a",2])", "stop[1]", "a string"},
      {R"(,"stop":"")", "stop", "from 1 to 1024 characters"},
      {R"(,"stop":["1","2","3","4","5","6","7","8","9","10","11","12","13","14","15","16","17"])",
       "stop", "at most 16"},
  };
  for (const Case& c : cases) {
    const ApiError error = CompletionError(c.members);
    EXPECT_EQ(error.status, 400) << c.members;
    EXPECT_EQ(error.param, c.param) << c.members;
    EXPECT_NE(error.message.find(c.says), std::string::npos) << error.message;
  }
}

TEST(CompletionRequest, ModelAndPromptAreRequired) {
  auto parsed = ParseCompletionRequest(R"({"prompt":"p"})");
  EXPECT_EQ(std::get<ApiError>(parsed).param, "model");
  EXPECT_EQ(std::get<ApiError>(parsed).code, "missing_required_parameter");
  parsed = ParseCompletionRequest(R"({"model":"m"})");
  EXPECT_EQ(std::get<ApiError>(parsed).param, "prompt");
  for (const char* prompt :
       {"[]", "[[]]", "7", "[1,-1]", "[1,\"a\"]", "[1.5]", "[\"a\",1]", "{}"}) {
    parsed = ParseCompletionRequest(std::string(R"({"model":"m","prompt":)") + prompt + "}");
    ASSERT_TRUE(std::holds_alternative<ApiError>(parsed)) << prompt;
    EXPECT_EQ(std::get<ApiError>(parsed).param.rfind("prompt", 0), 0u) << prompt;
  }
}

TEST(CompletionRequest, TokenIdsMayBeWrittenAsWholeNumbersOfAnyForm) {
  const auto request = Completion(R"(,"prompt":[7,8.0,1e3])");
  EXPECT_EQ(std::get<std::vector<TokenId>>(request.prompts.at(0)),
            (std::vector<TokenId>{7, 8, 1000}));
}

TEST(CompletionRequest, WhatWouldChangeTheAnswerIsRefusedNotIgnored) {
  for (const char* member : {R"("best_of":3)", R"("suffix":"x")", R"("length_penalty":1.1)"}) {
    const ApiError error = CompletionError(std::string(",") + member);
    EXPECT_EQ(error.code, "unsupported_parameter") << member << ": " << error.message;
    const std::string name = std::string(member).substr(1, std::string(member).find('"', 1) - 1);
    EXPECT_EQ(error.param, name);
  }
}

TEST(CompletionRequest, NoTokensMayBeAskedForWhereThePromptIsEchoed) {
  EXPECT_EQ(
      Completion(R"(,"prompt":"p","echo":true,"logprobs":1,"max_tokens":0)").params.max_tokens, 0);
  EXPECT_EQ(CompletionError(R"(,"max_tokens":0)").param, "max_tokens");
}

TEST(CompletionRequest, PromptsTimesNIsBounded) {
  std::string prompts = R"("a")";
  for (int i = 1; i < 9; ++i) prompts += R"(,"a")";
  auto parsed = ParseCompletionRequest(R"({"model":"m","n":15,"prompt":[)" + prompts + "]}");
  const ApiError error = std::get<ApiError>(parsed);
  EXPECT_EQ(error.param, "n");
  EXPECT_NE(error.message.find("135 choices; at most 128"), std::string::npos) << error.message;
}

TEST(CompletionRequest, LengthsAreCountedInCharactersNotBytes) {
  const auto of = [](size_t count) {
    std::string text;
    for (size_t i = 0; i < count; ++i) text += "\U0001F600";
    return "\"" + text + "\"";
  };
  EXPECT_EQ(Completion(R"(,"prompt":"p","stop":)" + of(1024)).params.stop[0].size(), 4096u);
  EXPECT_EQ(CompletionError(R"(,"stop":)" + of(1025)).param, "stop");
  EXPECT_EQ(CompletionError(R"(,"stop":["a",)" + of(1025) + "]").param, "stop[1]");
  EXPECT_EQ(Completion(R"(,"prompt":"p","cache_salt":)" + of(256)).params.cache_salt.size(), 1024u);
  EXPECT_EQ(CompletionError(R"(,"cache_salt":)" + of(257)).param, "cache_salt");
}

TEST(CompletionRequest, ALogitBiasOfTooManyTokensIsRefused) {
  std::string entries = R"("0":1)";
  for (int i = 1; i <= 1024; ++i) entries += fmt::format(R"(,"{}":1)", i);
  EXPECT_EQ(CompletionError(R"(,"logit_bias":{)" + entries + "}").param, "logit_bias");
}

TEST(CompletionRequest, NeutralValuesAndHarmlessParametersAreAccepted) {
  const ApiError error = CompletionError(
      R"(,"n":1,"best_of":1,"echo":false,"frequency_penalty":0,"presence_penalty":0.0,)"
      R"("logit_bias":{},"response_format":{"type":"text"},"user":"u","metadata":{"a":"b"},)"
      R"("store":true,"service_tier":"auto")");
  EXPECT_EQ(error.message, "accepted");
}

TEST(CompletionRequest, UnknownParameterIsRefusedWithTheLikeliestName) {
  const ApiError error = CompletionError(R"(,"max_token":5)");
  EXPECT_EQ(error.code, "unknown_parameter");
  EXPECT_NE(error.message.find("did you mean 'max_tokens'"), std::string::npos) << error.message;
  struct Case {
    const char* sent;
    const char* meant;
  };
  for (const Case& c :
       {Case{"topk", "top_k"}, Case{"topK", "top_k"}, Case{"topp", "top_p"},
        Case{"maxTokens", "max_tokens"}, Case{"stops", "stop"}, Case{"top_P", "top_p"},
        // What others call it.
        Case{"max_new_tokens", "max_tokens"}, Case{"maxNewTokens", "max_tokens"},
        Case{"max_completion_tokens", "max_tokens"}, Case{"n_predict", "max_tokens"},
        Case{"stop_sequences", "stop"}, Case{"stopSequences", "stop"},
        Case{"repeat_penalty", "repetition_penalty"}, Case{"typical", "typical_p"},
        Case{"num_return_sequences", "n"}, Case{"top_logprobs", "logprobs"},
        Case{"grammar", "structured_outputs"}}) {
    const std::string message = CompletionError(fmt::format(R"(,"{}":5)", c.sent)).message;
    EXPECT_NE(message.find(fmt::format("did you mean '{}'", c.meant)), std::string::npos)
        << message;
  }
  for (const char* name : {"k", "m", "xy", "abc", "something_else", "sufix"}) {
    const std::string message = CompletionError(fmt::format(R"(,"{}":5)", name)).message;
    EXPECT_EQ(message.find("did you mean"), std::string::npos) << message;
  }
}

TEST(RequestBody, BadJsonIsLocated) {
  auto parsed = ParseCompletionRequest("{\"model\": \"m\",\n  \"prompt\": tru}");
  const ApiError error = std::get<ApiError>(parsed);
  EXPECT_EQ(error.code, "invalid_json");
  EXPECT_NE(error.message.find("line 2, column 16"), std::string::npos) << error.message;
  EXPECT_NE(std::get<ApiError>(ParseCompletionRequest("")).message.find("no body"),
            std::string::npos);
  EXPECT_NE(std::get<ApiError>(ParseCompletionRequest("[1]")).message.find("an array"),
            std::string::npos);
}

TEST(RequestBody, InvalidUtf8IsLocated) {
  auto parsed = ParseCompletionRequest("{\"prompt\":\"a\xff\"}");
  const ApiError error = std::get<ApiError>(parsed);
  EXPECT_EQ(error.code, "invalid_json");
  EXPECT_NE(error.message.find("UTF-8"), std::string::npos) << error.message;
  EXPECT_NE(error.message.find("byte 12"), std::string::npos) << error.message;
}

TEST(RequestBody, DeepNestingIsRefusedWithoutRecursion) {
  const std::string deep(2'000'000, '[');
  const ApiError error = std::get<ApiError>(ParseCompletionRequest("{\"prompt\":" + deep));
  EXPECT_NE(error.message.find("64 levels"), std::string::npos) << error.message;
  // Brackets in strings do not nest.
  EXPECT_EQ(CompletionError(R"(,"user":")" + std::string(1000, '[') + R"(")").message, "accepted");
}

TEST(RequestBody, BodyOfManyTinyPartsIsRefusedBeforeItTakesMemory) {
  const auto repeated = [](const std::string& part, size_t times) {
    std::string all;
    while (times-- > 0) all += part;
    return all;
  };
  for (const char* part : {"{},", "[],", "\"\",", "\"a\\\"b\","}) {
    const ApiError error = std::get<ApiError>(
        ParseCompletionRequest("{\"x\":[" + repeated(part, kMaxJsonParts) + "0]}"));
    EXPECT_NE(error.message.find("at most 100000"), std::string::npos) << error.message;
  }
  // Token ids are not parts, and a conversation may be long.
  EXPECT_TRUE(std::holds_alternative<CompletionRequest>(
      ParseCompletionRequest(R"({"model":"m","prompt":[)" + repeated("7,", 500'000) + "7]}")));
  EXPECT_TRUE(std::holds_alternative<ChatRequest>(ParseChatRequest(
      R"({"model":"m","messages":[)" + repeated(R"({"role":"user","content":"hi"},)", 15'000) +
      R"({"role":"user","content":"hi"}]})")));
}

TEST(RequestBody, LongWrongValuesAreNotQuoted) {
  const ApiError error = CompletionError(R"(,"temperature":")" + std::string(100'000, 'x') + "\"");
  EXPECT_LT(error.message.size(), 200u);
}

TEST(StructuredOutput, IsReadFromEachOfItsParametersInTheSchemasOwnOrder) {
  struct Case {
    const char* member;
    ConstraintSpec::Kind kind;
    const char* text;
    const char* param;
  };
  using Kind = ConstraintSpec::Kind;
  for (const Case& c : {
           Case{R"("response_format":{"type":"json_object"})", Kind::kJsonObject, "",
                "response_format"},
           Case{R"("response_format": {"json_schema" : {"schema":{"z":1, "a":"}\""}, "name":"n"},)"
                R"( "type":"json_schema"})",
                Kind::kJsonSchema, R"({"z":1, "a":"}\""})", "response_format.json_schema.schema"},
           Case{R"("guided_json":{"b":[{}],"a":2})", Kind::kJsonSchema, R"({"b":[{}],"a":2})",
                "guided_json"},
           Case{R"("guided_json":"{\"b\":1}")", Kind::kJsonSchema, R"({"b":1})", "guided_json"},
           Case{R"("structured_outputs":{"regex":"a+"})", Kind::kRegex, "a+",
                "structured_outputs.regex"},
           Case{R"("guided_choice":["a.","b"])", Kind::kRegex, R"(a\.|b)", "guided_choice"},
           Case{R"("guided_grammar":"start: \"a\"")", Kind::kGrammar, "start: \"a\"",
                "guided_grammar"},
       }) {
    const auto parsed = ParseCompletionRequest(std::string(R"({"model":"m","prompt":"p",)") +
                                               c.member + R"(,"stop":["}"]})");
    ASSERT_TRUE(std::holds_alternative<CompletionRequest>(parsed))
        << c.member << std::get<ApiError>(parsed).message;
    const auto& wanted = std::get<CompletionRequest>(parsed).params.structured;
    ASSERT_TRUE(wanted.has_value()) << c.member;
    EXPECT_EQ(wanted->spec.kind, c.kind) << c.member;
    EXPECT_EQ(wanted->spec.text, c.text) << c.member;
    EXPECT_EQ(wanted->param, c.param);
  }
}

TEST(StructuredOutput, NamesThePathOfWhatIsWrong) {
  struct Case {
    const char* member;
    const char* param;
  };
  for (const Case& c : {
           Case{R"("response_format":{"type":"xml"})", "response_format.type"},
           Case{R"("response_format":{"type":"json_schema"})", "response_format.json_schema"},
           Case{R"("response_format":{"type":"json_schema","json_schema":{"name":"n"}})",
                "response_format.json_schema.schema"},
           Case{R"("guided_regex":7)", "guided_regex"},
           Case{R"("guided_choice":["a",1])", "guided_choice[1]"},
           Case{R"("structured_outputs":{"choice":["a","b",{}]})", "structured_outputs.choice[2]"},
           Case{R"("structured_outputs":{"choice":["a",""]})", "structured_outputs.choice[1]"},
           Case{R"("response_format":{})", "response_format.type"},
           Case{R"("response_format":{"type":7})", "response_format.type"},
           Case{R"("guided_choice":[])", "guided_choice"},
           Case{R"("guided_regex":"a","structured_outputs":{"json":{}})", "guided_regex"},
           Case{R"("structured_outputs":{"jsn":{}})", "structured_outputs.jsn"},
           Case{R"("guided_grammar":"root ::= a")", "guided_grammar"},
       }) {
    const ApiError error = CompletionError(std::string(",") + c.member);
    EXPECT_EQ(error.status, 400) << c.member;
    EXPECT_EQ(error.param, c.param) << error.message;
  }
}

}  // namespace
}  // namespace quern::server
