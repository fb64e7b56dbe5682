#include "operator/autoscaling/windows.h"

#include <gtest/gtest.h>

#include <vector>

namespace quern::control {
namespace {

PodSample At(Millis time, double generated) {
  PodSample sample;
  sample.time = time;
  sample.counters[PodCounters::kGeneratedTokens] = generated;
  return sample;
}

double Generated(const PodWindows& windows, Millis now, Millis window) {
  return windows.Increase(now, window).increase[PodCounters::kGeneratedTokens];
}

TEST(PodWindows, ASinglePodsFirstSampleIsItsBaseline) {
  PodWindows windows(60'000);
  windows.Add("a", 0, At(1000, 500));
  EXPECT_EQ(Generated(windows, 1000, 60'000), 0);
  windows.Add("a", 0, At(3000, 520));
  EXPECT_DOUBLE_EQ(Generated(windows, 3000, 60'000), 20);
  EXPECT_DOUBLE_EQ(windows.Increase(3000, 60'000).covered_seconds, 2);
}

TEST(PodWindows, APodThatStartedLaterCountsFromZero) {
  PodWindows windows(60'000);
  windows.Add("a", 0, At(1000, 500));
  windows.Add("b", 4000, At(6000, 30));
  EXPECT_DOUBLE_EQ(Generated(windows, 6000, 60'000), 30);
}

TEST(PodWindows, ACounterThatFallsWasReset) {
  PodWindows windows(60'000);
  windows.Add("a", 0, At(1000, 500));
  windows.Add("a", 0, At(3000, 7));
  EXPECT_DOUBLE_EQ(Generated(windows, 3000, 60'000), 7);
}

TEST(PodWindows, MissedScrapesMakeNoBurst) {
  PodWindows windows(60'000);
  windows.Add("a", 0, At(0, 0));
  windows.Add("a", 0, At(40'000, 400));  // 10 a second, seen late
  EXPECT_DOUBLE_EQ(Generated(windows, 40'000, 10'000), 100);
}

TEST(PodWindows, APairReachesOverTheWindowsEdge) {
  PodWindows windows(10'000);
  for (Millis t = 0; t <= 30'000; t += 4000) windows.Add("a", 0, At(t, static_cast<double>(t)));
  windows.Trim(28'000);
  EXPECT_DOUBLE_EQ(Generated(windows, 28'000, 10'000), 10'000);
}

TEST(PodWindows, APodThatWentKeepsItsTokensUntilTheWindowHasMovedOn) {
  PodWindows windows(10'000);
  windows.Add("a", 0, At(0, 0));
  windows.Add("a", 0, At(5000, 50));
  windows.Trim(9000);
  EXPECT_DOUBLE_EQ(Generated(windows, 9000, 10'000), 50);
  windows.Trim(16'000);
  EXPECT_EQ(windows.pods(), 0u);
  EXPECT_EQ(Generated(windows, 16'000, 10'000), 0);
}

TEST(PodWindows, SamplesOutOfOrderAreIgnored) {
  PodWindows windows(10'000);
  windows.Add("a", 0, At(5000, 50));
  windows.Add("a", 0, At(5000, 60));
  windows.Add("a", 0, At(4000, 10));
  EXPECT_EQ(windows.Last("a")->counters[PodCounters::kGeneratedTokens], 50);
  EXPECT_EQ(windows.Last("b"), nullptr);
}

TEST(PodWindows, AnHourIsCoveredWholeWithinTheBound) {
  constexpr Millis kHour = 3'600'000;
  PodWindows windows(kHour);
  double served = 0;
  std::vector<double> total;  // at each sample
  for (Millis t = 0; t <= 2 * kHour; t += 2000) {
    const bool restart = t % 600'000 == 0;
    if (restart) served = 0;
    const double added = t % 120'000 < 60'000 ? 20 : 4;  // a minute of much, a minute of little
    served += added;
    total.push_back((total.empty() ? 0 : total.back()) + added);
    windows.Add("a", 0, At(t, served));
    windows.Trim(t);
    ASSERT_LE(windows.samples("a"), PodWindows::kMaxSamplesPerPod);
  }
  const Millis end = 2 * kHour;
  const auto really = [&](Millis window) {
    return total.back() - total[static_cast<size_t>((end - window) / 2000)];
  };
  EXPECT_DOUBLE_EQ(windows.Increase(end, kHour).covered_seconds, 3600);
  EXPECT_NEAR(Generated(windows, end, 10'000), really(10'000), 1e-6);  // as sharp as ever
  EXPECT_NEAR(Generated(windows, end, 100'000), really(100'000), 1e-6);
  for (const Millis window : {kHour, kHour / 2, kHour / 3 + 60'000})
    EXPECT_NEAR(Generated(windows, end, window), really(window), 4 * 20);  // 4 samples at the edge
}

TEST(PodWindows, AreBounded) {
  PodWindows windows(1'000'000'000);
  for (Millis t = 0; t < 2000; ++t) windows.Add("a", 0, At(t, static_cast<double>(t)));
  EXPECT_EQ(windows.samples("a"), PodWindows::kMaxSamplesPerPod);
  EXPECT_DOUBLE_EQ(Generated(windows, 2000, 1'000'000), 1999);  // thinned out, but nothing is lost
  for (size_t i = 0; i < PodWindows::kMaxPods + 5; ++i)
    windows.Add("p" + std::to_string(i), 0, At(1, 1));
  EXPECT_EQ(windows.pods(), PodWindows::kMaxPods);
}

}  // namespace
}  // namespace quern::control
