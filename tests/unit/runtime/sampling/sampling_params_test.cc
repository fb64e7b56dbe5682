#include "runtime/sampling/sampling_params.h"

#include <gtest/gtest.h>

#include <cmath>

namespace quern {
namespace {

TEST(SamplingParams, TheDefaultsAndTheEndsOfTheRangesAreValid) {
  EXPECT_TRUE(ValidateSamplingParams({}).ok());
  EXPECT_TRUE(
      ValidateSamplingParams({.temperature = 0, .top_p = 1e-6f, .top_k = 0, .min_p = 0}).ok());
  EXPECT_TRUE(
      ValidateSamplingParams({.temperature = 2, .top_p = 1, .top_k = INT32_MAX, .min_p = 0.999f})
          .ok());
}

TEST(SamplingParams, AnErrorNamesTheFieldItsValueAndItsRange) {
  const Status status = ValidateSamplingParams({.temperature = 2.5f});
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(status.error().message, "temperature is 2.5; it must be between 0 and 2");
}

TEST(SamplingParams, ValuesOutOfRangeAndNanAreRefused) {
  EXPECT_FALSE(ValidateSamplingParams({.temperature = -0.1f}).ok());
  EXPECT_FALSE(ValidateSamplingParams({.temperature = NAN}).ok());
  EXPECT_FALSE(ValidateSamplingParams({.top_p = 0}).ok());
  EXPECT_FALSE(ValidateSamplingParams({.top_p = 1.01f}).ok());
  EXPECT_FALSE(ValidateSamplingParams({.top_p = NAN}).ok());
  EXPECT_FALSE(ValidateSamplingParams({.top_k = -1}).ok());
  EXPECT_FALSE(ValidateSamplingParams({.min_p = 1}).ok());
  EXPECT_FALSE(ValidateSamplingParams({.min_p = -0.1f}).ok());
  EXPECT_FALSE(ValidateSamplingParams({.min_p = INFINITY}).ok());
  for (const float bad : {-2.1f, 2.1f, NAN}) {
    EXPECT_FALSE(ValidateSamplingParams({.frequency_penalty = bad}).ok());
    EXPECT_FALSE(ValidateSamplingParams({.presence_penalty = bad}).ok());
  }
  for (const float bad : {0.0f, -1.0f, 10.5f, NAN}) {
    EXPECT_FALSE(ValidateSamplingParams({.repetition_penalty = bad}).ok());
  }
  for (const float bad : {0.0f, 1.5f, NAN}) {
    EXPECT_FALSE(ValidateSamplingParams({.typical_p = bad}).ok());
  }
  for (const float bad : {-100.5f, 101.0f, NAN}) {
    EXPECT_FALSE(ValidateSamplingParams({.logit_bias = {{1, 0}, {2, bad}}}).ok());
  }
  SamplingParams many;
  many.logit_bias.resize(kMaxLogitBiases + 1);
  EXPECT_FALSE(ValidateSamplingParams(many).ok());
}

}  // namespace
}  // namespace quern
