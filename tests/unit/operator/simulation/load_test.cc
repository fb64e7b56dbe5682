#include "operator/simulation/load.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace quern::simulation {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr char kTrace[] =
    "{\"timestamp\": 0, \"input_length\": 600, \"output_length\": 5, \"hash_ids\": [1, 2]}\n"
    "{\"timestamp\": 2000, \"input_length\": 10, \"output_length\": 7, \"hash_ids\": [1]}\n"
    "{\"timestamp\": 4000, \"input_length\": 20, \"output_length\": 9}\n";

std::vector<double> Times(const Load& load) {
  std::vector<double> times;
  for (const auto& request : load) times.push_back(request.at);
  return times;
}

TEST(Load, SpeedDividesTimesAndRepeatGoesOnAfterAMeanGap) {
  const auto load = LoadFromText(kTrace, {.speed = 2, .repeat = 2});
  ASSERT_TRUE(load.ok()) << load.error().message;
  EXPECT_THAT(Times(*load), ElementsAre(0, 1, 2, 3, 4, 5));
  EXPECT_EQ((*load)[3].output_tokens, 5);
  EXPECT_THAT((*load)[3].blocks, ElementsAre(1, 2));
}

TEST(Load, CopiesComeWithinASecondAndShareNothingWithTheFirst) {
  const auto load = LoadFromText(kTrace, {.copies = 3, .seed = 4});
  ASSERT_TRUE(load.ok()) << load.error().message;
  ASSERT_EQ(load->size(), 9U);
  int with_block_1 = 0;
  for (size_t i = 0; i < load->size(); ++i) {
    EXPECT_GE((*load)[i].at, 2.0 * static_cast<double>(i / 3));
    EXPECT_LE((*load)[i].at, 2.0 * static_cast<double>(i / 3) + kCopySpread);
    const auto& blocks = (*load)[i].blocks;
    with_block_1 += !blocks.empty() && blocks[0] == 1;
  }
  EXPECT_EQ(with_block_1, 2);
  // Those of one copy share among themselves as the trace's do.
  const auto again = LoadFromText(kTrace, {.copies = 3, .seed = 4});
  EXPECT_EQ(Times(*load), Times(*again));
}

TEST(Load, ABadLineIsNamed) {
  const auto load = LoadFromText("TIMESTAMP,ContextTokens,GeneratedTokens\n0,1,1\n1,x,1\n", {});
  ASSERT_FALSE(load.ok());
  EXPECT_THAT(load.error().message, HasSubstr("line 3"));
}

// Nanoseconds for seconds, for one: ticks would never come to its end.
TEST(Load, OneOfMoreThanAYearIsRefused) {
  const std::string text = "TIMESTAMP,ContextTokens,GeneratedTokens\n0,1,1\n1.7e18,1,1\n";
  const auto load = LoadFromText(text, {});
  ASSERT_FALSE(load.ok());
  EXPECT_THAT(load.error().message, HasSubstr("more than a year"));
  EXPECT_FALSE(LoadFromText(text, {.speed = 1e-300}).ok());
  EXPECT_TRUE(LoadFromText(text, {.speed = 1e12}).ok());
}

TEST(Load, TooManyPrefixBlocksAreRefused) {
  std::vector<bench::TraceRequest> trace(1);
  trace[0].prompt_tokens = trace[0].output_tokens = 1;
  trace[0].blocks.resize(1000);
  const auto load = MakeLoad(trace, {.copies = 200'000});
  ASSERT_FALSE(load.ok());
  EXPECT_THAT(load.error().message, HasSubstr("prefix blocks"));
}

TEST(Load, TooManyRequestsAreRefused) {
  const auto load = LoadFromText(kTrace, {.repeat = 1'000'000, .copies = 1000});
  ASSERT_FALSE(load.ok());
  EXPECT_THAT(load.error().message, HasSubstr("--repeat"));
}

}  // namespace
}  // namespace quern::simulation
