#include "tests/unit/kernels/simt/stream_kernels.h"
#include "tests/unit/kernels/simt/stream_test_support.h"

// Memory of the device: how long it lives, in the order of streams, and how much there is.
namespace quern::kernels::testing {
namespace {

using simt::Fault;

int* AllocateIn(cudaStream_t stream) {
  int* memory = nullptr;
  EXPECT_EQ(cudaMallocAsync(&memory, kIntBytes, stream), cudaSuccess);
  return memory;
}

cudaError_t KernelAfterTheFree(bool faulty) {
  const Stream stream;
  int* memory = AllocateIn(stream);
  if (faulty) {
    EXPECT_EQ(cudaFreeAsync(memory, stream), cudaSuccess);
  }
  EXPECT_EQ(FillInts(memory, kInts, 1, stream), cudaSuccess);
  if (!faulty) {
    EXPECT_EQ(cudaFreeAsync(memory, stream), cudaSuccess);
  }
  return cudaStreamSynchronize(stream);
}

// The free is known to be done, so the memory is gone.
cudaError_t CopyLongAfterTheFree(bool faulty) {
  const Stream stream;
  int* memory = AllocateIn(stream);
  EXPECT_EQ(FillInts(memory, kInts, 1, stream), cudaSuccess);
  if (faulty) {
    EXPECT_EQ(cudaFreeAsync(memory, stream), cudaSuccess);
    EXPECT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
  }
  std::vector<int> host(kInts);
  EXPECT_EQ(cudaMemcpyAsync(host.data(), memory, kIntBytes, cudaMemcpyDeviceToHost, stream),
            cudaSuccess);
  const cudaError_t error = cudaStreamSynchronize(stream);
  if (!faulty) {
    EXPECT_EQ(host, std::vector<int>(kInts, 1));
    EXPECT_EQ(cudaFreeAsync(memory, stream), cudaSuccess);
    EXPECT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
  }
  return error;
}

cudaError_t FreeWhileAnotherStreamUsesIt(bool faulty) {
  const Stream a;
  const Stream b;
  int* memory = AllocateIn(a);
  Order(a, b);
  EXPECT_EQ(FillInts(memory, kInts, 1, b), cudaSuccess);
  if (!faulty) Order(b, a);
  EXPECT_EQ(cudaFreeAsync(memory, a), cudaSuccess);
  return cudaDeviceSynchronize();
}

cudaError_t UseBeforeTheAllocation(bool faulty) {
  const Stream a;
  const Stream b;
  int* memory = AllocateIn(a);
  if (!faulty) Order(a, b);
  EXPECT_EQ(FillInts(memory, kInts, 1, b), cudaSuccess);
  const cudaError_t error = cudaDeviceSynchronize();
  EXPECT_EQ(cudaFree(memory), cudaSuccess);
  return error;
}

cudaError_t FreeTwice(bool faulty) {
  const Stream stream;
  int* memory = AllocateIn(stream);
  EXPECT_EQ(cudaFreeAsync(memory, stream), cudaSuccess);
  if (faulty) {
    EXPECT_EQ(cudaFreeAsync(memory, stream), cudaSuccess);
  }
  return cudaStreamSynchronize(stream);
}

// cudaFree waits for nothing if the memory is cudaMallocAsync's.
cudaError_t FreeWithoutWaiting(bool faulty) {
  const Stream stream;
  int* memory = AllocateIn(stream);
  EXPECT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
  EXPECT_EQ(FillInts(memory, kInts, 1, stream), cudaSuccess);
  if (!faulty) {
    EXPECT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
  }
  const cudaError_t error = cudaFree(memory);
  const cudaError_t later = cudaDeviceSynchronize();
  return error != cudaSuccess ? error : later;
}

cudaError_t KernelAfterCudaFree(bool faulty) {
  int* memory = nullptr;
  EXPECT_EQ(cudaMalloc(&memory, kIntBytes), cudaSuccess);
  if (faulty) {
    EXPECT_EQ(cudaFree(memory), cudaSuccess);
  }
  const cudaError_t error = FillInts(memory, kInts, 1, nullptr);
  if (!faulty) {
    EXPECT_EQ(cudaFree(memory), cudaSuccess);
  }
  return error;
}

std::vector<HostFault> MemoryFaults() {
  return {
      {"KernelAfterTheFree",
       Fault::kUseAfterFree,
       {"cudaFreeAsync", "has freed", "stream_kernels.cu", "FillKernel"},
       KernelAfterTheFree},
      {"CopyLongAfterTheFree",
       Fault::kUseAfterFree,
       {"0 bytes into an allocation of 12000 bytes that cudaFreeAsync", "has freed",
        "cudaMemcpyAsync", "device_memory_test.cc:"},
       CopyLongAfterTheFree},
      {"FreeWhileAnotherStreamUsesIt",
       Fault::kUseAfterFree,
       {"cudaFreeAsync", "FillKernel"},
       FreeWhileAnotherStreamUsesIt},
      {"UseBeforeTheAllocation",
       Fault::kUseBeforeAllocation,
       {"cudaMallocAsync", "FillKernel"},
       UseBeforeTheAllocation},
      {"FreeTwice", Fault::kUseAfterFree, {"frees it, too"}, FreeTwice},
      {"FreeWithoutWaiting", Fault::kUseAfterFree, {"cudaFree ", "has freed"}, FreeWithoutWaiting},
      {"KernelAfterCudaFree",
       Fault::kUseAfterFree,
       {"cudaFree ", "has freed", "FillKernel"},
       KernelAfterCudaFree},
  };
}

class DeviceMemoryLife : public ::testing::TestWithParam<HostFault> {};
TEST_P(DeviceMemoryLife, FaultIsFoundUnderEverySeed) { ExpectFound(GetParam()); }
TEST_P(DeviceMemoryLife, NothingIsSaidWithoutTheFault) { ExpectNothing(GetParam()); }
INSTANTIATE_TEST_SUITE_P(Faults, DeviceMemoryLife, ::testing::ValuesIn(MemoryFaults()),
                         NameOfFault);

size_t FreeBytes() {
  size_t free = 0;
  size_t total = 0;
  EXPECT_EQ(cudaMemGetInfo(&free, &total), cudaSuccess);
  EXPECT_EQ(total, simt::GetOptions().device_memory);
  return free;
}

TEST(DeviceMemory, HasAnEnd) {
  const size_t used = simt::GetOptions().device_memory - FreeBytes();
  const WithOptions options(simt::Options{.device_memory = used + 10000});
  EXPECT_EQ(FreeBytes(), 10000u);
  void* first = nullptr;
  void* second = nullptr;
  ASSERT_EQ(cudaMalloc(&first, 6000), cudaSuccess);
  EXPECT_EQ(FreeBytes(), 4000u);
  EXPECT_EQ(cudaMalloc(&second, 4001), cudaErrorMemoryAllocation);
  EXPECT_EQ(cudaGetLastError(), cudaErrorMemoryAllocation);
  ASSERT_EQ(cudaMalloc(&second, 4000), cudaSuccess);
  EXPECT_EQ(FreeBytes(), 0u);
  EXPECT_EQ(cudaFree(first), cudaSuccess);
  EXPECT_EQ(cudaFree(second), cudaSuccess);
  EXPECT_EQ(FreeBytes(), 10000u);
  cudaDeviceProp properties;
  ASSERT_EQ(cudaGetDeviceProperties(&properties, 0), cudaSuccess);
  EXPECT_EQ(properties.totalGlobalMem, used + 10000);
  EXPECT_EQ(properties.sharedMemPerBlockOptin, 232448u);
  EXPECT_EQ(cudaGetDeviceProperties(&properties, 1), cudaErrorInvalidDevice);
}

// What is freed earlier in a stream is there for what is allocated later.
TEST(DeviceMemory, IsReusedInTheOrderOfAStream) {
  for (uint64_t seed = 0; seed < kStreamSeeds; ++seed) {
    const size_t used = simt::GetOptions().device_memory - FreeBytes();
    const WithOptions options(simt::Options{.seed = seed, .device_memory = used + kIntBytes});
    const Stream stream;
    void* none = nullptr;
    for (int i = 0; i < 5; ++i) {
      int* memory = AllocateIn(stream);
      ASSERT_NE(memory, nullptr);
      EXPECT_EQ(cudaMallocAsync(&none, kIntBytes, stream), cudaErrorMemoryAllocation);
      EXPECT_EQ(FillInts(memory, kInts, i, stream), cudaSuccess);
      EXPECT_EQ(cudaFreeAsync(memory, stream), cudaSuccess);
    }
    EXPECT_EQ(cudaStreamSynchronize(stream), cudaSuccess)
        << cudaGetErrorString(cudaErrorLaunchFailure);
    EXPECT_EQ(FreeBytes(), kIntBytes);
  }
}

TEST(Copies, TakeRowsOutOfWiderOnes) {
  for (uint64_t seed = 0; seed < kStreamSeeds; ++seed) {
    const WithOptions options(seed);
    const Stream stream;
    constexpr size_t kRows = 5;
    constexpr size_t kWide = 100;
    constexpr size_t kNarrow = 33;
    PinnedArray<int> host(kRows * kWide);
    for (size_t i = 0; i < kRows * kWide; ++i) host[i] = static_cast<int>(i);
    const DeviceArray<int> wide(std::vector<int>(kRows * kWide, -1));
    const DeviceArray<int> narrow(kRows * kNarrow);
    std::vector<int> back(kRows * kWide, -2);
    ASSERT_EQ(cudaMemcpy2DAsync(wide.data() + 3, kWide * 4, host.data() + 7, kWide * 4, kNarrow * 4,
                                kRows, cudaMemcpyHostToDevice, stream),
              cudaSuccess);
    ASSERT_EQ(cudaMemcpy2DAsync(narrow.data(), kNarrow * 4, wide.data() + 3, kWide * 4, kNarrow * 4,
                                kRows, cudaMemcpyDeviceToDevice, stream),
              cudaSuccess);
    ASSERT_EQ(cudaMemset2DAsync(narrow.data() + 1, kNarrow * 4, 0, 4, kRows, stream), cudaSuccess);
    ASSERT_EQ(cudaMemcpy2DAsync(back.data() + 1, kWide * 4, narrow.data(), kNarrow * 4, kNarrow * 4,
                                kRows, cudaMemcpyDeviceToHost, stream),
              cudaSuccess);
    ASSERT_EQ(cudaStreamSynchronize(stream), cudaSuccess)
        << cudaGetErrorString(cudaErrorLaunchFailure);
    for (size_t row = 0; row < kRows; ++row) {
      for (size_t i = 0; i < kWide; ++i) {
        const bool copied = i >= 1 && i < 1 + kNarrow;
        const int right = !copied ? -2 : i == 2 ? 0 : static_cast<int>(row * kWide + 7 + i - 1);
        ASSERT_EQ(back[row * kWide + i], right) << row << ", " << i;
      }
    }
    EXPECT_EQ(
        cudaMemcpy2DAsync(wide.data(), 8, host.data(), 400, 12, 2, cudaMemcpyHostToDevice, stream),
        cudaErrorInvalidPitchValue);
  }
}

TEST(Copies, RefuseTheWrongSideAndTheWrongSize) {
  const DeviceArray<int> device(kInts);
  std::vector<int> host(kInts + 1);
  EXPECT_EQ(cudaMemcpy(host.data(), host.data(), 4, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
  EXPECT_EQ(cudaMemcpy(device.data(), device.data(), 4, cudaMemcpyHostToDevice),
            cudaErrorInvalidValue);
  EXPECT_EQ(cudaMemcpy(device.data(), host.data(), kIntBytes + 4, cudaMemcpyHostToDevice),
            cudaErrorInvalidValue);
  EXPECT_EQ(cudaMemset(host.data(), 0, 4), cudaErrorInvalidValue);
  EXPECT_EQ(cudaMemcpy(nullptr, nullptr, 0, cudaMemcpyHostToDevice), cudaSuccess);
  EXPECT_EQ(cudaFree(device.data() + 1), cudaErrorInvalidValue);
  EXPECT_EQ(cudaFreeHost(host.data()), cudaErrorInvalidValue);
}

}  // namespace
}  // namespace quern::kernels::testing
