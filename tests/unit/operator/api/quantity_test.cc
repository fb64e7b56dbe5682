#include "operator/api/quantity.h"

#include <gtest/gtest.h>

namespace quern::control {
namespace {

TEST(Quantity, ReadsEverySuffixOfKubernetes) {
  EXPECT_DOUBLE_EQ(*ParseQuantity("500m"), 0.5);
  EXPECT_DOUBLE_EQ(*ParseQuantity("1.5"), 1.5);
  EXPECT_DOUBLE_EQ(*ParseQuantity("2k"), 2000);
  EXPECT_DOUBLE_EQ(*ParseQuantity("2Ki"), 2048);
  EXPECT_DOUBLE_EQ(*ParseQuantity("3M"), 3e6);
  EXPECT_DOUBLE_EQ(*ParseQuantity("1Gi"), 1073741824.0);
  EXPECT_DOUBLE_EQ(*ParseQuantity("1E"), 1e18);
  EXPECT_DOUBLE_EQ(*ParseQuantity("12e2"), 1200);
  EXPECT_DOUBLE_EQ(*ParseQuantity("12E-2"), 0.12);
  EXPECT_DOUBLE_EQ(*ParseQuantity("-1"), -1);
  EXPECT_DOUBLE_EQ(*ParseQuantity("100n"), 1e-7);
}

TEST(Quantity, RefusesWhatKubernetesRefuses) {
  for (const char* bad :
       {"", "m", "1.2.3", "1ki", "1 Gi", "1e", "1e400", "0x10", "1i", "nan", "inf", "1Gib"}) {
    EXPECT_FALSE(ParseQuantity(bad)) << bad;
  }
}

TEST(Quantity, BytesAreWholeAndNotNegative) {
  EXPECT_EQ(ParseBytes("512Mi"), 536870912);
  EXPECT_EQ(ParseBytes("1500m"), 2);
  EXPECT_FALSE(ParseBytes("-1"));
  EXPECT_FALSE(ParseBytes("9E"));
}

TEST(Decimal, ReadsDigitsWithOnePoint) {
  EXPECT_DOUBLE_EQ(*ParseDecimal("0.8"), 0.8);
  EXPECT_DOUBLE_EQ(*ParseDecimal("40"), 40);
  EXPECT_FALSE(ParseDecimal("4e1"));
  EXPECT_FALSE(ParseDecimal("-1"));
  EXPECT_FALSE(ParseDecimal("."));
  EXPECT_FALSE(ParseDecimal(""));
}

}  // namespace
}  // namespace quern::control
