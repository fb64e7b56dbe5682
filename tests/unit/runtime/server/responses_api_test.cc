// /v1/responses over real sockets. Run under ThreadSanitizer as well.

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "tests/unit/runtime/server/api_fixture.h"

namespace quern::server {
namespace {

class ResponsesApiTest : public ApiTest {
 protected:
  static std::string Body(const std::string& members) {
    return R"({"model":"m","input":"a")" + members + "}";
  }
  static std::string WithTool(const std::string& members) {
    return Body(R"(,"tools":[{"type":"function","name":"f"}])" + members);
  }
  // The events in a stream's bytes, each named as its line "event:" says, numbered without a gap.
  static std::vector<json> Events(const std::string& bytes) {
    std::vector<json> events;
    for (size_t at = bytes.find("event: "); at != std::string::npos;
         at = bytes.find("event: ", at + 1)) {
      const size_t data = bytes.find("\ndata: ", at);
      events.push_back(json::parse(bytes.substr(data + 7, bytes.find("\n\n", data) - data - 7)));
      EXPECT_EQ(events.back()["type"], bytes.substr(at + 7, data - at - 7));
      EXPECT_EQ(events.back()["sequence_number"], events.size() - 1);
    }
    return events;
  }
  static std::vector<std::string> Types(const std::vector<json>& events) {
    std::vector<std::string> types;
    for (const json& event : events) types.push_back(event["type"]);
    return types;
  }
  // Ids are random: "fc_1f…" becomes "fc".
  static json WithoutIds(json items) {
    for (json& item : items) {
      for (const char* id : {"id", "call_id"}) {
        if (item.contains(id)) item[id] = item[id].get<std::string>().substr(0, 3);
      }
    }
    return items;
  }
  // All of a stream, its chunks put together.
  static std::vector<json> ReadStream(RawClient& client) {
    client.ReadUntil("\r\n0\r\n\r\n");
    const std::string all = std::exchange(client.received, {});
    std::string body;
    for (size_t at = all.find("\r\n\r\n") + 4; at < all.size();) {
      const size_t length = std::stoul(all.substr(at, 16), nullptr, 16);
      at = all.find("\r\n", at) + 2;
      body += all.substr(at, length);
      at += length + 2;
    }
    return Events(body);
  }
};

// Text, a call, text and a call that is cut off.
const std::vector<std::string> kMixed = {
    "Let me", " see.\n<tool_call>\n{\"name\": \"f\", \"arg",
    "uments\": {\"a\": 1}}\n</tool_call>\nAnd ",
    "\xC3\xA9.<tool_call>{\"name\": \"f\", \"arguments\": {\"b\": "};

TEST_F(ResponsesApiTest, AWholeAnswerHasTextAndCallsInTheirOrder) {
  StartServer();
  RawClient client(port);
  client.Send(Request("POST", "/v1/responses", WithTool("")));
  ASSERT_TRUE(engine->WaitForRequest(1));
  for (const std::string& piece : kMixed) engine->Emit(1, piece);
  engine->Emit(1, "", FinishReason::kLength);
  const json answer = Split(client.ReadResponse()).Json();
  EXPECT_EQ(answer["object"], "response");
  EXPECT_EQ(answer["status"], "incomplete");
  EXPECT_EQ(answer["incomplete_details"]["reason"], "max_output_tokens");
  EXPECT_EQ(
      WithoutIds(answer["output"]).dump(),
      R"([{"content":[{"annotations":[],"logprobs":[],"text":"Let me see.","type":"output_text"}],)"
      R"("id":"msg","role":"assistant","status":"completed","type":"message"},)"
      R"({"arguments":"{\"a\": 1}","call_id":"cal","id":"fc_","name":"f","status":"completed",)"
      R"("type":"function_call"},)"
      R"({"content":[{"annotations":[],"logprobs":[],"text":"And é.","type":"output_text"}],)"
      R"("id":"msg","role":"assistant","status":"completed","type":"message"},)"
      R"({"arguments":"{\"b\": ","call_id":"cal","id":"fc_","name":"f","status":"incomplete",)"
      R"("type":"function_call"}])");
  EXPECT_EQ(answer["usage"]["output_tokens"], 5);
  EXPECT_EQ(answer["usage"]["input_tokens_details"]["cached_tokens"],
            answer["usage"]["input_tokens"].get<int>() - 1);
}

TEST_F(ResponsesApiTest, AStreamMakesTheSameItemsOneAfterTheOther) {
  StartServer();
  RawClient client(port);
  client.Send(Request("POST", "/v1/responses", WithTool(R"(,"stream":true)")));
  ASSERT_TRUE(engine->WaitForRequest(1));
  client.ReadUntil("response.in_progress");
  for (const std::string& piece : kMixed) engine->Emit(1, piece);
  engine->Emit(1, "", FinishReason::kLength);
  const auto events = ReadStream(client);
  const auto types = Types(events);
  EXPECT_EQ(types.front(), "response.created");
  EXPECT_EQ(events[0]["response"]["status"], "in_progress");
  EXPECT_TRUE(events[0]["response"]["usage"].is_null());
  EXPECT_EQ(types.back(), "response.incomplete");
  EXPECT_EQ(std::count(types.begin(), types.end(), "response.output_item.added"), 4);
  EXPECT_EQ(std::count(types.begin(), types.end(), "response.content_part.added"), 2);
  EXPECT_EQ(std::count(types.begin(), types.end(), "response.function_call_arguments.done"), 2);
  // Each item is opened, grows and is done before the next one; its pieces make what it is.
  std::string open, grown;
  json items = json::array();
  for (const json& event : events) {
    const std::string type = event["type"];
    if (event.contains("output_index")) EXPECT_EQ(event["output_index"], items.size()) << event;
    if (event.contains("item_id")) EXPECT_EQ(event["item_id"], open) << event;
    if (type == "response.output_item.added") {
      EXPECT_EQ(open, "");
      EXPECT_EQ(event["item"]["status"], "in_progress");
      open = event["item"]["id"];
      grown.clear();
    }
    if (event.contains("delta")) grown += event["delta"].get<std::string>();
    if (event.contains("text")) EXPECT_EQ(event["text"], grown);
    if (event.contains("arguments")) EXPECT_EQ(event["arguments"], grown);
    if (type == "response.output_item.done") {
      EXPECT_EQ(event["item"]["id"], open);
      items.push_back(event["item"]);
      open.clear();
    }
  }
  const json& last = events.back()["response"];
  EXPECT_EQ(last["output"], items);
  EXPECT_EQ(last["id"], events[0]["response"]["id"]);
  EXPECT_EQ(last["usage"]["output_tokens"], 5);
  EXPECT_EQ(items.size(), 4u);
  EXPECT_EQ(items[0]["status"], "completed");
  EXPECT_EQ(items[2]["content"][0]["text"], "And é.");
  EXPECT_EQ(items[3]["status"], "incomplete");
}

TEST_F(ResponsesApiTest, AnAnswerWithoutTextIsAnEmptyMessage) {
  StartServer();
  RawClient client(port);
  client.Send(Request("POST", "/v1/responses", Body("")));
  ASSERT_TRUE(engine->WaitForRequest(1));
  engine->Emit(1, "", FinishReason::kStop);
  const json answer = Split(client.ReadResponse()).Json();
  ASSERT_EQ(answer["output"].size(), 1u);
  EXPECT_EQ(answer["output"][0]["content"][0]["text"], "");
  EXPECT_EQ(answer["status"], "completed");
  EXPECT_TRUE(answer["incomplete_details"].is_null());
  client.Send(Request("POST", "/v1/responses", Body(R"(,"stream":true)")));
  ASSERT_TRUE(engine->WaitForRequest(2));
  engine->Emit(2, "", FinishReason::kStop);
  const auto events = ReadStream(client);
  EXPECT_EQ(WithoutIds(events.back()["response"]["output"]), WithoutIds(answer["output"]));
}

TEST_F(ResponsesApiTest, LogprobsComeWithTheirTextAndAgainAtItsEnd) {
  StartServer();
  RawClient client(port);
  client.Send(Request(
      "POST", "/v1/responses",
      Body(R"(,"stream":true,"include":["message.output_text.logprobs"],"top_logprobs":1)")));
  const auto request = engine->WaitForRequest(1);
  ASSERT_TRUE(request);
  EXPECT_EQ(request->top_logprobs, 1);
  const GeneratedLogprobs entry{.token = {'a', -0.5f}, .top = {{'b', -0.25f}}, .text_offset = 0};
  engine->Emit(1, "a", {}, {}, {entry});
  client.ReadUntil("output_text.delta");
  engine->Emit(1, "a", FinishReason::kStop, {}, {entry});
  const json one = json::parse(R"({"token":"a","logprob":-0.5,"bytes":[97],)"
                               R"("top_logprobs":[{"token":"b","logprob":-0.25,"bytes":[98]}]})");
  for (const json& event : ReadStream(client)) {
    if (event["type"] == "response.output_text.delta") {
      EXPECT_EQ(event["logprobs"], json::array({one}));
    }
    if (event["type"] == "response.output_text.done") {
      EXPECT_EQ(event["logprobs"], json::array({one, one}));
    }
    if (event["type"] == "response.completed") {
      EXPECT_EQ(event["response"]["output"][0]["content"][0]["logprobs"], json::array({one, one}));
    }
  }
}

TEST_F(ResponsesApiTest, AFailureOfTheRunIsTheResponsesAndOneOfAWholeAnswerIsA500) {
  StartServer();
  RawClient client(port);
  client.Send(Request("POST", "/v1/responses", Body("")));
  ASSERT_TRUE(engine->WaitForRequest(1));
  engine->Emit(1, "half", FinishReason::kError, "the run broke");
  const Reply whole = Split(client.ReadResponse());
  EXPECT_EQ(whole.status, 500);
  EXPECT_EQ(whole.Error("code"), "generation_failed");
  client.Send(Request("POST", "/v1/responses", Body(R"(,"stream":true)")));
  ASSERT_TRUE(engine->WaitForRequest(2));
  engine->Emit(2, "half");
  client.ReadUntil("output_text.delta");
  engine->Emit(2, "", FinishReason::kError, "the run broke");
  const json last = ReadStream(client).back();
  EXPECT_EQ(last["type"], "response.failed");
  EXPECT_EQ(last["response"]["status"], "failed");
  EXPECT_EQ(last["response"]["error"]["code"], "server_error");
  EXPECT_EQ(last["response"]["error"]["message"], "the run broke");
  EXPECT_EQ(last["response"]["output"][0]["status"], "incomplete");
  EXPECT_EQ(last["response"]["output"][0]["content"][0]["text"], "half");
}

TEST_F(ResponsesApiTest, AClientThatFallsTooFarBehindIsToldSo) {
  StartServer();
  RawClient client(port, /*receive_buffer=*/4096);
  client.Send(Request("POST", "/v1/responses", Body(R"(,"stream":true)")));
  ASSERT_TRUE(engine->WaitForRequest(1));
  for (int i = 0; i < kPieces; ++i) engine->Emit(1, kPiece);
  EXPECT_TRUE(engine->WaitForCancel(1));
  const auto events = ReadStream(client);
  EXPECT_EQ(events.back()["code"], "client_too_slow");
  EXPECT_TRUE(MetricIs(R"(quern_requests_rejected_total{model="m",reason="stream_buffer"})", 1));
}

TEST_F(ResponsesApiTest, EventsThatRepeatALongAnswerReachASlowReader) {
  options.max_backlog_bytes = 32 << 20;
  StartServer();
  RawClient client(port, /*receive_buffer=*/4096);
  client.Send(Request("POST", "/v1/responses", Body(R"(,"stream":true)")));
  ASSERT_TRUE(engine->WaitForRequest(1));
  constexpr int kSome = 150;  // more than the stream's buffer holds at once
  for (int i = 0; i < kSome; ++i) engine->Emit(1, kPiece);
  engine->Emit(1, "", FinishReason::kStop);
  const auto events = ReadStream(client);
  const std::string text = events.back()["response"]["output"][0]["content"][0]["text"];
  EXPECT_EQ(text.size(), kPiece.size() * kSome);
  // The connection is as good as new.
  client.Send(Request("GET", "/health/ready"));
  EXPECT_NE(client.ReadUntil("ready").find("200 OK"), std::string::npos);
}

TEST_F(ResponsesApiTest, WhatAStreamRepeatsIsBoundedAsAWholeAnswerIs) {
  StartServer();
  const std::string wanted =
      R"(,"include":["message.output_text.logprobs"],"top_logprobs":20,"max_output_tokens":900)";
  for (const char* stream : {"", R"(,"stream":true)"}) {
    const Reply refused = Ask("POST", "/v1/responses", Body(wanted + stream));
    EXPECT_EQ(refused.status, 400);
    EXPECT_EQ(refused.Error("param"), "top_logprobs");
    EXPECT_NE(refused.Error("message").find("max_output_tokens"), std::string::npos);
  }
}

TEST_F(ResponsesApiTest, ErrorsAboutThePromptNameTheInput) {
  with_template = false;
  StartServer();
  const Reply base = Ask("POST", "/v1/responses", Body(""));
  EXPECT_EQ(base.Error("code"), "no_chat_template");
  EXPECT_EQ(base.Error("param"), "input");
}

}  // namespace
}  // namespace quern::server
