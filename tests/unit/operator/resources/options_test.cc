#include "operator/resources/options.h"

#include <gtest/gtest.h>

namespace quern::control {
namespace {

TEST(ModelVolume, ReadsBothKinds) {
  const auto host = ParseModelVolume("hostPath:/var/lib/quern/models@/models");
  ASSERT_TRUE(host) << host.error().message;
  EXPECT_EQ(host->kind, AllowedModelVolume::Kind::kHostPath);
  EXPECT_EQ(host->source, "/var/lib/quern/models");
  EXPECT_EQ(host->mount_path, "/models");
  const auto claim = ParseModelVolume("pvc:weights");
  ASSERT_TRUE(claim) << claim.error().message;
  EXPECT_EQ(claim->kind, AllowedModelVolume::Kind::kPvc);
  EXPECT_EQ(claim->source, "weights");
  EXPECT_EQ(claim->mount_path, "/models");
}

TEST(ModelVolume, RefusesWhatWouldOpenMoreThanAFolder) {
  for (const char* bad :
       {"", "/models", "hostPath:", "hostPath:/", "hostPath:models", "hostPath:/a/../etc",
        "hostPath:/a/..", "hostPath:/a@/", "hostPath:/a@models", "hostPath:/a@/b/../c",
        "pvc:", "pvc:a/b", "nfs:/a"}) {
    EXPECT_FALSE(ParseModelVolume(bad)) << bad;
  }
}

}  // namespace
}  // namespace quern::control
