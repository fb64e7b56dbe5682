#include "runtime/engine/token_rate.h"

#include <gtest/gtest.h>

namespace quern {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

TEST(TokenRate, IsTheSumOfTheLastTenSecondsOverTen) {
  const SteadyTime start{};
  TokenRate rate(start);
  for (int second = 0; second < 60; ++second) rate.Add(start + seconds(second), 20);
  EXPECT_NEAR(rate.PerSecond(start + seconds(59) + milliseconds(950)), 20.0, 1e-9);
}

TEST(TokenRate, EarlyOnIsOverTheTimeSinceTheStart) {
  const SteadyTime start{};
  TokenRate rate(start);
  rate.Add(start + milliseconds(100), 30);
  EXPECT_NEAR(rate.PerSecond(start + milliseconds(200)), 30.0, 1e-9);
  EXPECT_NEAR(rate.PerSecond(start + seconds(3)), 10.0, 1e-9);
}

TEST(TokenRate, FallsToZeroWhenNothingComes) {
  const SteadyTime start{};
  TokenRate rate(start);
  rate.Add(start + seconds(20), 500);
  EXPECT_NEAR(rate.PerSecond(start + seconds(29)), 50.0, 1e-9);
  EXPECT_EQ(rate.PerSecond(start + seconds(31)), 0.0);
  EXPECT_EQ(rate.PerSecond(start + seconds(100000)), 0.0);
}

TEST(TokenRate, ATimeThatLagsByALittleIsHarmless) {
  const SteadyTime start{};
  TokenRate rate(start);
  rate.Add(start + seconds(20), 100);
  rate.Add(start + milliseconds(19950), 100);
  EXPECT_NEAR(rate.PerSecond(start + milliseconds(19900)), 20.0, 1e-9);
}

}  // namespace
}  // namespace quern
