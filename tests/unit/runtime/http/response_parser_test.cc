#include "runtime/http/response_parser.h"

#include <gtest/gtest.h>

namespace quern::http {
namespace {

struct Read {
  std::optional<ReceivedHead> head;
  std::string body;
  bool done = false;
  bool reusable = false;
  std::string error;
};

Read ReadPieces(std::string_view bytes, size_t piece, bool of_head = false) {
  ResponseParser parser(of_head);
  Read read;
  for (size_t at = 0; at < bytes.size() && !read.done; at += piece) {
    auto progress = parser.Feed(bytes.substr(at, piece));
    if (!progress) {
      read.error = progress.error().message;
      return read;
    }
    if (progress->head) read.head = *progress->head;
    for (const auto part : progress->body) read.body += part;
    read.done = progress->done;
  }
  read.reusable = parser.reusable();
  if (!read.done) {
    const Status end = parser.End();
    read.done = end.ok();
    if (!end) read.error = end.error().message;
  }
  return read;
}

class InPieces : public testing::TestWithParam<size_t> {};
INSTANTIATE_TEST_SUITE_P(All, InPieces, testing::Values(1, 2, 3, 5, 11, 10'000));

TEST_P(InPieces, LengthChunksAndEnd) {
  const Read length =
      ReadPieces("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX: y\r\n\r\nhello", GetParam());
  EXPECT_TRUE(length.done && length.reusable) << length.error;
  EXPECT_EQ(length.body, "hello");
  EXPECT_EQ(length.head->length, 5u);
  EXPECT_EQ(*FindHeader(length.head->headers, "x"), "y");

  const Read chunks = ReadPieces(
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n3;x=y\r\nbcd\r\n0\r\nT: "
      "1\r\n\r\n",
      GetParam());
  EXPECT_TRUE(chunks.done && chunks.reusable) << chunks.error;
  EXPECT_EQ(chunks.body, "abcd");
  EXPECT_FALSE(chunks.head->length);
  EXPECT_FALSE(FindHeader(chunks.head->headers, "T"));

  const Read to_end = ReadPieces("HTTP/1.1 200 OK\r\n\r\nall", GetParam());
  EXPECT_TRUE(to_end.done) << to_end.error;
  EXPECT_FALSE(to_end.reusable);
  EXPECT_EQ(to_end.body, "all");
}

TEST_P(InPieces, InterimAnswersAndAnswersWithoutBody) {
  const Read interim = ReadPieces(
      "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
      "HTTP/1.1 204 No Content\r\nX: y\r\n\r\n",
      GetParam());
  EXPECT_TRUE(interim.done && interim.reusable) << interim.error;
  EXPECT_EQ(interim.head->status, 204);
  EXPECT_FALSE(FindHeader(interim.head->headers, "Link"));

  const Read of_head =
      ReadPieces("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", GetParam(), /*of_head=*/true);
  EXPECT_TRUE(of_head.done && of_head.reusable);
  EXPECT_EQ(of_head.head->length, 5u);
}

TEST_P(InPieces, CutAndBadAnswersAreErrors) {
  for (const char* bytes :
       {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell", "HTTP/1.1 200 OK\r\nConte",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\nhello\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        "HTTP/1.1 101 Switching Protocols\r\n\r\n", "garbage\r\n\r\n"}) {
    const Read read = ReadPieces(bytes, GetParam());
    EXPECT_FALSE(read.error.empty()) << bytes;
  }
}

TEST(ResponseParser, ConnectionIsNotKeptAfterMoreThanTheAnswer) {
  EXPECT_FALSE(ReadPieces("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab", 1000).reusable);
  EXPECT_FALSE(
      ReadPieces("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\na", 1000)
          .reusable);
}

TEST(ResponseParser, WhatItHoldsIsBounded) {
  const std::string endless = "HTTP/1.1 200 OK\r\nX: " + std::string(100'000, 'x');
  EXPECT_NE(ReadPieces(endless, 1000).error, "");
  std::string interim;
  for (int i = 0; i < 100; ++i) interim += "HTTP/1.1 100 Continue\r\n\r\n";
  EXPECT_NE(ReadPieces(interim, 1000).error.find("interim"), std::string::npos);
  const std::string chunk =
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;" + std::string(100'000, 'x');
  EXPECT_NE(ReadPieces(chunk, 1000).error, "");
}

}  // namespace
}  // namespace quern::http
