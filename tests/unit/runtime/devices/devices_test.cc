#include "runtime/devices.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/runtime/model/tiny_model.h"

namespace quern::testing {
namespace {

using ::testing::HasSubstr;

Result<std::unique_ptr<Model>> LoadTinyOn(const Device& device) {
  const std::vector<uint8_t> bytes = TinyModel().Bytes();
  QUERN_ASSIGN(auto file, GgufFile::Parse(AsBytes(bytes), "tiny.gguf"));
  return LoadModelOn(device, std::move(file), {.threads = 1});
}

TEST(ParseDevice, KnowsTheKindsAndAGpusNumber) {
  const auto expect = [](std::string_view text, Device::Kind kind, int number) {
    const auto device = ParseDevice(text);
    ASSERT_TRUE(device.ok()) << device.error().message;
    EXPECT_EQ(device->kind, kind) << text;
    EXPECT_EQ(device->number, number) << text;
  };
  expect("auto", Device::Kind::kAuto, 0);
  expect("cpu", Device::Kind::kCpu, 0);
  expect("cuda", Device::Kind::kCuda, 0);
  expect("cuda:0", Device::Kind::kCuda, 0);
  expect("cuda:1", Device::Kind::kCuda, 1);
  expect("cuda:2147483647", Device::Kind::kCuda, 2147483647);
}

TEST(ParseDevice, OthersAreRefusedWithWhatThereIs) {
  for (const std::string text :
       {"", "gpu", "CUDA", "cpu:0", "auto:1", "cuda:", "cuda:-1", "cuda:+1", "cuda:x", "cuda:1x",
        "cuda: 1", "cuda:1 ", "cuda:2147483648", "cuda:0x1", " cuda", "cuda1", "cuda:1,2"}) {
    const auto device = ParseDevice(text);
    ASSERT_FALSE(device.ok()) << text;
    EXPECT_EQ(device.error().code, ErrorCode::kInvalidArgument);
    EXPECT_EQ(
        device.error().message,
        "'" + text + "' is no device: use auto, cpu, cuda, or cuda:1 for a GPU by its number");
  }
  const auto control = ParseDevice("cuda:\x1b[2J");
  ASSERT_FALSE(control.ok());
  EXPECT_EQ(control.error().message.find('\x1b'), std::string::npos) << "not for a terminal";
}

TEST(ParseActivations, KnowsBothAndNoOthers) {
  EXPECT_EQ(ParseActivations("f16").value(), kernels::ActivationType::kF16);
  EXPECT_EQ(ParseActivations("bf16").value(), kernels::ActivationType::kBF16);
  for (const std::string text : {"", "F16", "fp16", "f32", "bf16 "}) {
    const auto type = ParseActivations(text);
    ASSERT_FALSE(type.ok()) << text;
    EXPECT_EQ(type.error().code, ErrorCode::kInvalidArgument);
    EXPECT_EQ(type.error().message, "'" + text + "' is no type of activations: use f16 or bf16");
  }
}

TEST(LoadModelOn, TheCpuIsAlwaysThere) {
  const auto model = LoadTinyOn({Device::Kind::kCpu});
  ASSERT_TRUE(model.ok()) << model.error().message;
  EXPECT_FALSE((*model)->device_memory().value().has_value());
  EXPECT_THAT((*model)->info().compute, HasSubstr("1 thread"));
}

TEST(LoadModelOn, ABuildWithoutCudaSaysWhereThereIsOne) {
  if (BuiltWithCuda()) GTEST_SKIP() << "this build has CUDA";
  for (const int number : {0, 3}) {
    const auto model = LoadTinyOn({Device::Kind::kCuda, number});
    ASSERT_FALSE(model.ok());
    EXPECT_EQ(model.error().code, ErrorCode::kUnsupported);
    EXPECT_EQ(model.error().message,
              "GPU " + std::to_string(number) +
                  " is asked for, but this build has no CUDA: use --device cpu, the image "
                  "quern-serve-cuda, or build with -DQUERN_CUDA=ON");
  }
  const auto either = LoadTinyOn({});
  ASSERT_TRUE(either.ok()) << either.error().message;
  EXPECT_FALSE((*either)->device_memory().value().has_value()) << "auto takes the CPU";
}

}  // namespace
}  // namespace quern::testing
