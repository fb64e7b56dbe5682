#include "runtime/tokenizer/utf8.h"

#include <gtest/gtest.h>

namespace quern {
namespace {

constexpr char kBad[] = "\xef\xbf\xbd";  // U+FFFD

TEST(Utf8, EveryCodePointGoesThereAndBack) {
  for (uint32_t code = 0; code <= 0x10ffff; code += code < 0x3000 ? 1 : 7) {
    if (code >= 0xd800 && code <= 0xdfff) continue;
    std::string text;
    AppendUtf8(code, text);
    ASSERT_EQ(Utf8CharBytes(text), text.size()) << code;
    ASSERT_EQ(DecodeUtf8Char(text, text.size()), code);
  }
}

TEST(Utf8, TheFirstWrongByteIsFound) {
  const std::string ascii(100, 'x');
  EXPECT_EQ(FindInvalidUtf8(""), std::nullopt);
  EXPECT_EQ(FindInvalidUtf8(ascii + "\u00e9\u20ac\U0001f600" + ascii), std::nullopt);
  for (const char* bad :
       {"\x80", "\xc0\xaf", "\xc1\xbf", "\xe0\x80\x80", "\xed\xa0\x80", "\xf0\x80\x80\x80",
        "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xff", "\xe2\x82", "\xf0\x9f\x98"}) {
    EXPECT_EQ(FindInvalidUtf8(ascii + bad), 100u) << bad;
    EXPECT_EQ(FindInvalidUtf8(std::string(bad) + ascii), 0u) << bad;
  }
}

// The examples of table 3-8 of the Unicode standard, and its neighbours.
TEST(Utf8, EachIllFormedPartBecomesOneReplacement) {
  const auto replaced = [](std::string_view bytes) {
    std::string out;
    EXPECT_EQ(AppendReplacingInvalid(bytes, true, out), bytes.size());
    return out;
  };
  const std::string bad = kBad;
  EXPECT_EQ(replaced("\xf1\x80\x80"
                     "\xe1\x80"
                     "\xc2"
                     "a"
                     "\x80"
                     "b"
                     "\x80\xbf"
                     "c"),
            bad + bad + bad + "a" + bad + "b" + bad + bad + "c");
  EXPECT_EQ(replaced("\xed\xa0\x80"
                     "\xed\xbf\xbf"
                     "\xed\xaf"
                     "A"),
            bad + bad + bad + bad + bad + bad + bad + bad + "A");
  EXPECT_EQ(replaced("\xc0\xaf"), bad + bad);
  EXPECT_EQ(replaced("\xf0\x9f\x98"), bad) << "a truncated character is one part";
}

TEST(Utf8, AnUnfinishedCharacterIsLeftUntilItsBytesCome) {
  const std::string text = "a\u00e9\u20ac\U0001f600z";
  for (size_t cut = 0; cut <= text.size(); ++cut) {
    std::string out;
    const size_t taken = AppendReplacingInvalid(std::string_view(text).substr(0, cut), false, out);
    EXPECT_EQ(out, text.substr(0, taken)) << "no replacement";
    EXPECT_LE(cut - taken, 3u);
    EXPECT_EQ(FindInvalidUtf8(out), std::nullopt);
  }
  std::string out;
  EXPECT_EQ(AppendReplacingInvalid("\xe2\x28", false, out), 2u) << "nothing can complete it";
  EXPECT_EQ(out, std::string(kBad) + "(");
}

TEST(Utf8Length, CountsCharactersOfAnyWidth) {
  EXPECT_EQ(Utf8Length(""), 0u);
  EXPECT_EQ(Utf8Length("a\u00e9\u20ac\U0001F600"), 4u);
}

}  // namespace
}  // namespace quern
