#include "operator/metrics/latency.h"

#include <gtest/gtest.h>

#include <cmath>

namespace quern::control {
namespace {

TEST(Percentile, InterpolatesWithinTheBucket) {
  const Buckets buckets = {{0.1, 50}, {0.2, 100}, {INFINITY, 100}};
  EXPECT_DOUBLE_EQ(*Percentile(buckets, 0.5), 0.1);
  EXPECT_DOUBLE_EQ(*Percentile(buckets, 0.75), 0.15);
  EXPECT_DOUBLE_EQ(*Percentile(buckets, 0.25), 0.05);
}

TEST(Percentile, AboveAllBoundsIsTheLastBound) {
  EXPECT_DOUBLE_EQ(*Percentile({{0.1, 1}, {INFINITY, 10}}, 0.95), 0.1);
}

TEST(Percentile, OfNothingIsNothing) {
  EXPECT_FALSE(Percentile({}, 0.5));
  EXPECT_FALSE(Percentile({{0.1, 0}, {INFINITY, 0}}, 0.5));
}

TEST(LatencyWindow, CountsIncreasesFromTheFirstScrapeOn) {
  LatencyWindow window(60'000);
  window.Add("a", {{1, 100}, {INFINITY, 100}}, 0);
  EXPECT_TRUE(window.Sum().empty());
  window.Add("a", {{1, 103}, {INFINITY, 104}}, 2000);
  EXPECT_EQ(window.Sum(), (Buckets{{1, 3}, {INFINITY, 4}}));
}

TEST(LatencyWindow, ARestartedPodCountsFromZero) {
  LatencyWindow window(60'000);
  window.Add("a", {{1, 100}, {INFINITY, 100}}, 0);
  window.Add("a", {{1, 2}, {INFINITY, 2}}, 2000);
  EXPECT_EQ(window.Sum(), (Buckets{{1, 2}, {INFINITY, 2}}));
}

TEST(LatencyWindow, ForgetsWhatLiesBeforeTheWindow) {
  LatencyWindow window(20'000);
  window.Add("a", {{INFINITY, 0}}, 0);
  window.Add("a", {{INFINITY, 5}}, 1000);
  window.Add("a", {{INFINITY, 7}}, 21'000);
  window.Trim(30'000);
  EXPECT_EQ(window.Sum(), (Buckets{{INFINITY, 2}}));
}

TEST(LatencyWindow, ARetiredPodsBaselineGoesButNotItsCounts) {
  LatencyWindow window(60'000);
  window.Add("a", {{INFINITY, 0}}, 0);
  window.Add("a", {{INFINITY, 5}}, 1000);
  window.Retain({"b"});
  EXPECT_EQ(window.Sum(), (Buckets{{INFINITY, 5}}));
  window.Add("a", {{INFINITY, 9}}, 2000);
  EXPECT_EQ(window.Sum(), (Buckets{{INFINITY, 5}}));
}

TEST(LatencyWindow, IsBoundedWhateverBoundsAPodShows) {
  constexpr Millis kHour = 3'600'000;
  LatencyWindow window(kHour);
  for (Millis t = 0; t <= 2 * kHour; t += 2000) {
    Buckets page;  // other bounds each time, as many as a page may have
    for (size_t i = 0; i < LatencyWindow::kMaxBuckets; ++i)
      page[static_cast<double>(t) + static_cast<double>(i)] = 1;
    window.Add("a", page, t);
    window.Trim(t);
  }
  EXPECT_LE(window.slots(), static_cast<size_t>(LatencyWindow::kSlots) + 2);
  EXPECT_LE(window.largest_slot(), LatencyWindow::kMaxBuckets);
  EXPECT_LE(window.Sum().size(), LatencyWindow::kMaxBuckets);
}

}  // namespace
}  // namespace quern::control
