// What a server streams: sse.h, stream_event.h, and the URL it is under.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "runtime/bench/sse.h"
#include "runtime/bench/stream_event.h"
#include "runtime/bench/url.h"

namespace quern::bench {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

std::vector<std::string> Read(std::string_view bytes, size_t piece) {
  SseParser parser;
  std::vector<std::string> events;
  for (size_t at = 0; at < bytes.size(); at += piece) {
    const auto fed = parser.Feed(bytes.substr(at, piece),
                                 [&](std::string_view data) { events.emplace_back(data); });
    EXPECT_TRUE(fed.ok());
  }
  return events;
}

TEST(SseParser, EventsComeWholeWhereverTheStreamIsCut) {
  const std::string_view stream =
      "\xEF\xBB\xBF: a comment\r\ndata: {\"a\":1}\r\n\r\nevent: x\nid: 7\ndata:one\ndata: two\n\n"
      "retry: 3\n\ndata\n\ndata: [DONE]\r\rdata: begun";
  for (size_t piece = 1; piece <= stream.size(); ++piece) {
    EXPECT_THAT(Read(stream, piece), ElementsAre("{\"a\":1}", "one\ntwo", "", "[DONE]")) << piece;
  }
}

TEST(SseParser, OtherFieldsAreNoData) {
  EXPECT_THAT(Read("database: x\nDATA: y\n data: z\nevent: data\n\n", 100), IsEmpty());
}

TEST(SseParser, LinesAndEventsBeyondTheLimitAreErrors) {
  const auto ignore = [](std::string_view) {};
  EXPECT_FALSE(SseParser(8).Feed("data: 123456", ignore).ok());
  SseParser many_lines(8);
  EXPECT_TRUE(many_lines.Feed("data:123\n", ignore).ok());
  EXPECT_FALSE(many_lines.Feed("data:123\ndata:123\n", ignore).ok());
  SseParser short_events(8);
  for (int i = 0; i < 100; ++i) EXPECT_TRUE(short_events.Feed("data:12\n\n", ignore).ok());
}

TEST(StreamEvent, TextIsThatOfCompletionsChatsReasoningAndTools) {
  for (const char* data :
       {R"({"choices":[{"text":"a"}]})", R"({"choices":[{"delta":{"content":"a"}}]})",
        R"({"choices":[{"delta":{"reasoning_content":"a"}}]})",
        R"({"choices":[{"delta":{"tool_calls":[{"index":0}]}}]})"}) {
    const auto event = ReadStreamEvent(data);
    ASSERT_TRUE(event.ok()) << data;
    EXPECT_TRUE(event->has_text && !event->done && !event->finished) << data;
  }
  for (const char* data : {R"({"choices":[{"text":""}]})", R"({"choices":[]})", "{}",
                           R"({"choices":[{"delta":{"role":"assistant","content":""}}]})",
                           R"({"choices":[{"delta":{"content":null},"finish_reason":null}]})"}) {
    const auto event = ReadStreamEvent(data);
    ASSERT_TRUE(event.ok()) << data;
    EXPECT_FALSE(event->has_text || event->done || event->finished) << data;
  }
}

TEST(StreamEvent, TheEndIsDoneOrAFinishReason) {
  EXPECT_TRUE(ReadStreamEvent("[DONE]")->done);
  EXPECT_TRUE(ReadStreamEvent(R"({"choices":[{"text":"","finish_reason":"length"}]})")->finished);
}

TEST(StreamEvent, UsageIsReadAsFarAsItIsTold) {
  const auto event = ReadStreamEvent(
      R"({"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3,)"
      R"("prompt_tokens_details":{"cached_tokens":5}},"system_fingerprint":"s-1"})");
  ASSERT_TRUE(event->usage.has_value());
  EXPECT_EQ(event->usage->prompt, 7);
  EXPECT_EQ(event->usage->completion, 3);
  EXPECT_EQ(event->usage->cached, 5);
  EXPECT_EQ(event->fingerprint, "s-1");
  EXPECT_FALSE(ReadStreamEvent(R"({"usage":null})")->usage.has_value());
  EXPECT_EQ(ReadUsage(R"({"usage":{"prompt_tokens":-1,"completion_tokens":1e3}})")->prompt, -1);
  EXPECT_FALSE(ReadUsage("no JSON").has_value());
}

TEST(StreamEvent, ErrorsAreToldInOneLine) {
  EXPECT_EQ(ReadStreamEvent(R"({"error":{"message":"too\nlate"}})")->error, "too late");
  EXPECT_EQ(ReadErrorMessage(R"({"error":"full"})"), "full");
  EXPECT_EQ(ReadErrorMessage(R"({"detail":"Not Found"})"), "Not Found");
  EXPECT_EQ(ReadErrorMessage("<html>\x1b[31m"), "<html> [31m");
  EXPECT_LE(ReadErrorMessage(std::string(10'000, 'x')).size(), 300U);
  EXPECT_FALSE(ReadStreamEvent("oops").ok());
  EXPECT_FALSE(ReadStreamEvent("[1]").ok());
}

TEST(BaseUrl, IsReadAsOpenAisClientsTakeIt) {
  const auto url = ParseBaseUrl("http://127.0.0.1:8000/v1/");
  ASSERT_TRUE(url.ok());
  EXPECT_EQ(url->Authority(), "127.0.0.1:8000");
  EXPECT_EQ(url->path, "/v1");
  EXPECT_EQ(url->root, "");
  EXPECT_EQ(ParseBaseUrl("http://host")->path, "/v1");
  const auto far = ParseBaseUrl("https://[::1]/proxy/v1");
  ASSERT_TRUE(far.ok());
  EXPECT_TRUE(far->tls);
  EXPECT_EQ(far->host, "::1");
  EXPECT_EQ(far->port, 443);
  EXPECT_EQ(far->root, "/proxy");
  EXPECT_EQ(far->Show(), "https://[::1]/proxy/v1");
}

TEST(BaseUrl, OfMetricsHasAnotherPathWhereNoneIsNamed) {
  EXPECT_EQ(ParseMetricsUrl("http://h:9090")->Show(), "http://h:9090/metrics");
  EXPECT_EQ(ParseMetricsUrl("http://h/a/metrics/")->Show(), "http://h/a/metrics");
  EXPECT_THAT(ParseMetricsUrl("h:9090").error().message,
              HasSubstr("no URL of metrics: it does not begin with http:// or https://; write for "
                        "example http://127.0.0.1:9090/metrics"));
}

TEST(BaseUrl, WhatIsNoneIsRefusedWithAnExample) {
  for (const char* text : {"", "127.0.0.1:8000", "ftp://x", "http://", "http://:80", "http://h:0",
                           "http://h:x", "http://h:70000", "http://[::1", "http://u@h",
                           "http://h?x", "http://h/a b", "http://h/\r\nX: y"}) {
    const auto url = ParseBaseUrl(text);
    ASSERT_FALSE(url.ok()) << text;
    EXPECT_THAT(url.error().message, HasSubstr("http://127.0.0.1:8000/v1"));
  }
}

}  // namespace
}  // namespace quern::bench
