#include "runtime/engine/text_stream.h"

#include <gtest/gtest.h>

#include "tests/unit/runtime/engine/byte_tokenizer.h"

namespace quern {
namespace {

TEST(TextStream, AStopStringAcrossTokenBordersEndsTheTextBeforeIt) {
  const ByteTokenizer tokenizer;
  TextStream stream(tokenizer, {"END."});
  EXPECT_EQ(stream.Push('a'), "a");
  EXPECT_EQ(stream.Push(260), "x") << "xEN: the x is certain, EN could begin the stop string";
  EXPECT_EQ(stream.Push(261), "") << "D. completes it";
  EXPECT_TRUE(stream.stopped());
}

TEST(TextStream, AnUnfinishedCharacterIsHeldBackAndShownAsReplacementAtTheEnd) {
  const ByteTokenizer tokenizer;
  TextStream stream(tokenizer, {});
  EXPECT_EQ(stream.Push(0xE2), "");
  EXPECT_EQ(stream.Push(0x82), "");
  EXPECT_EQ(stream.Push(0xAC), "\xE2\x82\xAC");
  EXPECT_EQ(stream.Push(0xE2), "");
  EXPECT_EQ(stream.Finish(), "\xEF\xBF\xBD");
}

TEST(TextStream, AStopStringOfMultiByteCharactersIsFoundWhenItsBytesComeOneByOne) {
  const ByteTokenizer tokenizer;
  TextStream stream(tokenizer, {"\xE2\x82\xAC!"});
  std::string text;
  for (const TokenId token : {0x41, 0xE2, 0x82, 0xAC}) text += stream.Push(token);
  EXPECT_EQ(text, "A");
  EXPECT_FALSE(stream.stopped());
  stream.Push('!');
  EXPECT_TRUE(stream.stopped());
}

TEST(TextStream, FinishGivesOutWhatOnlyLookedLikeAStopString) {
  const ByteTokenizer tokenizer;
  TextStream stream(tokenizer, {"END."});
  EXPECT_EQ(stream.Push(260), "x");
  EXPECT_EQ(stream.Finish(), "EN");
}

}  // namespace
}  // namespace quern
