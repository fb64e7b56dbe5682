// What people send by mistake, and what they are told.

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <string>

#include "runtime/server/request.h"
#include "runtime/server/responses/response_request.h"

namespace quern::server {
namespace {

template <typename T>
ApiError AnyError(const ApiResult<T>& parsed) {
  const auto* error = std::get_if<ApiError>(&parsed);
  return error ? *error : ApiError{0, "accepted"};
}
// The error that a request of each kind gets with these further members.
ApiError CompletionMistake(const std::string& members) {
  return AnyError(ParseCompletionRequest(R"({"model":"m","prompt":"p")" + members + "}"));
}
ApiError ChatMistake(const std::string& members) {
  return AnyError(ParseChatRequest(R"({"model":"m","messages":[{"role":"user","content":"a"}])" +
                                   members + "}"));
}
ApiError ResponseMistake(const std::string& members) {
  return AnyError(ParseResponseRequest(R"({"model":"m","input":"a")" + members + "}"));
}

TEST(ClientMistakes, NumbersThatAreNotFiniteAreCalledThatAndNamed) {
  struct Case {
    const char* members;
    const char* param;
    const char* says;
  };
  for (const Case& c : {
           Case{R"(,"temperature":1e999)", "temperature", "a finite number, not 1e999"},
           Case{R"(,"stop":[{"x y":[0,-1e400]}])", R"(stop[0]["x y"][1])", "not -1e400"},
           Case{R"(,"logit_bias":{"5":0,"7":1e309})", R"(logit_bias["7"])", "not 1e309"},
           Case{R"(,"a":{"b":[],"c":{"d":1e999}})", "a.c.d", "a finite number"},
       }) {
    const ApiError error = CompletionMistake(c.members);
    EXPECT_EQ(error.code, "invalid_value") << c.members;
    EXPECT_EQ(error.param, c.param) << error.message;
    EXPECT_NE(error.message.find(c.says), std::string::npos) << error.message;
  }
  const ApiError huge = CompletionMistake(R"(,"top_p":)" + std::string(100'000, '9'));
  EXPECT_EQ(huge.param, "top_p");
  EXPECT_NE(huge.message.find("one of 100000 digits"), std::string::npos) << huge.message;
  for (const char* word : {"NaN", "Infinity", "-Infinity"}) {
    const ApiError error = CompletionMistake(fmt::format(R"(,"temperature":{})", word));
    EXPECT_EQ(error.code, "invalid_json") << word;
    EXPECT_NE(error.message.find("line 1, column"), std::string::npos) << error.message;
    EXPECT_NE(error.message.find("is not a finite number"), std::string::npos) << error.message;
  }
}

TEST(ClientMistakes, WhatChangesNothingMustHaveItsTypeAllTheSame) {
  struct Case {
    const char* members;
    const char* param;
    const char* says;
  };
  for (const Case& c : {
           Case{R"(,"user":5)", "user", "a string, not the number 5"},
           Case{R"(,"metadata":"x")", "metadata", "an object of strings, not the string"},
           Case{R"(,"metadata":{"a":"b","c":1})", R"(metadata["c"])", "a string, not the number 1"},
           Case{R"(,"store":"yes")", "store", "true or false"},
           Case{R"(,"service_tier":1)", "service_tier", "a string"},
           Case{R"(,"safety_identifier":[])", "safety_identifier", "a string"},
           Case{R"(,"prompt_cache_key":true)", "prompt_cache_key", "a string"},
           Case{R"(,"prompt_cache_retention":24)", "prompt_cache_retention", "a string"},
           Case{R"(,"request_id":{})", "request_id", "a string"},
           Case{R"(,"prediction":"text")", "prediction", "an object"},
       }) {
    const ApiError error = CompletionMistake(c.members);
    EXPECT_EQ(error.code, "invalid_type") << c.members;
    EXPECT_EQ(error.param, c.param) << error.message;
    EXPECT_NE(error.message.find(c.says), std::string::npos) << error.message;
  }
  EXPECT_EQ(
      CompletionMistake(R"(,"user":null,"metadata":null,"store":null,"prediction":null)").message,
      "accepted");
}

TEST(ClientMistakes, WhatAMessageHasBesideItsTextMustHaveItsType) {
  struct Case {
    const char* message;
    const char* param;
  };
  for (const Case& c : {
           Case{R"({"role":"user","content":"a","name":5})", "messages[0].name"},
           Case{R"({"role":"assistant","content":"a","refusal":true})", "messages[0].refusal"},
           Case{R"({"role":"assistant","content":"a","annotations":{}})",
                "messages[0].annotations"},
           Case{R"({"role":"user","content":[{"type":"text","text":"a"},{"text":"b"}]})",
                "messages[0].content[1].type"},
           Case{R"({"role":"user","content":[{"type":5}]})", "messages[0].content[0].type"},
           Case{R"({"role":"assistant","tool_calls":[{"type":"function","index":"0","id":"1",)"
                R"("function":{"name":"f","arguments":"{}"}}]})",
                "messages[0].tool_calls[0].index"},
       }) {
    const ApiError error =
        AnyError(ParseChatRequest(fmt::format(R"({{"model":"m","messages":[{}]}})", c.message)));
    EXPECT_EQ(error.param, c.param) << error.message;
  }
}

TEST(ClientMistakes, BestOfMustBeEqualToNAndSaysWhy) {
  const ApiError error = CompletionMistake(R"(,"best_of":3)");
  EXPECT_EQ(error.code, "unsupported_parameter");
  EXPECT_NE(error.message.find("'best_of' is 3 and 'n' is 1"), std::string::npos) << error.message;
  EXPECT_EQ(CompletionMistake(R"(,"best_of":2,"n":2)").message, "accepted");
}

TEST(ClientMistakes, LogprobsOfTheOtherEndpointSaysWhatToSend) {
  const ApiError error = ChatMistake(R"(,"logprobs":5)");
  EXPECT_NE(error.message.find("'top_logprobs'"), std::string::npos) << error.message;
  EXPECT_NE(ChatMistake(R"(,"top_logprobs":3)").message.find("'top_logprobs' is 3, which"),
            std::string::npos);
}

TEST(ClientMistakes, WhatBelongsToAnotherEndpointNamesThat) {
  const auto says = [](const ApiError& error, const char* what) {
    EXPECT_EQ(error.code, "missing_required_parameter");
    EXPECT_NE(error.message.find(what), std::string::npos) << error.message;
  };
  says(AnyError(ParseCompletionRequest(R"({"model":"m","messages":[]})")), "/v1/chat/completions");
  says(AnyError(ParseChatRequest(R"({"model":"m","prompt":"a"})")), "/v1/completions");
  says(AnyError(ParseChatRequest(R"({"model":"m","input":"a"})")), "/v1/responses");
}

TEST(ClientMistakes, NamesAreOnlySuggestedWhereTheyCanBeSent) {
  const auto says = [](const ApiError& error, const char* what) {
    EXPECT_NE(error.message.find(what), std::string::npos) << error.message;
  };
  // There it is called differently, and is refused under the name that is nearer.
  says(ResponseMistake(R"(,"max_token":5)"), "did you mean 'max_output_tokens'?");
  EXPECT_EQ(ResponseMistake(R"(,"respons_format":{})").message.find("did you"), std::string::npos);
  says(ResponseMistake(R"(,"max_new_tokens":5)"), "did you mean 'max_output_tokens'?");
  says(ChatMistake(R"(,"max_new_tokens":5)"), "did you mean 'max_tokens'?");
  says(ChatMistake(R"(,"n_probs":5)"), "did you mean 'top_logprobs'?");
  says(ChatMistake(R"(,"stream_options":{"includeUsage":true},"stream":true)"),
       "did you mean 'stream_options.include_usage'?");
}

}  // namespace
}  // namespace quern::server
