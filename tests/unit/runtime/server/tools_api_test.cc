// Calls of functions in the answers, over real sockets. Run under ThreadSanitizer as well.

#include <gtest/gtest.h>

#include <string>

#include "tests/unit/runtime/server/api_fixture.h"

namespace quern::server {
namespace {

using ToolsApiTest = ApiTest;

std::string Body(const std::string& members) {
  return R"({"model":"m","messages":[{"role":"user","content":"a"}],"tools":[)"
         R"({"type":"function","function":{"name":"f"}}])" +
         members + "}";
}

TEST_F(ToolsApiTest, AWholeAnswerHasItsCallsApartFromItsText) {
  StartServer();
  RawClient client(port);
  client.Send(Request("POST", "/v1/chat/completions", Body("")));
  ASSERT_TRUE(engine->WaitForRequest(1));
  engine->Emit(1, "Let me see.\n<tool_call>\n{\"name\": \"f\", \"argu");
  engine->Emit(1, "ments\": {\"a\": \"\xC3\xA9\"}}\n</tool_call>", FinishReason::kStop);
  const Reply reply = Split(client.ReadUntil("usage"));
  EXPECT_NE(reply.body.find(R"("content":"Let me see.","refusal":null,"tool_calls":[{"id":"call_)"),
            std::string::npos)
      << reply.body;
  EXPECT_NE(reply.body.find(
                R"("type":"function","function":{"name":"f","arguments":"{\"a\": \"é\"}"}}])"),
            std::string::npos)
      << reply.body;
  EXPECT_NE(reply.body.find(R"("finish_reason":"tool_calls")"), std::string::npos) << reply.body;
}

TEST_F(ToolsApiTest, AStreamNamesTheFunctionAndThenPassesItsArgumentsOn) {
  StartServer();
  RawClient client(port);
  client.Send(Request("POST", "/v1/chat/completions", Body(R"(,"stream":true)")));
  ASSERT_TRUE(engine->WaitForRequest(1));
  engine->Emit(1, "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\"");
  std::string events = client.ReadUntil(R"("function":{"arguments":"{\"a\""}}]})");
  EXPECT_NE(events.find(R"("function":{"name":"f","arguments":""}}]})"), std::string::npos)
      << events;
  engine->Emit(1, ": 1}}");
  engine->Emit(1, "\n</tool_call>", FinishReason::kStop);
  events += client.ReadUntil("[DONE]");
  EXPECT_NE(events.find(R"("function":{"arguments":": 1}"}}]})"), std::string::npos) << events;
  EXPECT_NE(events.find(R"("delta":{},"logprobs":null,"finish_reason":"tool_calls")"),
            std::string::npos)
      << events;
  EXPECT_EQ(events.find("</tool_call>"), std::string::npos) << events;
}

TEST_F(ToolsApiTest, ACallThatIsCutOffEndsWithLengthAndTextThatIsNoneIsContent) {
  StartServer();
  RawClient client(port);
  client.Send(Request("POST", "/v1/chat/completions", Body(R"(,"stream":true,"n":2)")));
  ASSERT_TRUE(engine->WaitForRequest(2));
  engine->Emit(1, "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": ", FinishReason::kLength);
  engine->Emit(2, "<tool_call>{\"name\": \"g", FinishReason::kStop);
  const std::string events = client.ReadUntil("[DONE]");
  EXPECT_NE(events.find(R"({"index":0,"delta":{},"logprobs":null,"finish_reason":"length"})"),
            std::string::npos)
      << events;
  EXPECT_NE(events.find(R"({"index":1,"delta":{"content":"<tool_call>{\"name\": \"g"})"),
            std::string::npos)
      << events;
  EXPECT_NE(events.find(R"({"index":1,"delta":{},"logprobs":null,"finish_reason":"stop"})"),
            std::string::npos)
      << events;
}

TEST_F(ToolsApiTest, WithoutToolsTheMarksAreText) {
  StartServer();
  RawClient client(port);
  client.Send(Request("POST", "/v1/chat/completions", Body(R"(,"tool_choice":"none")")));
  ASSERT_TRUE(engine->WaitForRequest(1));
  engine->Emit(1, "<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>",
               FinishReason::kStop);
  const std::string answer = client.ReadUntil("usage");
  EXPECT_EQ(answer.find("tool_calls"), std::string::npos) << answer;
  EXPECT_NE(answer.find("</tool_call>"), std::string::npos) << answer;
}

}  // namespace
}  // namespace quern::server
