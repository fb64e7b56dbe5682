#include "runtime/bench/trace.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace quern::bench {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

TEST(Trace, AzuresCsvIsReadAndItsTimesCountFromTheFirst) {
  const auto trace = ParseTrace(
      "TIMESTAMP,ContextTokens,GeneratedTokens\r\n"
      "2023-11-16 23:59:59.9000000,4808,10\r\n"
      "2023-11-17 00:00:01.4,110,0\n\n");
  ASSERT_TRUE(trace.ok()) << trace.error().message;
  ASSERT_EQ(trace->size(), 2U);
  EXPECT_EQ((*trace)[0].at, 0);
  EXPECT_EQ((*trace)[0].prompt_tokens, 4808);
  EXPECT_EQ((*trace)[0].output_tokens, 10);
  EXPECT_NEAR((*trace)[1].at, 1.5, 1e-6);
  EXPECT_EQ((*trace)[1].output_tokens, 1);  // 0: no answer is without a token
}

TEST(Trace, ColumnsMayBeInAnyOrderAndHaveOtherNames) {
  const auto trace = ParseTrace(
      "Response tokens,Model,Timestamp,Request tokens\n"
      "7,GPT-4,12.5,30\n"
      "8,GPT-4,2.5,31");
  ASSERT_TRUE(trace.ok()) << trace.error().message;
  ASSERT_EQ(trace->size(), 2U);
  EXPECT_EQ((*trace)[0].prompt_tokens, 31);  // sorted by time
  EXPECT_EQ((*trace)[1].at, 10);
  EXPECT_EQ((*trace)[1].output_tokens, 7);
}

TEST(Trace, MooncakesJsonlIsReadWithItsBlocks) {
  const auto trace = ParseTrace(
      R"({"timestamp": 500, "input_length": 600, "output_length": 6, "hash_ids": [3, 9]})"
      "\n"
      R"({"timestamp": 1750, "input_length": 13, "output_length": 2})");
  ASSERT_TRUE(trace.ok()) << trace.error().message;
  ASSERT_EQ(trace->size(), 2U);
  EXPECT_THAT((*trace)[0].blocks, ElementsAre(3, 9));
  EXPECT_THAT((*trace)[1].blocks, IsEmpty());
  EXPECT_EQ((*trace)[1].at, 1.25);
}

TEST(Trace, OnlyTheFirstRequestsAreReadWhereSoManyAreWanted) {
  const auto trace = ParseTrace("timestamp,input_length,output_length\n1,2,3\nbroken", 1);
  ASSERT_TRUE(trace.ok());
  EXPECT_EQ(trace->size(), 1U);
}

TEST(Trace, AMistakeIsNamedWithItsLine) {
  const std::string head = "TIMESTAMP,ContextTokens,GeneratedTokens\n1,2,3\n";
  const std::vector<std::pair<std::string, std::string>> wrong = {
      {"", "empty"},
      {"TIMESTAMP,GeneratedTokens\n", "ContextTokens"},
      {head.substr(0, 40), "no requests"},
      {head + "1,2\n", "line 3: it has 2 fields"},
      {head + "\n2023-13-01 00:00:00,2,3\n", "line 4: '2023-13-01 00:00:00' is no time"},
      {head + "2023-02-30 00:00:00,2,3\n", "line 3"},
      {head + "nan,2,3\n", "line 3"},
      {head + "1,-2,3\n", "lengths are from 0"},
      {head + "1,2,3.5\n", "GeneratedTokens: '3.5'"},
      {head + "1,2,99999999999999999999\n", "line 3"},
      {"{\"timestamp\": 1}", "line 1: \"input_length\""},
      {"{\"timestamp\": \"1\", \"input_length\": 1, \"output_length\": 1}", "\"timestamp\""},
      {"{\"timestamp\": 1, \"input_length\": 18446744073709551615, \"output_length\": 1}",
       "input_length is 10000001"},
      {"{\"timestamp\": 1, \"input_length\": 1, \"output_length\": 1, \"hash_ids\": [0.5]}",
       "hash_ids"},
      {"{\"timestamp\": 1, \"input_length\"", "line 1: it is no JSON object"},
  };
  for (const auto& [text, message] : wrong) {
    const auto trace = ParseTrace(text);
    ASSERT_FALSE(trace.ok()) << text;
    EXPECT_EQ(trace.error().code, ErrorCode::kInvalidArgument);
    EXPECT_THAT(trace.error().message, HasSubstr(message)) << text;
  }
}

}  // namespace
}  // namespace quern::bench
