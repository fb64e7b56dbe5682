#include <fmt/format.h>
#include <gtest/gtest.h>

#include <string>

#include "runtime/server/request.h"

namespace quern::server {
namespace {

// The error that this body gets.
ApiError ChatError(const std::string& body) {
  auto parsed = ParseChatRequest(body);
  return std::holds_alternative<ApiError>(parsed) ? std::get<ApiError>(parsed)
                                                  : ApiError{0, "accepted"};
}

TEST(ChatRequest, MessagesAreFlattened) {
  auto parsed = ParseChatRequest(
      R"({"model":"m","messages":[{"role":"developer","content":"be brief"},)"
      R"({"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]},)"
      R"({"role":"assistant","content":"c","refusal":null,"tool_calls":null}]})");
  ASSERT_TRUE(std::holds_alternative<ChatRequest>(parsed)) << std::get<ApiError>(parsed).message;
  const auto& request = std::get<ChatRequest>(parsed);
  EXPECT_EQ(request.conversation.messages.dump(),
            R"([{"role":"system","content":"be brief"},{"role":"user","content":"ab"},)"
            R"({"role":"assistant","content":"c"}])");
  EXPECT_FALSE(request.params.max_tokens.has_value());
}

TEST(ChatRequest, MaxCompletionTokensIsTheNewerName) {
  auto parsed = ParseChatRequest(
      R"({"model":"m","messages":[{"role":"user","content":"a"}],"max_completion_tokens":7})");
  EXPECT_EQ(std::get<ChatRequest>(parsed).params.max_tokens, 7);
  EXPECT_EQ(ChatError(R"({"model":"m","messages":[{"role":"user","content":"a"}],)"
                      R"("max_completion_tokens":7,"max_tokens":8})")
                .param,
            "max_tokens");
}

TEST(ChatRequest, BadMessagesAreNamedByTheirPath) {
  struct Case {
    const char* messages;
    const char* param;
  };
  const Case cases[] = {
      {"[]", "messages"},
      {"\"hi\"", "messages"},
      {"[1]", "messages[0]"},
      {R"([{"content":"a"}])", "messages[0].role"},
      {R"([{"role":"user"}])", "messages[0].content"},
      {R"([{"role":"user","content":"a"},{"role":"robot","content":"b"}])", "messages[1].role"},
      {R"([{"role":"user","content":"a"},{"role":"tool","content":"b"}])",
       "messages[1].tool_call_id"},
      {R"([{"role":"user","content":[{"type":"image_url","image_url":{"url":"x"}}]}])",
       "messages[0].content[0].type"},
      {R"([{"role":"user","content":[{"type":"text"}]}])", "messages[0].content[0].text"},
      {R"([{"role":"assistant","content":"a","tool_calls":[{"id":"1"}]}])",
       "messages[0].tool_calls[0].type"},
      {R"([{"role":"user","content":5}])", "messages[0].content"},
      {R"([{"role":"user","content":"a","contents":"b"}])", "messages[0].contents"},
  };
  for (const Case& c : cases) {
    const ApiError error = ChatError(std::string(R"({"model":"m","messages":)") + c.messages + "}");
    EXPECT_EQ(error.status, 400) << c.messages;
    EXPECT_EQ(error.param, c.param) << error.message;
  }
}

TEST(ChatRequest, OtherModesAreRefused) {
  for (const char* member : {R"("functions":[{"name":"f"}])", R"("modalities":["text","audio"])",
                             R"("reasoning_effort":"high")", R"("echo":true)"}) {
    const ApiError error = ChatError(
        std::string(R"({"model":"m","messages":[{"role":"user","content":"a"}],)") + member + "}");
    EXPECT_EQ(error.code, "unsupported_parameter") << member << ": " << error.message;
  }
}

TEST(ChatRequest, WhatTheTemplateDecidesHasAnotherPlace) {
  const auto error = [](const char* member) {
    return ChatError(std::string(R"({"model":"m","messages":[{"role":"user","content":"a"}],)") +
                     member + "}");
  };
  const ApiError effort = error(R"("reasoning_effort":"high")");
  EXPECT_EQ(effort.param, "reasoning_effort");
  EXPECT_TRUE(effort.message.ends_with(
      "; set what the model's template asks for in 'chat_template_kwargs'"))
      << effort.message;
  const ApiError chat_template = error(R"("chat_template":"{{ messages }}")");
  EXPECT_EQ(chat_template.param, "chat_template");
  EXPECT_TRUE(chat_template.message.ends_with("which its option --chat-template sets"))
      << chat_template.message;
}

TEST(ChatRequest, TopLogprobsNeedLogprobs) {
  const auto parse = [](const std::string& members) {
    return ParseChatRequest(R"({"model":"m","messages":[{"role":"user","content":"a"}])" + members +
                            "}");
  };
  const auto top = [&](const std::string& members) {
    return std::get<ChatRequest>(parse(members)).params.top_logprobs;
  };
  EXPECT_EQ(top(R"(,"logprobs":true)"), 0);
  EXPECT_EQ(top(R"(,"logprobs":true,"top_logprobs":20)"), 20);
  EXPECT_FALSE(top(R"(,"logprobs":false,"top_logprobs":0)").has_value());
  for (const char* bad : {R"(,"top_logprobs":3)", R"(,"logprobs":true,"top_logprobs":21)"}) {
    EXPECT_EQ(std::get<ApiError>(parse(bad)).param, "top_logprobs") << bad;
  }
  EXPECT_EQ(std::get<ApiError>(parse(R"(,"logprobs":5)")).param, "logprobs");
}

TEST(ChatRequest, TemplateVariablesKeepTheirOrderAndTheirBounds) {
  const auto body = [](const std::string& variables) {
    return R"({"model":"m","messages":[{"role":"user","content":"a"}],"chat_template_kwargs":)" +
           variables + "}";
  };
  const auto parsed =
      ParseChatRequest(body(R"({"enable_thinking":false,"b":{"z":1,"a":[2.5,null]}})"));
  ASSERT_TRUE(std::holds_alternative<ChatRequest>(parsed)) << std::get<ApiError>(parsed).message;
  EXPECT_EQ(std::get<ChatRequest>(parsed).conversation.template_variables.dump(),
            R"({"enable_thinking":false,"b":{"z":1,"a":[2.5,null]}})");
  EXPECT_TRUE(std::get<ChatRequest>(ParseChatRequest(body("null")))
                  .conversation.template_variables.is_null());
  EXPECT_EQ(ChatError(body("{}")).message, "accepted");

  EXPECT_EQ(ChatError(body("[]")).param, "chat_template_kwargs");
  EXPECT_EQ(ChatError(body(R"({"tools":[]})")).message,
            "'chat_template_kwargs' names the string \"tools\", which the request itself has: send "
            "it there");
  for (const char* name : {"", "1a", "a b", "a-b", "\u00e9"}) {
    EXPECT_NE(ChatError(body(fmt::format("{{\"{}\":1}}", name))).message.find("is no name of"),
              std::string::npos)
        << name;
  }
  std::string many = "{";
  for (int i = 0; i <= 64; ++i) many += fmt::format("{}\"a{}\":1", i ? "," : "", i);
  EXPECT_NE(ChatError(body(many + "}")).message.find("at most 64 names"), std::string::npos);
  const std::string large = R"({"a":")" + std::string(64 * 1024, 'x') + R"("})";
  EXPECT_NE(ChatError(body(large)).message.find("at most 65536 bytes"), std::string::npos);
}

TEST(TokenizeRequest, TakesAPromptOrAConversationButNotBoth) {
  EXPECT_EQ(std::get<0>(std::get<TokenizeRequest>(ParseTokenizeRequest(R"({"prompt":"a"})")).input),
            "a");
  auto chat = ParseTokenizeRequest(R"({"messages":[{"role":"user","content":"a"}]})");
  EXPECT_TRUE(std::holds_alternative<Conversation>(std::get<TokenizeRequest>(chat).input));
  EXPECT_EQ(std::get<ApiError>(ParseTokenizeRequest(
                                   R"({"prompt":"a","messages":[{"role":"user","content":"a"}]})"))
                .param,
            "prompt");
  EXPECT_EQ(std::get<ApiError>(ParseDetokenizeRequest(R"({"tokens":"a"})")).param, "tokens");
}

TEST(TokenizeRequest, WhatHasNoMeaningForItsInputIsRefusedNotIgnored) {
  const auto error = [](const std::string& members) {
    auto parsed = ParseTokenizeRequest("{" + members + "}");
    return std::holds_alternative<ApiError>(parsed) ? std::get<ApiError>(parsed).param : "accepted";
  };
  const std::string messages = R"("messages":[{"role":"user","content":"a"}],)";
  EXPECT_EQ(error(messages + R"("add_special_tokens":true)"), "add_special_tokens");
  EXPECT_EQ(error(messages + R"("add_special_tokens":false)"), "accepted");
  EXPECT_EQ(error(messages + R"("add_generation_prompt":true)"), "accepted");
  EXPECT_EQ(error(R"("prompt":"a","add_generation_prompt":true)"), "add_generation_prompt");
  EXPECT_EQ(error(R"("prompt":"a","add_generation_prompt":false)"), "accepted");
  EXPECT_EQ(error(R"("prompt":"a","add_special_tokens":true)"), "accepted");
}

}  // namespace
}  // namespace quern::server
