#include "runtime/engine/stop_matcher.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

namespace quern {
namespace {

// What a stop string leaves of `text`, by looking for every one of them at every end.
std::string OracleText(const std::string& text, const std::vector<std::string>& stops,
                       bool* found) {
  for (size_t end = 1; end <= text.size(); ++end) {
    size_t longest = 0;
    for (const std::string& stop : stops) {
      if (end >= stop.size() && text.compare(end - stop.size(), stop.size(), stop) == 0) {
        longest = std::max(longest, stop.size());
      }
    }
    if (longest > 0) {
      *found = true;
      return text.substr(0, end - longest);
    }
  }
  *found = false;
  return text;
}

TEST(StopMatcher, WithoutStopStringsTextPassesStraightThrough) {
  StopMatcher matcher({});
  EXPECT_EQ(matcher.Push("hello"), "hello");
  EXPECT_EQ(matcher.Flush(), "");
}

TEST(StopMatcher, HoldsBackWhatCouldBeTheBeginningOfAStopString) {
  StopMatcher matcher({"END"});
  EXPECT_EQ(matcher.Push("the E"), "the ");
  EXPECT_EQ(matcher.Push("N"), "");
  EXPECT_EQ(matcher.Push("E"), "EN");
  EXPECT_EQ(matcher.Push("x"), "Ex");
  EXPECT_FALSE(matcher.found());
}

TEST(StopMatcher, EndsTheTextBeforeAStopStringThatSpansPieces) {
  StopMatcher matcher({"END"});
  EXPECT_EQ(matcher.Push("abcE"), "abc");
  EXPECT_EQ(matcher.Push("N"), "");
  EXPECT_EQ(matcher.Push("D and more"), "");
  EXPECT_TRUE(matcher.found());
  EXPECT_EQ(matcher.Flush(), "");
}

TEST(StopMatcher, FlushGivesOutABeginningThatWasNeverCompleted) {
  StopMatcher matcher({"END"});
  EXPECT_EQ(matcher.Push("xEN"), "x");
  EXPECT_EQ(matcher.Flush(), "EN");
}

TEST(StopMatcher, TheFirstStopStringToBeCompleteWins) {
  StopMatcher matcher({"abcd", "bc"});
  EXPECT_EQ(matcher.Push("xabcd"), "xa");
  EXPECT_TRUE(matcher.found());
}

TEST(StopMatcher, OfTwoCompleteAtTheSameByteTheLongerWins) {
  StopMatcher matcher({"cd", "bcd"});
  EXPECT_EQ(matcher.Push("xabcd"), "xa");
}

TEST(StopMatcher, FindsAStopStringThatOverlapsItself) {
  StopMatcher matcher({"aab"});
  EXPECT_EQ(matcher.Push("aaa"), "a");
  EXPECT_EQ(matcher.Push("b"), "");
  EXPECT_TRUE(matcher.found());
}

TEST(StopMatcher, GivesTheSameTextWhereverItIsCut) {
  std::mt19937 random(5);
  const auto word = [&](size_t low, size_t high) {
    std::string text(low + random() % (high - low + 1), 'a');
    for (char& c : text) c = static_cast<char>('a' + random() % 2);
    return text;
  };
  int stopped = 0;
  for (int i = 0; i < 5000; ++i) {
    std::vector<std::string> stops;
    for (size_t n = 1 + random() % 3; n > 0; --n) stops.push_back(word(2, 9));
    const std::string text = word(0, 60);
    bool expect_found = false;
    const std::string expected = OracleText(text, stops, &expect_found);
    StopMatcher matcher(stops);
    std::string got;
    for (size_t at = 0; at < text.size() && !matcher.found();) {
      const size_t length = std::min<size_t>(random() % 6, text.size() - at);
      got += matcher.Push(text.substr(at, length));
      at += length;
      ASSERT_EQ(expected.substr(0, got.size()), got) << "gave out text too early";
    }
    if (!matcher.found()) got += matcher.Flush();
    ASSERT_EQ(got, expected) << text;
    ASSERT_EQ(matcher.found(), expect_found);
    stopped += expect_found ? 1 : 0;
  }
  EXPECT_GT(stopped, 1000);
  EXPECT_LT(stopped, 4900);
}

}  // namespace
}  // namespace quern
