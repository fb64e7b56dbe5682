#include "runtime/server/units.h"

#include <gtest/gtest.h>

namespace quern::server {
namespace {

TEST(Units, SizesTakeBinaryAndDecimalUnits) {
  EXPECT_EQ(*ParseBytes("512MiB"), int64_t{512} << 20);
  EXPECT_EQ(*ParseBytes("1.5GiB"), int64_t{3} << 29);
  EXPECT_EQ(*ParseBytes("2Gi"), int64_t{2} << 30);
  EXPECT_EQ(*ParseBytes("800MB"), 800'000'000);
  EXPECT_EQ(*ParseBytes("64k"), 64'000);
  EXPECT_EQ(*ParseBytes("12345"), 12345);
}

TEST(Units, WhatIsNoSizeIsRefusedWithAnExample) {
  for (const char* text :
       {"", "MiB", "-1", "1XiB", "1 MiB", "nan", "inf", "1e400", "9999999TiB", "1MiBx"}) {
    const auto bytes = ParseBytes(text);
    ASSERT_FALSE(bytes.ok()) << text;
    EXPECT_NE(bytes.error().message.find("512MiB"), std::string::npos);
  }
}

TEST(Units, DurationsTakeUnitsAndABareNumberIsSeconds) {
  using std::chrono::milliseconds;
  EXPECT_EQ(*ParseDuration("30s"), milliseconds(30'000));
  EXPECT_EQ(*ParseDuration("500ms"), milliseconds(500));
  EXPECT_EQ(*ParseDuration("1.5s"), milliseconds(1500));
  EXPECT_EQ(*ParseDuration("2m"), milliseconds(120'000));
  EXPECT_EQ(*ParseDuration("1h"), milliseconds(3'600'000));
  EXPECT_EQ(*ParseDuration("30"), milliseconds(30'000));
  for (const char* text : {"", "s", "-3s", "3 s", "3d"})
    EXPECT_FALSE(ParseDuration(text).ok()) << text;
}

TEST(Units, BytesAreShownForPeople) {
  EXPECT_EQ(ShowBytes(17), "17 B");
  EXPECT_EQ(ShowBytes(int64_t{236} << 20), "236.0 MiB");
  EXPECT_EQ(ShowBytes(int64_t{3} << 29), "1.5 GiB");
}

}  // namespace
}  // namespace quern::server
