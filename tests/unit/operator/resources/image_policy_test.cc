#include "operator/resources/image_policy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace quern::control {
namespace {

TEST(IsImageUnder, GoesOnWithAPathATagOrADigest) {
  for (const char* image : {"r.example/quern", "r.example/quern:1", "r.example/quern@sha256:0",
                            "r.example/quern/serve:1", "r.example/quern/a/b"}) {
    EXPECT_TRUE(IsImageUnder(image, "r.example/quern")) << image;
  }
  EXPECT_TRUE(IsImageUnder("r.example/team/serve:1", "r.example/team/"));
  EXPECT_TRUE(IsImageUnder("r.example:5000/serve", "r.example:5000"));
  EXPECT_TRUE(IsImageUnder("r.example/serve:1@sha256:0", "r.example/serve:1"));
}

TEST(IsImageUnder, NothingElseThatOnlyBeginsAlike) {
  EXPECT_FALSE(IsImageUnder("r.example/quern-evil:1", "r.example/quern"));
  EXPECT_FALSE(IsImageUnder("r.example.evil/serve", "r.example"));
  EXPECT_FALSE(IsImageUnder("r.example:5000/serve", "r.example"));  // another server
  EXPECT_FALSE(IsImageUnder("r.example/team", "r.example/team/"));
  EXPECT_FALSE(IsImageUnder("r.example/serve:10", "r.example/serve:1"));
  EXPECT_FALSE(IsImageUnder("nginx", "docker.io/"));
  EXPECT_FALSE(IsImageUnder("anything", ""));
}

TEST(CheckImagePrefix, RefusesWhatWouldAllowAllOrNothing) {
  EXPECT_TRUE(CheckImagePrefix("r.example/team/"));
  for (const char* bad : {"", " ", "a b", "a,b", "a\n"}) EXPECT_FALSE(CheckImagePrefix(bad)) << bad;
}

TEST(CheckImage, AllowsTheOperatorsOwnAndWhatIsListed) {
  ResourceOptions options;
  options.serve_image = "localhost/quern/serve:1";
  InferenceEndpoint e;
  e.runtime.image = "evil.example/x";
  EXPECT_TRUE(CheckImage(e, options));  // any, unless the administrator says otherwise
  options.allowed_images = {"r.example/team/", "other.example/serve"};
  const Status refused = CheckImage(e, options);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kPermissionDenied);
  for (const char* words : {"spec.runtime.image", "evil.example/x", "r.example/team/",
                            "other.example/serve", "localhost/quern/serve:1"}) {
    EXPECT_THAT(refused.error().message, testing::HasSubstr(words));
  }
  for (const char* image : {"", "localhost/quern/serve:1", "r.example/team/a:2"}) {
    e.runtime.image = image;
    EXPECT_TRUE(CheckImage(e, options)) << image;
  }
}

InferenceEndpoint HavingGpus(int64_t gpus) {
  InferenceEndpoint e;
  e.hardware.emplace_back().name = "h100";
  e.hardware[0].gpus = gpus;
  return e;
}

TEST(ImageFor, FollowsTheVariantUnlessTheEndpointNamesOne) {
  ResourceOptions options;
  options.serve_image = "serve:1";
  options.serve_image_cuda = "serve-cuda:1";
  InferenceEndpoint gpu = HavingGpus(1), cpu = HavingGpus(0);
  EXPECT_EQ(ImageFor(gpu, gpu.hardware[0], options), "serve-cuda:1");
  EXPECT_EQ(ImageFor(cpu, cpu.hardware[0], options), "serve:1");
  gpu.runtime.image = "own:1";
  EXPECT_EQ(ImageFor(gpu, gpu.hardware[0], options), "own:1");
}

TEST(CheckImage, AllowsTheOperatorsImageWithCudaAndNamesIt) {
  ResourceOptions options;
  options.serve_image = "serve:1";
  options.serve_image_cuda = "serve-cuda:1";
  options.allowed_images = {"r.example/"};
  InferenceEndpoint e = HavingGpus(1);
  e.runtime.image = "serve-cuda:1";
  EXPECT_TRUE(CheckImage(e, options));
  e.runtime.image = "else:1";
  EXPECT_THAT(CheckImage(e, options).error().message,
              testing::HasSubstr("serve:1 and serve-cuda:1"));
}

TEST(CheckCudaImage, RefusesGpusWithoutAnImageForThem) {
  ResourceOptions options;
  options.serve_image = "serve:1";
  InferenceEndpoint e = HavingGpus(2);
  EXPECT_TRUE(CheckCudaImage(HavingGpus(0), options));
  Status refused = CheckCudaImage(e, options);
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, testing::AllOf(testing::HasSubstr("variant 'h100'"),
                                                      testing::HasSubstr("--serve-image-cuda"),
                                                      testing::HasSubstr("spec.runtime.image")));
  e.runtime.image = "serve:1";
  EXPECT_THAT(CheckCudaImage(e, options).error().message, testing::HasSubstr("name one with CUDA"));
  options.serve_image_cuda = "serve-cuda:1";
  EXPECT_THAT(CheckCudaImage(e, options).error().message,
              testing::HasSubstr("leave it out, which runs serve-cuda:1"));
  for (const char* image : {"", "own:1", "serve-cuda:1"}) {
    e.runtime.image = image;
    EXPECT_TRUE(CheckCudaImage(e, options)) << image;
  }
  options.serve_image_cuda = "serve:1";  // one image for both
  EXPECT_TRUE(CheckCudaImage(e, options));
  e.runtime.image = "serve:1";
  EXPECT_TRUE(CheckCudaImage(e, options));
}

}  // namespace
}  // namespace quern::control
