#include "runtime/server/responses/response_request.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <string>
#include <variant>

namespace quern::server {
namespace {
using nlohmann::json;

ResponseRequest Good(const std::string& members) {
  auto parsed = ParseResponseRequest(R"({"model":"m",)" + members + "}");
  if (auto* error = std::get_if<ApiError>(&parsed)) {
    ADD_FAILURE() << error->param << ": " << error->message;
    return {};
  }
  return std::get<ResponseRequest>(std::move(parsed));
}
ApiError Bad(const std::string& members) {
  auto parsed = ParseResponseRequest(R"({"model":"m",)" + members + "}");
  return std::holds_alternative<ApiError>(parsed) ? std::get<ApiError>(parsed)
                                                  : ApiError{0, "accepted"};
}
json Repeated(const std::string& members) {
  return json::parse("{" + Good(members).repeated + "}");
}

constexpr char kTool[] =
    R"({"type":"function","name":"f","description":"d","parameters":{"type":"object","properties":)"
    R"({"z":{"type":"string"},"a":{"type":"integer"}}},"strict":true})";

TEST(ResponseRequest, AStringIsTheUsersAndInstructionsStandInFront) {
  EXPECT_EQ(Good(R"("input":"hi")").conversation.messages.dump(),
            R"([{"role":"user","content":"hi"}])");
  EXPECT_EQ(Good(R"("input":"hi","instructions":"be brief")").conversation.messages.dump(),
            R"([{"role":"system","content":"be brief"},{"role":"user","content":"hi"}])");
}

TEST(ResponseRequest, ItemsBecomeTheMessagesOfAChat) {
  const auto request = Good(
      R"("input":[{"role":"developer","content":"s"},)"
      R"({"type":"message","role":"user","content":[{"type":"input_text","text":"a"},)"
      R"({"type":"input_text","text":"b"}]},{"type":"reasoning","id":"r","summary":[],"content":[]},)"
      R"({"type":"message","id":"msg_1","status":"completed","role":"assistant","phase":null,)"
      R"("content":[{"type":"output_text","text":"c","annotations":[],"logprobs":[],"parsed":null}]},)"
      R"({"type":"function_call","id":"fc_1","call_id":"1","name":"f","arguments":"{\"x\":1,\"a\":2}"},)"
      R"({"type":"function_call","call_id":"2","name":"g","arguments":"","status":"completed",)"
      R"("parsed_arguments":{},"caller":{"type":"direct"}},)"
      R"({"type":"function_call_output","call_id":"2","output":"two"},)"
      R"({"type":"function_call_output","call_id":"1","output":[{"type":"input_text","text":"one"}]},)"
      R"({"type":"function_call","call_id":"3","name":"f","arguments":"{}"}])");
  const auto& messages = request.conversation.messages;
  ASSERT_EQ(messages.size(), 6u) << messages;
  EXPECT_EQ(messages[0].dump(), R"({"role":"system","content":"s"})");
  EXPECT_EQ(messages[1].dump(), R"({"role":"user","content":"ab"})");
  EXPECT_EQ(messages[2]["content"], "c");
  EXPECT_EQ(messages[2]["tool_calls"].dump(),
            R"([{"id":"1","type":"function","function":{"name":"f","arguments":{"x":1,"a":2}}},)"
            R"({"id":"2","type":"function","function":{"name":"g","arguments":{}}}])");
  EXPECT_EQ(messages[3].dump(), R"({"role":"tool","tool_call_id":"2","content":"two"})");
  EXPECT_EQ(messages[4].dump(), R"({"role":"tool","tool_call_id":"1","content":"one"})");
  EXPECT_EQ(messages[5]["role"], "assistant");
  EXPECT_EQ(messages[5]["tool_calls"].size(), 1u);
  EXPECT_TRUE(request.conversation.has_calls);
}

TEST(ResponseRequest, ToolsAreFlatAndComeToThePromptInAChatsShape) {
  const auto request =
      Good(fmt::format(R"("input":"a","tools":[{}],"tool_choice":"required")", kTool));
  const auto& tools = request.conversation.tools;
  ASSERT_TRUE(tools);
  EXPECT_EQ(tools->names, std::vector<std::string>{"f"});
  EXPECT_EQ(tools->tools.dump(),
            R"([{"type":"function","function":{"name":"f","description":"d","parameters":)"
            R"({"type":"object","properties":{"z":{"type":"string"},"a":{"type":"integer"}}},)"
            R"("strict":true}}])");
  EXPECT_EQ(tools->schemas[0].find(R"({"type":"object","properties":{"z":)"), 0u);
  EXPECT_EQ(request.params.structured->param, "tools");
  const auto choose = [](const char* choice) {
    return Good(fmt::format(R"("input":"a","tools":[{},{{"type":"function","name":"g"}}],)"
                            R"("tool_choice":{})",
                            kTool, choice))
        .conversation.tools;
  };
  EXPECT_EQ(choose(R"({"type":"function","name":"g"})")->names, std::vector<std::string>{"g"});
  const auto allowed =
      choose(R"({"type":"allowed_tools","mode":"auto","tools":[{"type":"function","name":"f"}]})");
  EXPECT_EQ(allowed->names, std::vector<std::string>{"f"});
  EXPECT_EQ(allowed->choice, ToolUse::Choice::kAuto);
  EXPECT_FALSE(choose(R"("none")"));
}

TEST(ResponseRequest, AFormatIsThatOfTextWithItsSchemaInItself) {
  const auto request =
      Good(R"("input":"a","text":{"format":{"type":"json_schema","name":"n",)"
           R"("strict":true,"schema":{"type":"object","properties":{"z":{},"a":{}}}}})");
  ASSERT_TRUE(request.params.structured);
  EXPECT_EQ(request.params.structured->param, "text.format.schema");
  EXPECT_EQ(request.params.structured->spec.text,
            R"({"type":"object","properties":{"z":{},"a":{}}})");
  EXPECT_FALSE(Good(R"("input":"a","text":{"format":{"type":"text"}})").params.structured);
  EXPECT_TRUE(Good(R"("input":"a","guided_regex":"a*")").params.structured);
  EXPECT_EQ(Bad(R"("input":"a","text":{"format":{"type":"xml"}})").param, "text.format.type");
  EXPECT_EQ(Bad(R"("input":"a","text":{"verbosity":"low"})").param, "text.verbosity");
  EXPECT_EQ(Bad(R"("input":"a","guided_regex":"a","text":{"format":{"type":"json_object"}})").param,
            "guided_regex");
}

TEST(ResponseRequest, TheAnswerRepeatsWhatWasAskedAndWhatHolds) {
  const json plain = Repeated(R"("input":"a","store":true,"service_tier":"priority")");
  EXPECT_EQ(plain.dump(),
            R"({"instructions":null,"max_output_tokens":null,"max_tool_calls":null,"metadata":{},)"
            R"("model":"m","parallel_tool_calls":true,"previous_response_id":null,)"
            R"("prompt_cache_key":null,"reasoning":{"effort":null,"summary":null},)"
            R"("safety_identifier":null,"service_tier":"default","store":false,"temperature":1.0,)"
            R"("text":{"format":{"type":"text"},"verbosity":"medium"},"tool_choice":"auto",)"
            R"("tools":[],"top_logprobs":0,"top_p":1.0,"truncation":"disabled","user":null})");
  const json asked = Repeated(
      R"("input":"a","instructions":"i","max_output_tokens":5,"metadata":{"k":"v"},"temperature":0.5,)"
      R"("include":["message.output_text.logprobs"],"top_logprobs":3,"user":"u","top_p":0.5,)"
      R"("reasoning":{"effort":"none","summary":"auto"},"tools":[{"type":"function","name":"f"}],)"
      R"("tool_choice":"none","parallel_tool_calls":false,"prompt_cache_key":"p")");
  EXPECT_EQ(
      asked["tools"].dump(),
      R"([{"description":null,"name":"f","parameters":null,"strict":null,"type":"function"}])");
  EXPECT_EQ(asked["reasoning"]["effort"], "none");
  EXPECT_EQ(asked["metadata"]["k"], "v");
  EXPECT_EQ(asked["max_output_tokens"], 5);
  EXPECT_EQ(asked["top_logprobs"], 3);
  EXPECT_EQ(asked["tool_choice"], "none");
  EXPECT_EQ(asked["parallel_tool_calls"], false);
}

TEST(ResponseRequest, LogprobsAreIncludedByName) {
  EXPECT_FALSE(Good(R"("input":"a","top_logprobs":0)").params.top_logprobs);
  EXPECT_EQ(Good(R"("input":"a","include":["message.output_text.logprobs"])").params.top_logprobs,
            0);
  EXPECT_FALSE(
      Good(R"("input":"a","include":["reasoning.encrypted_content"])").params.top_logprobs);
  EXPECT_EQ(Bad(R"("input":"a","include":["file_search_call.results"])").param, "include[0]");
  EXPECT_EQ(Bad(R"("input":"a","include":"x")").param, "include");
  const auto with_tools = Bad(
      fmt::format(R"("input":"a","include":["message.output_text.logprobs"],"tools":[{}])", kTool));
  EXPECT_EQ(with_tools.param, "include");
  EXPECT_EQ(with_tools.code, "unsupported_parameter");
}

TEST(ResponseRequest, WhatTheTemplateDecidesHasAnotherPlace) {
  const ApiError effort = Bad(R"("input":"a","reasoning":{"effort":"low"})");
  EXPECT_EQ(effort.param, "reasoning.effort");
  EXPECT_TRUE(effort.message.ends_with(
      "; set what the model's template asks for in 'chat_template_kwargs'"))
      << effort.message;
  EXPECT_EQ(Bad(R"("input":"a","chat_template_kwargs":{"add_generation_prompt":false})").message,
            "'chat_template_kwargs' names the string \"add_generation_prompt\", which a response "
            "always has as true: leave it out");
  EXPECT_EQ(Bad(R"("input":"a","chat_template_kwargs":{"messages":[]})").message,
            "'chat_template_kwargs' names the string \"messages\", which a response has from its "
            "'input': send it there");
  EXPECT_EQ(Bad(R"("input":"a","chat_template_kwargs":{"tools":[]})").message,
            "'chat_template_kwargs' names the string \"tools\", which the request itself has: send "
            "it there");
}

TEST(ResponseRequest, WhatIsWrongIsNamedWithItsPlace) {
  const struct {
    std::string members;
    const char* param;
    const char* code;
  } kCases[] = {
      {R"("stream":true)", "input", "missing_required_parameter"},
      {R"("input":7)", "input", "invalid_type"},
      {R"("input":[])", "input", "invalid_value"},
      {R"("input":[{"type":"reasoning","summary":[]}])", "input", "invalid_value"},
      {R"("input":[7])", "input[0]", "invalid_type"},
      {R"("input":[{"content":"a"}])", "input[0].role", "missing_required_parameter"},
      {R"("input":[{"role":"tool","content":"a"}])", "input[0].role", "invalid_value"},
      {R"("input":[{"role":"user","content":"a","extra":1}])", "input[0].extra",
       "unknown_parameter"},
      {R"("input":[{"role":"user","content":[{"type":"text","text":"a"}]}])",
       "input[0].content[0].type", "unsupported_parameter"},
      {R"("input":[{"type":"item_reference","id":"x"}])", "input[0].type", "unsupported_parameter"},
      {R"("input":[{"type":"function_call","call_id":"1","name":"f","arguments":"[1]"}])",
       "input[0].arguments", "invalid_value"},
      {R"("input":[{"type":"function_call_output","call_id":"1","output":"a"}])",
       "input[0].call_id", "invalid_value"},
      {R"("input":"a","previous_response_id":"r")", "previous_response_id",
       "unsupported_parameter"},
      {R"("input":"a","conversation":{"id":"c"})", "conversation", "unsupported_parameter"},
      {R"("input":"a","background":true)", "background", "unsupported_parameter"},
      {R"("input":"a","prompt":{"id":"p"})", "prompt", "unsupported_parameter"},
      {R"("input":"a","truncation":"auto")", "truncation", "unsupported_parameter"},
      {R"("input":"a","n":2)", "n", "unsupported_parameter"},
      {R"("input":"a","max_tokens":5)", "max_tokens", "unsupported_parameter"},
      {R"("input":"a","max_output_tokens":0)", "max_output_tokens", "invalid_value"},
      {R"("input":"a","stream_options":{"include_obfuscation":true})", "stream_options",
       "invalid_value"},
      {R"("input":"a","metadata":{"a":")" + std::string(513, 'x') + "\"}", R"(metadata["a"])",
       "invalid_value"},
      {R"("input":"a","user":")" + std::string(513, 'x') + "\"", "user", "invalid_value"},
      {R"("input":"a","metadata":{"a":1})", R"(metadata["a"])", "invalid_type"},
      {R"("input":[{"role":"user","content":[{"text":"a"}]}])", "input[0].content[0].type",
       "missing_required_parameter"},
      {R"("input":[{"role":"user","content":"a","id":7}])", "input[0].id", "invalid_type"},
      {R"("input":[{"role":"user","content":"a","phase":[]}])", "input[0].phase", "invalid_type"},
      {R"("input":"a","reasoning":{"effort":"low"})", "reasoning.effort", "unsupported_parameter"},
      {R"("input":"a","tools":[{"type":"web_search"}])", "tools[0].type", "unsupported_parameter"},
      {R"("input":"a","tools":[{"type":"function","function":{"name":"f"}}])", "tools[0].function",
       "unsupported_parameter"},
      {R"("input":"a","tool_choice":{"type":"function","name":"f"})", "tool_choice",
       "invalid_value"},
      {R"("input":"a","instruction":"b")", "instruction", "unknown_parameter"},
  };
  for (const auto& one : kCases) {
    const ApiError error = Bad(one.members);
    EXPECT_EQ(error.status, 400) << one.members;
    EXPECT_EQ(error.param, one.param) << one.members;
    EXPECT_EQ(error.code, one.code) << one.members << ": " << error.message;
  }
}

}  // namespace
}  // namespace quern::server
