// runtime/devices.* in a build with CUDA, where there is one GPU.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "runtime/backend/cuda/device_memory.h"
#include "runtime/devices.h"
#include "tests/unit/runtime/backend/cuda/cuda_models.h"

namespace quern::testing {
namespace {

using ::testing::HasSubstr;

Result<std::unique_ptr<Model>> LoadSmallOn(const Device& device, const TinyModel& tiny,
                                           kernels::ActivationType activations) {
  const std::vector<uint8_t> bytes = tiny.Bytes();
  QUERN_ASSIGN(auto file, GgufFile::Parse(AsBytes(bytes), "small.gguf"));
  return LoadModelOn(device, std::move(file), {.threads = 1, .activations = activations});
}

TEST(DeviceChoice, AutoTakesTheGpuAndCpuDoesNot) {
  for (const auto kind : {Device::Kind::kAuto, Device::Kind::kCuda}) {
    const auto model = LoadSmallOn({kind}, SmallModel(), kernels::ActivationType::kF16);
    ASSERT_TRUE(model.ok()) << model.error().message;
    EXPECT_TRUE((*model)->device_memory().value().has_value());
    EXPECT_TRUE((*model)->draws());
    ASSERT_TRUE((*model)->gpu());
    EXPECT_EQ((*model)->gpu()->name, "SIMT emulator");
    EXPECT_EQ((*model)->gpu()->uuid, "GPU-616e2065-6d75-6c61-7465-642047505500");
    EXPECT_THAT((*model)->info().compute, HasSubstr(", f16"));
  }
  const auto model =
      LoadSmallOn({Device::Kind::kCpu}, SmallModel(), kernels::ActivationType::kBF16);
  ASSERT_TRUE(model.ok()) << model.error().message;
  EXPECT_FALSE((*model)->device_memory().value().has_value());
}

TEST(CudaWaits, SpinOnlyWhereCpusAreLeftForRequests) {
  for (const double cpus : {0.5, 1.0, 2.0, 3.99}) {
    EXPECT_EQ(WaitForSteps(cpus), CudaWait::kSleeps) << cpus;
  }
  for (const double cpus : {4.0, 16.0, 224.0}) {
    EXPECT_EQ(WaitForSteps(cpus), CudaWait::kSpins) << cpus;
  }
}

// Whichever it is: what was put on the stream has happened.
TEST(CudaWaits, EndWhenTheCopyHas) {
  CudaStream stream;
  ASSERT_TRUE(stream.Create().ok());
  DeviceBuffer device;
  PinnedBuffer host;
  const std::vector<int32_t> numbers = {3, 1, 4, 1, 5};
  const size_t bytes = numbers.size() * sizeof(int32_t);
  ASSERT_TRUE(device.Allocate(bytes, stream.get(), "numbers").ok());
  ASSERT_TRUE(host.Reserve(bytes, "numbers").ok());
  ASSERT_EQ(cudaMemcpyAsync(device.as<void>(), numbers.data(), bytes, cudaMemcpyHostToDevice,
                            stream.get()),
            cudaSuccess);
  for (const CudaWait wait : {CudaWait::kSpins, CudaWait::kSleeps}) {
    std::fill_n(host.as<int32_t>(), numbers.size(), 0);
    CudaEvent event;
    EXPECT_TRUE(event.Done()) << "nothing was recorded";
    ASSERT_EQ(cudaMemcpyAsync(host.as<void>(), device.as<void>(), bytes, cudaMemcpyDeviceToHost,
                              stream.get()),
              cudaSuccess);
    ASSERT_TRUE(event.Record(stream.get(), wait).ok());
    ASSERT_TRUE(event.Synchronize("numbers").ok());
    EXPECT_TRUE(std::equal(numbers.begin(), numbers.end(), host.as<int32_t>()));
  }
}

TEST(DeviceChoice, AGpuThatIsNotThereIsNotMadeUpForByTheCpu) {
  const auto model =
      LoadSmallOn({Device::Kind::kCuda, 1}, SmallModel(), kernels::ActivationType::kBF16);
  ASSERT_FALSE(model.ok());
  EXPECT_EQ(model.error().code, ErrorCode::kUnavailable);
  EXPECT_THAT(model.error().message, HasSubstr("there is no GPU 1"));
}

// Nor is a model that the GPU does not take: whoever has one should know.
TEST(DeviceChoice, AModelThatTheGpuDoesNotTakeIsRefused) {
  TinyModel tiny = SmallModel();
  tiny.edit = [](const std::string& name, std::vector<uint64_t>*, uint32_t* type) {
    if (name == "blk.1.ffn_up.weight") *type = static_cast<uint32_t>(GgmlType::kQ5_1);
    return true;
  };
  const auto model = LoadSmallOn({}, tiny, kernels::ActivationType::kBF16);
  ASSERT_FALSE(model.ok());
  EXPECT_EQ(model.error().code, ErrorCode::kUnsupported);
}

}  // namespace
}  // namespace quern::testing
