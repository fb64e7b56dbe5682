#include <sys/mman.h>

#include <algorithm>

#include "tests/unit/kernels/simt/stream_kernels.h"
#include "tests/unit/kernels/simt/stream_test_support.h"

// The host touches memory of an asynchronous copy before it has waited for the copy.
namespace quern::kernels::testing {
namespace {

using simt::Fault;

std::vector<int> Sevens() { return std::vector<int>(kInts, 7); }

cudaError_t ChangesPinnedSource(bool faulty) {
  const Stream stream;
  const DeviceArray<int> in(kInts);
  const PinnedArray<int> host(kInts);
  EXPECT_EQ(cudaMemcpyAsync(in.data(), host.data(), kIntBytes, cudaMemcpyHostToDevice, stream),
            cudaSuccess);
  if (!faulty) {
    EXPECT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
  }
  host[5] = 0;  // fault: even with the value that is there
  return cudaStreamSynchronize(stream);
}

cudaError_t ChangesPartOfAPage(bool faulty) {
  const Stream stream;
  const DeviceArray<int> in(kInts);
  const PinnedArray<int> host(kInts);
  EXPECT_EQ(cudaMemcpyAsync(in.data(), host.data(), 40, cudaMemcpyHostToDevice, stream),
            cudaSuccess);
  host[faulty ? 9 : 10] = 1;
  return cudaStreamSynchronize(stream);
}

cudaError_t ChangesPageableSource(bool faulty) {
  const Stream stream;
  const DeviceArray<int> in(kInts);
  std::vector<int> host = Sevens();
  EXPECT_EQ(cudaMemcpyAsync(in.data(), host.data(), kIntBytes, cudaMemcpyHostToDevice, stream),
            cudaSuccess);
  if (!faulty) {
    EXPECT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
  }
  host[2999] = 8;
  return cudaStreamSynchronize(stream);
}

// Pages that go back to the system at once.
cudaError_t FreesPageableSource(bool faulty) {
  const Stream stream;
  constexpr size_t kMany = size_t{1} << 20;
  const DeviceArray<char> in(kMany);
  void* host = mmap(nullptr, kMany, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  EXPECT_EQ(cudaMemcpyAsync(in.data(), host, kMany, cudaMemcpyHostToDevice, stream), cudaSuccess);
  if (!faulty) {
    EXPECT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
  }
  munmap(host, kMany);
  return cudaStreamSynchronize(stream);
}

cudaError_t FreesPinnedSource(bool faulty) {
  const Stream stream;
  const DeviceArray<int> in(kInts);
  int* host = nullptr;
  EXPECT_EQ(cudaMallocHost(&host, kIntBytes), cudaSuccess);
  EXPECT_EQ(cudaMemcpyAsync(in.data(), host, kIntBytes, cudaMemcpyHostToDevice, stream),
            cudaSuccess);
  if (!faulty) {
    EXPECT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
  }
  return cudaFreeHost(host);
}

cudaError_t ReadsPinnedResult(bool faulty) {
  const Stream stream;
  const DeviceArray<int> in(Sevens());
  const PinnedArray<int> host(kInts);
  EXPECT_EQ(cudaMemcpyAsync(host.data(), in.data(), kIntBytes, cudaMemcpyDeviceToHost, stream),
            cudaSuccess);
  if (!faulty) {
    EXPECT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
  }
  const int got = *static_cast<volatile int*>(host.data() + 3);
  EXPECT_EQ(got, faulty ? -1 : 7);
  return cudaStreamSynchronize(stream);
}

// A few bytes in an allocation of their own.
cudaError_t ReadsSmallPinnedResult(bool faulty) {
  const Stream stream;
  const DeviceArray<int> in(Sevens());
  const PinnedArray<int> host(1);
  EXPECT_EQ(cudaMemcpyAsync(host.data(), in.data(), 4, cudaMemcpyDeviceToHost, stream),
            cudaSuccess);
  const Event event;
  EXPECT_EQ(cudaEventRecord(event, stream), cudaSuccess);
  if (!faulty) {
    while (cudaEventQuery(event) == cudaErrorNotReady) {
    }
  }
  const int got = *static_cast<volatile int*>(host.data());
  EXPECT_EQ(got, faulty ? -1 : 7);
  return cudaStreamSynchronize(stream);
}

cudaError_t WritesPageableTarget(bool faulty) {
  const Stream stream;
  const DeviceArray<int> in(Sevens());
  std::vector<int> host(kInts);
  EXPECT_EQ(cudaMemcpyAsync(host.data(), in.data(), kIntBytes, cudaMemcpyDeviceToHost, stream),
            cudaSuccess);
  if (faulty) host[1234] = 0;
  const cudaError_t error = cudaStreamSynchronize(stream);
  if (!faulty) {
    EXPECT_EQ(host, Sevens());
  }
  return error;
}

std::vector<HostFault> HostMemoryFaults() {
  const std::string write = "read by an asynchronous copy was written at tests/unit/";
  return {
      {"ChangesPinnedSource", Fault::kHostMemory, {write, "cudaMemcpyAsync"}, ChangesPinnedSource},
      {"ChangesPartOfAPage",
       Fault::kHostMemory,
       {"was changed (from byte 36 on)"},
       ChangesPartOfAPage},
      {"ChangesPageableSource",
       Fault::kHostMemory,
       {"was changed (from byte 11996 on)"},
       ChangesPageableSource},
      {"FreesPageableSource", Fault::kHostMemory, {"is not there any more"}, FreesPageableSource},
      {"FreesPinnedSource", Fault::kHostMemory, {"cudaFreeHost"}, FreesPinnedSource},
      {"ReadsPinnedResult",
       Fault::kHostMemory,
       {"written by an asynchronous copy was read at tests/unit/"},
       ReadsPinnedResult},
      {"ReadsSmallPinnedResult",
       Fault::kHostMemory,
       {"was read at tests/unit/"},
       ReadsSmallPinnedResult},
      {"WritesPageableTarget",
       Fault::kHostMemory,
       {"was changed (from byte 4936 on)"},
       WritesPageableTarget},
  };
}

class HostMemory : public ::testing::TestWithParam<HostFault> {};
TEST_P(HostMemory, FaultIsFoundUnderEverySeed) { ExpectFound(GetParam()); }
TEST_P(HostMemory, NothingIsSaidWithoutTheFault) { ExpectNothing(GetParam()); }
INSTANTIATE_TEST_SUITE_P(Faults, HostMemory, ::testing::ValuesIn(HostMemoryFaults()), NameOfFault);

// Reads of pageable memory cannot be seen. But what is read too early is never the result, even if
// the device has long done its part.
TEST(PageableResult, ComesOnlyWhenItIsWaitedFor) {
  for (uint64_t seed = 0; seed < kStreamSeeds; ++seed) {
    const WithOptions options(seed);
    const Stream stream;
    const Stream other;
    const DeviceArray<int> in(Sevens());
    const DeviceArray<int> others(Sevens());
    std::vector<int> host(kInts, 0);
    ASSERT_EQ(cudaMemcpyAsync(host.data(), in.data(), kIntBytes, cudaMemcpyDeviceToHost, stream),
              cudaSuccess);
    for (int i = 0; i < 5; ++i) {
      ASSERT_EQ(AddTo(others.data(), kInts, 1, other), cudaSuccess);
      ASSERT_EQ(cudaStreamSynchronize(other), cudaSuccess);
      EXPECT_EQ(host, std::vector<int>(kInts, -1)) << "seed " << seed;
    }
    ASSERT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
    EXPECT_EQ(host, Sevens());
  }
}

// A staging buffer that goes round and round, as uploads of weights use it.
TEST(Staging, BufferIsReusedAfterItsEvent) {
  for (uint64_t seed = 0; seed < kStreamSeeds; ++seed) {
    const WithOptions options(seed);
    const Stream stream;
    const PinnedArray<int> staging(2 * kInts);
    const Event events[2] = {Event(), Event()};
    const DeviceArray<int> target(6 * kInts);
    for (size_t i = 0; i < 6; ++i) {
      const size_t slot = i % 2;
      if (i >= 2) {
        ASSERT_EQ(cudaEventSynchronize(events[slot]), cudaSuccess);
      }
      int* part = staging.data() + slot * kInts;
      std::fill(part, part + kInts, static_cast<int>(i));
      ASSERT_EQ(cudaMemcpyAsync(target.data() + i * kInts, part, kIntBytes, cudaMemcpyHostToDevice,
                                stream),
                cudaSuccess);
      ASSERT_EQ(cudaEventRecord(events[slot], stream), cudaSuccess);
    }
    ASSERT_EQ(cudaStreamSynchronize(stream), cudaSuccess)
        << cudaGetErrorString(cudaErrorLaunchFailure);
    const std::vector<int> got = target.Read();
    for (size_t i = 0; i < got.size(); ++i) ASSERT_EQ(got[i], static_cast<int>(i / kInts));
  }
}

// There and back in one stream, through the same memory of the host's.
TEST(HostMemoryInAStream, CopiesComeOneAfterTheOther) {
  for (uint64_t seed = 0; seed < kStreamSeeds; ++seed) {
    const WithOptions options(seed);
    const Stream stream;
    const DeviceArray<int> in(Sevens());
    const DeviceArray<int> other(kInts);
    const PinnedArray<int> host(kInts);
    for (int round = 0; round < 3; ++round) {
      ASSERT_EQ(cudaMemcpyAsync(host.data(), in.data(), kIntBytes, cudaMemcpyDefault, stream),
                cudaSuccess);
      ASSERT_EQ(cudaMemcpyAsync(other.data(), host.data(), kIntBytes, cudaMemcpyDefault, stream),
                cudaSuccess);
      ASSERT_EQ(AddTo(other.data(), kInts, 1, stream), cudaSuccess);
      ASSERT_EQ(cudaMemcpyAsync(in.data(), other.data(), kIntBytes, cudaMemcpyDefault, stream),
                cudaSuccess);
    }
    ASSERT_EQ(cudaMemcpyAsync(host.data(), in.data(), kIntBytes, cudaMemcpyDefault, stream),
              cudaSuccess);
    ASSERT_EQ(cudaStreamSynchronize(stream), cudaSuccess)
        << cudaGetErrorString(cudaErrorLaunchFailure);
    EXPECT_EQ(host[0], 10);
    EXPECT_EQ(host[kInts - 1], 10);
  }
}

}  // namespace
}  // namespace quern::kernels::testing
