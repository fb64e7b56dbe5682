#include "operator/api/time.h"

#include <gtest/gtest.h>

namespace quern::control {
namespace {

TEST(Time, WritesAndReadsRfc3339InUtc) {
  const auto time = ParseTime("2026-02-28T23:59:59Z");
  ASSERT_TRUE(time);
  EXPECT_EQ(FormatTime(*time), "2026-02-28T23:59:59Z");
  EXPECT_EQ(FormatTime(WallTime()), "1970-01-01T00:00:00Z");
}

TEST(Time, CutsFractionsOfMicroTime) {
  const auto time = ParseTime("2026-01-02T03:04:05.678901Z");
  ASSERT_TRUE(time);
  EXPECT_EQ(FormatTime(*time), "2026-01-02T03:04:05Z");
  EXPECT_EQ(*time - *ParseTime("2026-01-02T03:04:05Z"), std::chrono::microseconds(678901));
}

TEST(Time, RefusesWhatIsNoTime) {
  for (const char* bad :
       {"", "2026", "2026-13-01T00:00:00Z", "2026-02-30T00:00:00Z", "2026-01-02T24:00:00Z",
        "2026-01-02T03:04:05", "2026-01-02T03:04:05+01:00", "2026-01-02T03:04:05.Z",
        "2026-01-02T03:04:05Zx", "2026-01-02 03:04:05Z"}) {
    EXPECT_FALSE(ParseTime(bad)) << bad;
  }
}

TEST(Duration, AddsUpItsParts) {
  EXPECT_EQ(ParseDuration("90s"), std::chrono::seconds(90));
  EXPECT_EQ(ParseDuration("1h2m3s"), std::chrono::seconds(3723));
  EXPECT_EQ(ParseDuration("0s"), std::chrono::seconds(0));
}

TEST(Duration, RefusesWhatTheSchemaRefuses) {
  for (const char* bad : {"", "5", "s", "1.5s", "-5s", "100ms", "123456s", "1s2s3s4s", "5 s"}) {
    EXPECT_FALSE(ParseDuration(bad)) << bad;
  }
}

}  // namespace
}  // namespace quern::control
