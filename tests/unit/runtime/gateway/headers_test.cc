#include "runtime/gateway/headers.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace quern::gateway {
namespace {

using testing::Contains;
using testing::Pair;
using testing::UnorderedElementsAre;

http::Request RequestWith(http::Headers headers) {
  http::Request request;
  request.headers = std::move(headers);
  request.remote_address = "10.0.0.9:41234";
  return request;
}

TEST(RequestFields, WhatIsOfTheConnectionEndsHere) {
  const auto fields = RequestFields(RequestWith({{"Host", "api.example"},
                                                 {"Connection", "close, X-Mine ,TE"},
                                                 {"x-mine", "1"},
                                                 {"Keep-Alive", "timeout=5"},
                                                 {"Proxy-Connection", "keep-alive"},
                                                 {"TE", "trailers"},
                                                 {"Trailer", "X-Sum"},
                                                 {"Transfer-Encoding", "chunked"},
                                                 {"Upgrade", "h2c"},
                                                 {"Proxy-Authorization", "Basic x"},
                                                 {"Expect", "100-continue"},
                                                 {"Content-Length", "7"},
                                                 {"Content-Type", "application/json"},
                                                 {"Authorization", "Bearer key"},
                                                 {"X-Request-Id", "r-1"}}));
  EXPECT_THAT(fields, UnorderedElementsAre(
                          Pair("Host", "api.example"), Pair("Content-Type", "application/json"),
                          Pair("Authorization", "Bearer key"), Pair("X-Request-Id", "r-1"),
                          Pair("X-Forwarded-For", "10.0.0.9"), Pair("Via", "1.1 quern-gateway")));
}

TEST(RequestFields, WayHereIsAddedTo) {
  const auto fields = RequestFields(RequestWith({{"Host", "a"},
                                                 {"X-Forwarded-For", "1.2.3.4"},
                                                 {"Via", "1.1 front"},
                                                 {"x-forwarded-for", "5.6.7.8"}}));
  EXPECT_THAT(fields, Contains(Pair("X-Forwarded-For", "1.2.3.4, 5.6.7.8, 10.0.0.9")));
  EXPECT_THAT(fields, Contains(Pair("Via", "1.1 front, 1.1 quern-gateway")));
}

TEST(RequestFields, HostStaysWhateverConnectionSays) {
  EXPECT_THAT(RequestFields(RequestWith({{"Host", "a"}, {"Connection", "host"}})),
              Contains(Pair("Host", "a")));
  EXPECT_EQ(http::CountHeaders(RequestFields(RequestWith({})), "Host"), 1u);
}

TEST(ResponseHeadOf, KeepsWhatIsNotTheConnections) {
  http::ReceivedHead head;
  head.status = 429;
  head.length = 12;
  head.headers = {{"Content-Type", "application/json"},
                  {"Content-Length", "12"},
                  {"Connection", "close, X-Hop"},
                  {"X-Hop", "1"},
                  {"Retry-After", "1"},
                  {"Set-Cookie", "a=1"},
                  {"Set-Cookie", "b=2"},
                  {"Date", "Thu, 01 Jan 1970 00:00:00 GMT"}};
  const http::Response response = ResponseHeadOf(head);
  EXPECT_EQ(response.status, 429);
  EXPECT_EQ(response.content_type, "application/json");
  EXPECT_EQ(response.stream_length, 12u);
  EXPECT_THAT(response.headers,
              UnorderedElementsAre(Pair("Retry-After", "1"), Pair("Set-Cookie", "a=1"),
                                   Pair("Set-Cookie", "b=2"),
                                   Pair("Date", "Thu, 01 Jan 1970 00:00:00 GMT")));
}

TEST(IsEventStream, OnlyWhereEventsCanBeRead) {
  const auto with = [](http::Headers headers) {
    http::ReceivedHead head;
    head.headers = std::move(headers);
    return IsEventStream(head);
  };
  EXPECT_TRUE(with({{"content-type", "Text/Event-Stream; charset=utf-8"}}));
  EXPECT_FALSE(with({{"Content-Type", "application/json"}}));
  EXPECT_FALSE(with({{"Content-Type", "text/event-stream"}, {"Content-Encoding", "gzip"}}));
  EXPECT_FALSE(with({}));
}

}  // namespace
}  // namespace quern::gateway
