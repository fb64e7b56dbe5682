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
  LatencyWindow window;
  window.Add("a", {{1, 100}, {INFINITY, 100}}, 0);
  EXPECT_TRUE(window.Sum().empty());
  window.Add("a", {{1, 103}, {INFINITY, 104}}, 2000);
  EXPECT_EQ(window.Sum(), (Buckets{{1, 3}, {INFINITY, 4}}));
}

TEST(LatencyWindow, ARestartedPodCountsFromZero) {
  LatencyWindow window;
  window.Add("a", {{1, 100}, {INFINITY, 100}}, 0);
  window.Add("a", {{1, 2}, {INFINITY, 2}}, 2000);
  EXPECT_EQ(window.Sum(), (Buckets{{1, 2}, {INFINITY, 2}}));
}

TEST(LatencyWindow, ForgetsWhatLiesBeforeTheWindow) {
  LatencyWindow window;
  window.Add("a", {{INFINITY, 0}}, 0);
  window.Add("a", {{INFINITY, 5}}, 1000);
  window.Add("a", {{INFINITY, 7}}, 21'000);
  window.Trim(30'000, 20'000);
  EXPECT_EQ(window.Sum(), (Buckets{{INFINITY, 2}}));
}

TEST(LatencyWindow, ARetiredPodsBaselineGoesButNotItsCounts) {
  LatencyWindow window;
  window.Add("a", {{INFINITY, 0}}, 0);
  window.Add("a", {{INFINITY, 5}}, 1000);
  window.Retain({"b"});
  EXPECT_EQ(window.Sum(), (Buckets{{INFINITY, 5}}));
  window.Add("a", {{INFINITY, 9}}, 2000);
  EXPECT_EQ(window.Sum(), (Buckets{{INFINITY, 5}}));
}

}  // namespace
}  // namespace quern::control
