#include "runtime/server/tools.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <string>
#include <variant>

#include "runtime/server/json_text.h"
#include "runtime/server/request.h"
#include "runtime/server/tool_prompt.h"

namespace quern::server {
namespace {
using nlohmann::json;

constexpr char kTwo[] =
    R"("tools":[{"type":"function","function":{"name":"weather","description":"Of a city",)"
    R"("parameters":{"type":"object","properties":{"z":{"type":"string"},"a":{"type":"integer"}}}}},)"
    R"({"type":"function","function":{"name":"now","strict":true}}])";

ApiResult<ChatRequest> Parse(const std::string& members,
                             const std::string& messages = R"([{"role":"user","content":"a"}])") {
  return ParseChatRequest(fmt::format(R"({{"model":"m","messages":{}{}{}}})", messages,
                                      members.empty() ? "" : ",", members));
}
ChatRequest GoodChat(const std::string& members,
                     const std::string& messages = R"([{"role":"user","content":"a"}])") {
  auto parsed = Parse(members, messages);
  if (auto* error = std::get_if<ApiError>(&parsed)) {
    ADD_FAILURE() << error->message;
    return {};
  }
  return std::get<ChatRequest>(std::move(parsed));
}
ApiError BadChat(const std::string& members,
                 const std::string& messages = R"([{"role":"user","content":"a"}])") {
  auto parsed = Parse(members, messages);
  return std::holds_alternative<ApiError>(parsed) ? std::get<ApiError>(parsed)
                                                  : ApiError{0, "accepted"};
}

TEST(Tools, AreReadInTheirOwnOrderAndChosenByTheModelByDefault) {
  const auto request = GoodChat(kTwo);
  const auto& tools = request.conversation.tools;
  ASSERT_TRUE(tools);
  EXPECT_EQ(tools->names, (std::vector<std::string>{"weather", "now"}));
  EXPECT_EQ(tools->schemas[0],
            R"({"type":"object","properties":{"z":{"type":"string"},"a":{"type":"integer"}},)"
            R"("x-guidance":{"whitespace_pattern":"[ ]?"}})");
  EXPECT_EQ(tools->schemas[1], R"({"type":"object","properties":{},"additionalProperties":false,)"
                               R"("x-guidance":{"whitespace_pattern":"[ ]?"}})");
  EXPECT_EQ(tools->tools[0]["function"].dump().find("name"), 2u);
  EXPECT_EQ(tools->choice, ToolUse::Choice::kAuto);
  EXPECT_TRUE(tools->parallel);
  EXPECT_FALSE(request.params.structured);
}

TEST(Tools, AChoiceSaysWhichMayBeCalledAndWhetherOneMust) {
  const auto with = [](const std::string& choice) {
    return GoodChat(fmt::format(R"({},"tool_choice":{})", kTwo, choice));
  };
  EXPECT_FALSE(with(R"("none")").conversation.tools);
  EXPECT_EQ(with(R"("auto")").conversation.tools->choice, ToolUse::Choice::kAuto);
  const auto required = with(R"("required")");
  EXPECT_EQ(required.conversation.tools->choice, ToolUse::Choice::kRequired);
  ASSERT_TRUE(required.params.structured);
  EXPECT_EQ(required.params.structured->param, "tools");
  const auto named = with(R"({"type":"function","function":{"name":"now"}})");
  EXPECT_EQ(named.conversation.tools->names, std::vector<std::string>{"now"});
  EXPECT_FALSE(named.conversation.tools->parallel);
  EXPECT_EQ(named.conversation.tools->tools.size(), 2u) << "the prompt names all";
  const auto allowed = with(R"({"type":"allowed_tools","allowed_tools":{"mode":"auto","tools":[)"
                            R"({"type":"function","function":{"name":"weather"}}]}})");
  EXPECT_EQ(allowed.conversation.tools->names, std::vector<std::string>{"weather"});
  EXPECT_EQ(allowed.conversation.tools->choice, ToolUse::Choice::kAuto);
}

TEST(Tools, BadOnesAreNamedByTheirPath) {
  const auto function = [](const std::string& members) {
    return R"("tools":[{"type":"function","function":{)" + members + "}}]";
  };
  const auto choice = [](const std::string& text) {
    return fmt::format(R"({},"tool_choice":{})", kTwo, text);
  };
  struct Case {
    std::string members;
    std::string param;
  };
  const Case cases[] = {
      {R"("tools":{})", "tools"},
      {R"("tools":[1])", "tools[0]"},
      {R"("tools":[{"type":"web_search"}])", "tools[0].type"},
      {R"("tools":[{"type":"function"}])", "tools[0].function"},
      {function(""), "tools[0].function.name"},
      {function(R"("name":"a b")"), "tools[0].function.name"},
      {function(R"("name":"a","parameters":[])"), "tools[0].function.parameters"},
      {function(R"("name":"a","param":{})"), "tools[0].function.param"},
      {function(R"("name":"a","parameters":{"type":"string"})"),
       "tools[0].function.parameters.type"},
      {R"("tools":[{"type":"function","function":{"name":"a"}},)"
       R"({"type":"function","function":{"name":"a"}}])",
       "tools[1].function.name"},
      {choice(R"("sometimes")"), "tool_choice"},
      {choice("5"), "tool_choice"},
      {choice(R"({"type":"function","function":{"name":"other"}})"), "tool_choice.function.name"},
      {choice(R"({"type":"function"})"), "tool_choice.function"},
      {choice(R"({"type":"allowed_tools","allowed_tools":{"mode":"x","tools":[]}})"),
       "tool_choice.allowed_tools.mode"},
      {R"("tool_choice":"required")", "tool_choice"},
      {std::string(kTwo) + R"(,"parallel_tool_calls":"yes")", "parallel_tool_calls"},
      {choice(R"("required")") + R"(,"response_format":{"type":"json_object"})", "response_format"},
  };
  for (const Case& it : cases) {
    const ApiError error = BadChat(it.members);
    EXPECT_EQ(error.status, 400) << it.members;
    EXPECT_EQ(error.param, it.param) << error.message;
  }
}

TEST(Tools, ASchemaWithoutATypeIsAnObjects) {
  const auto request =
      GoodChat(R"("tools":[{"type":"function","function":{"name":"f","parameters":{}}}])");
  EXPECT_EQ(request.conversation.tools->schemas[0].rfind(R"({"type":"object")", 0), 0u);
}

// What was read is what counts, not what a search for the name finds in the body.
TEST(Tools, NamesWithEscapesOrTwiceAreReadAsTheParserReadsThem) {
  const std::string real = R"([{"type":"function","function":{"name":"f","parameters":{}}}])";
  for (const std::string& body :
       {R"("tools":[{}],"t\u006fols":)" + real, R"("tools":[5],"tools":)" + real,
        std::string(R"("tools":[{"type":"function","function":{},)"
                    R"("function":{"name":"f","parameters":{}}}])")}) {
    const auto request = GoodChat(body);
    ASSERT_TRUE(request.conversation.tools) << body;
    EXPECT_EQ(request.conversation.tools->names, std::vector<std::string>{"f"});
    EXPECT_EQ(json(request.conversation.tools->tools), json::parse(real)) << body;
  }
}

TEST(Tools, AnObjectOfManyMembersIsRefusedBeforeItTakesTime) {
  std::string members = R"("a":0)";
  for (size_t i = 0; i < kMaxToolMembers; ++i) members += fmt::format(R"(,"{}":0)", i);
  const ApiError error = BadChat(
      R"("tools":[{"type":"function","function":{"name":"f","parameters":{)" + members + "}}}]");
  EXPECT_EQ(error.status, 400);
  EXPECT_EQ(error.param, "tools") << error.message;
}

constexpr char kCalled[] =
    R"([{"role":"user","content":"Weather?"},{"role":"assistant","content":null,"tool_calls":[)"
    R"({"id":"c1","type":"function","function":{"name":"weather","arguments":"{\"zone\": 1, \"city\": \"Rome\"}"}},)"
    R"({"id":"c2","type":"function","function":{"name":"now","arguments":""}}]},)"
    R"({"role":"tool","tool_call_id":"c1","content":"sunny"},)"
    R"({"role":"tool","tool_call_id":"c2","content":[{"type":"text","text":"noon"}]}])";

TEST(Tools, CallsOfEarlierAnswersAreReadWithTheirArgumentsAsObjects) {
  const auto request = GoodChat(kTwo, kCalled);
  const auto& messages = request.conversation.messages;
  EXPECT_TRUE(request.conversation.has_calls);
  EXPECT_EQ(messages[1]["content"], "");
  EXPECT_EQ(messages[1]["tool_calls"][0]["function"]["arguments"]["city"], "Rome");
  EXPECT_EQ(messages[1]["tool_calls"][1]["function"]["arguments"].dump(), "{}");
  EXPECT_EQ(messages[3].dump(), R"({"role":"tool","content":"noon","tool_call_id":"c2"})");
}

TEST(JsonText, MembersKeepTheirOrderUnlessThatWouldTakeLong) {
  EXPECT_EQ(ParseInOrder(R"({"z":{"b":1,"a":2},"y":[{"d":0,"c":0}]})", 2).dump(),
            R"({"z":{"b":1,"a":2},"y":[{"d":0,"c":0}]})");
  EXPECT_EQ(ParseInOrder(R"({"z":1,"y":2,"x":3})", 2).dump(), R"({"x":3,"y":2,"z":1})");
  EXPECT_EQ(ParseInOrder(R"([{"z":{"b":{},"a":1},"y":2,"z":3},{"w":0}])", 3).dump(),
            R"([{"z":3,"y":2},{"w":0}])");
  EXPECT_EQ(ParseInOrder(R"([{"z":{"b":{},"a":1},"y":2,"z":3},{"w":0}])", 2).dump(),
            R"([{"y":2,"z":3},{"w":0}])");
  EXPECT_TRUE(ParseInOrder("{", 9).is_discarded());
}

// An object with more members than one may have, escaped.
std::string ManyMembers() {
  std::string object = "{";
  for (size_t i = 0; i <= kMaxToolMembers; ++i) {
    object += (i == 0 ? "" : ",") + std::string(R"(\")") + std::to_string(i) + R"(\":0)";
  }
  return object + '}';
}

TEST(Tools, ArgumentsThatAreNoObjectOrTooManyAreRefused) {
  const auto with = [](const std::string& arguments) {
    return BadChat("",
                   R"([{"role":"assistant","tool_calls":[{"id":"c","type":"function","function":)"
                   R"({"name":"f","arguments":)" +
                       arguments + "}}]}]");
  };
  for (const std::string& arguments :
       {std::string(R"("{")"), std::string(R"("[1]")"), std::string("5"),
        '"' + std::string(100, '[') + '"',
        R"("{\"a\":\")" + std::string(kMaxArgumentBytes, 'x') + R"(\"}")",
        '"' + ManyMembers() + '"'}) {
    const ApiError error = with(arguments);
    EXPECT_EQ(error.status, 400);
    EXPECT_EQ(error.param, "messages[0].tool_calls[0].function.arguments") << error.message;
    EXPECT_LT(error.message.size(), 300u);
  }
}

TEST(ToolPrompt, WritesToolsCallsAndAnswersIntoTheTextOfOtherMessages) {
  const auto request = GoodChat(kTwo, kCalled);
  const json written =
      WriteToolsAsText(request.conversation.messages, request.conversation.tools->tools);
  ASSERT_EQ(written.size(), 4u) << written.dump(1);
  EXPECT_EQ(written[0]["role"], "system");
  const std::string system = written[0]["content"];
  EXPECT_NE(system.find(R"("parameters":{"type":"object","properties":{"z":)"), std::string::npos)
      << system;
  EXPECT_NE(system.find("<tool_call>\n{\"name\": "), std::string::npos) << system;
  EXPECT_EQ(written[2]["content"],
            "<tool_call>\n{\"name\": \"weather\", \"arguments\": "
            "{\"zone\":1,\"city\":\"Rome\"}}\n</tool_call>\n"
            "<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>");
  EXPECT_EQ(written[3]["role"], "user");
  EXPECT_EQ(written[3]["content"],
            "<tool_response>\nsunny\n</tool_response>\n<tool_response>\nnoon\n</tool_response>");
}

TEST(ToolPrompt, TheClientsOwnSystemMessageComesFirst) {
  const auto request =
      GoodChat(kTwo, R"([{"role":"system","content":"Be brief."},{"role":"user","content":"a"}])");
  const json written =
      WriteToolsAsText(request.conversation.messages, request.conversation.tools->tools);
  ASSERT_EQ(written.size(), 2u);
  EXPECT_EQ(written[0]["content"].get<std::string>().rfind("Be brief.\n\n# Tools", 0), 0u);
  EXPECT_EQ(WriteToolsAsText(request.conversation.messages, nullptr),
            request.conversation.messages);
}

}  // namespace
}  // namespace quern::server
