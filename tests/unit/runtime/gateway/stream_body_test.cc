#include "runtime/gateway/stream_body.h"

#include <gtest/gtest.h>

#include <random>

namespace quern::gateway {
namespace {

TEST(AsksForStream, OnlyWhereTheOutermostMemberIsTrue) {
  EXPECT_TRUE(AsksForStream(R"({"stream": true})"));
  EXPECT_TRUE(AsksForStream(" {\"messages\":[{\"stream\":false}],\"stream\":true,\"n\":[1,{}]}\n"));
  for (const std::string_view body :
       {"", "[]", "true", R"("stream")", R"({"stream":false})", R"({"stream":"true"})",
        R"({"a":{"stream":true}})", R"([{"stream":true}])", R"({"stream":true)",
        R"({"stream":[true]})", R"({"x":"\"stream\":true"})"}) {
    EXPECT_FALSE(AsksForStream(body)) << body;
  }
  EXPECT_FALSE(
      AsksForStream("{\"a\":" + std::string(1'000'000, '[')));  // deep, and no stack is met
}

TEST(EventHold, KeepsTheBeginningOfAnEvent) {
  EventHold hold;
  EXPECT_EQ(hold.Feed("data: 1\n\ndata: 2"), "data: 1\n\n");
  EXPECT_TRUE(hold.at_boundary());
  EXPECT_EQ(hold.Feed("2\n"), "");
  EXPECT_EQ(hold.Feed("\n"), "data: 22\n\n");
  EXPECT_EQ(hold.Feed("data: 3\n\n"), "data: 3\n\n");
  EXPECT_EQ(hold.Feed("data: 4\r\n\r"), "");
  EXPECT_EQ(hold.Feed("\ndata: 5\r\r"), "data: 4\r\n\r\ndata: 5\r\r");
  EXPECT_EQ(hold.Feed("tail"), "");
  EXPECT_EQ(hold.Rest(), "tail");
}

TEST(EventHold, TooLongAnEventGoesOnInPieces) {
  EventHold hold(/*max_held=*/8);
  EXPECT_EQ(hold.Feed("data: a"), "");
  EXPECT_EQ(hold.Feed("bc"), "data: abc");
  EXPECT_FALSE(hold.at_boundary());
  EXPECT_EQ(hold.Feed("de\n\nx"), "de\n\n");
  EXPECT_TRUE(hold.at_boundary());
}

// However the bytes are cut, the same ones come out, and while nothing is too long all that has
// come out ends where an event does.
TEST(EventHold, BytesAreNotChanged) {
  std::random_device device;
  const unsigned seed = device();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  const std::string letters = "ab\n\r";
  for (int round = 0; round < 2000; ++round) {
    std::string text, out;
    for (size_t i = random() % 60; i > 0; --i) text += letters[random() % letters.size()];
    EventHold hold;
    for (size_t at = 0; at < text.size();) {
      const size_t piece = 1 + random() % 6;
      out += hold.Feed(std::string_view(text).substr(at, piece));
      at += piece;
      ASSERT_TRUE(out.empty() || out.ends_with("\n\n") || out.ends_with("\n\r\n") ||
                  out.ends_with("\r\r"))
          << testing::PrintToString(text);
    }
    out += hold.Rest();
    ASSERT_EQ(out, text);
  }
}

}  // namespace
}  // namespace quern::gateway
