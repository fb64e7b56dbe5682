#include "tests/unit/kernels/simt/stream_kernels.h"
#include "tests/unit/kernels/simt/stream_test_support.h"

// Faults of the host's code in the order of the device's work: each is found whatever order the
// seed gives, and nothing is said of the same program without it.
namespace quern::kernels::testing {
namespace {

using simt::Fault;

std::vector<int> Zeros() { return std::vector<int>(kInts, 0); }

cudaError_t KernelReadsWhatAnotherStreamCopies(bool faulty) {
  const Stream a;
  const Stream b;
  const DeviceArray<int> in(Zeros());
  const DeviceArray<int> out(Zeros());
  const PinnedArray<int> host(kInts);
  EXPECT_EQ(cudaMemcpyAsync(in.data(), host.data(), kIntBytes, cudaMemcpyHostToDevice, a),
            cudaSuccess);
  if (!faulty) Order(a, b);
  EXPECT_EQ(CopyInts(in.data(), out.data(), kInts, b), cudaSuccess);
  return cudaDeviceSynchronize();
}

cudaError_t KernelReadsWhatAnotherStreamsKernelWrites(bool faulty) {
  const Stream a;
  const Stream b;
  const DeviceArray<int> in(Zeros());
  const DeviceArray<int> out(Zeros());
  EXPECT_EQ(FillInts(in.data(), kInts, 7, a), cudaSuccess);
  if (!faulty) Order(a, b);
  EXPECT_EQ(CopyInts(in.data(), out.data(), kInts, b), cudaSuccess);
  return cudaDeviceSynchronize();
}

cudaError_t SetOverwritesWhatAnotherStreamReads(bool faulty) {
  const Stream a;
  const Stream b;
  const DeviceArray<int> in(Zeros());
  const DeviceArray<int> out(Zeros());
  EXPECT_EQ(CopyInts(in.data(), out.data(), kInts, a), cudaSuccess);
  if (!faulty) Order(a, b);
  EXPECT_EQ(cudaMemsetAsync(in.data(), 1, kIntBytes, b), cudaSuccess);
  return cudaDeviceSynchronize();
}

// The event is there, but it was recorded too early.
cudaError_t EventBeforeTheKernel(bool faulty) {
  const Stream a;
  const Stream b;
  const Event event;
  const DeviceArray<int> in(Zeros());
  const DeviceArray<int> out(Zeros());
  if (faulty) {
    EXPECT_EQ(cudaEventRecord(event, a), cudaSuccess);
  }
  EXPECT_EQ(FillInts(in.data(), kInts, 7, a), cudaSuccess);
  if (!faulty) {
    EXPECT_EQ(cudaEventRecord(event, a), cudaSuccess);
  }
  EXPECT_EQ(cudaStreamWaitEvent(b, event), cudaSuccess);
  EXPECT_EQ(CopyInts(in.data(), out.data(), kInts, b), cudaSuccess);
  return cudaDeviceSynchronize();
}

// One byte in common is enough, and neighbours are none of it.
cudaError_t CopyTouchesOneIntOfAnotherStreams(bool faulty) {
  const Stream a;
  const Stream b;
  const DeviceArray<int> in(Zeros());
  EXPECT_EQ(FillInts(in.data(), 1001, 7, a), cudaSuccess);
  EXPECT_EQ(FillInts(in.data() + (faulty ? 1000 : 1001), 500, 8, b), cudaSuccess);
  return cudaDeviceSynchronize();
}

// cudaMemcpy waits for the default stream, which waits for blocking streams only.
cudaError_t DefaultStreamDoesNotWaitForNonBlockingOnes(bool faulty) {
  const Stream stream(faulty ? cudaStreamNonBlocking : cudaStreamDefault);
  const DeviceArray<int> in(Zeros());
  EXPECT_EQ(FillInts(in.data(), kInts, 7, stream), cudaSuccess);
  std::vector<int> host(kInts);
  const cudaError_t error = cudaMemcpy(host.data(), in.data(), kIntBytes, cudaMemcpyDeviceToHost);
  if (!faulty) {
    EXPECT_EQ(host, std::vector<int>(kInts, 7));
  }
  const cudaError_t last = cudaDeviceSynchronize();
  return error != cudaSuccess ? error : last;
}

cudaError_t NonBlockingStreamDoesNotWaitForDefault(bool faulty) {
  const Stream stream(faulty ? cudaStreamNonBlocking : cudaStreamDefault);
  const DeviceArray<int> in(Zeros());
  const DeviceArray<int> out(Zeros());
  EXPECT_EQ(FillInts(in.data(), kInts, 7, nullptr), cudaSuccess);
  EXPECT_EQ(CopyInts(in.data(), out.data(), kInts, stream), cudaSuccess);
  return cudaDeviceSynchronize();
}

// What the host has waited for is before whatever it asks for then, in any stream.
cudaError_t HostWaitsForTheWrongStream(bool faulty) {
  const Stream a;
  const Stream b;
  const DeviceArray<int> in(Zeros());
  const DeviceArray<int> out(Zeros());
  EXPECT_EQ(FillInts(in.data(), kInts, 7, a), cudaSuccess);
  EXPECT_EQ(cudaStreamSynchronize(faulty ? b : a), cudaSuccess);
  EXPECT_EQ(CopyInts(in.data(), out.data(), kInts, b), cudaSuccess);
  return cudaDeviceSynchronize();
}

// Two read the same, and only one of them comes before the write.
cudaError_t WriteAfterOneOfTwoReaders(bool faulty) {
  const Stream a;
  const Stream b;
  const DeviceArray<int> in(Zeros());
  const DeviceArray<int> out(Zeros());
  const DeviceArray<int> other(Zeros());
  EXPECT_EQ(CopyInts(in.data(), out.data(), kInts, a), cudaSuccess);
  EXPECT_EQ(CopyInts(in.data(), other.data(), kInts, b), cudaSuccess);
  if (!faulty) Order(a, b);
  EXPECT_EQ(FillInts(in.data(), kInts, 1, b), cudaSuccess);
  return cudaDeviceSynchronize();
}

// That the host knows of the one makes it no earlier for the other, which was asked for before.
cudaError_t HostWaitsTooLate(bool faulty) {
  const Stream a;
  const Stream b;
  const DeviceArray<int> in(Zeros());
  const DeviceArray<int> out(Zeros());
  EXPECT_EQ(FillInts(in.data(), kInts, 7, a), cudaSuccess);
  if (!faulty) Order(a, b);
  EXPECT_EQ(CopyInts(in.data(), out.data(), kInts, b), cudaSuccess);
  const cudaError_t first = cudaStreamSynchronize(a);
  const cudaError_t second = cudaStreamSynchronize(b);
  return first != cudaSuccess ? first : second;
}

cudaError_t TwoStreamsCopyToOnePlaceOfTheHosts(bool faulty) {
  const Stream a;
  const Stream b;
  const DeviceArray<int> in(Zeros());
  std::vector<int> host(kInts);
  EXPECT_EQ(cudaMemcpyAsync(host.data(), in.data(), 400, cudaMemcpyDeviceToHost, a), cudaSuccess);
  if (!faulty) Order(a, b);
  EXPECT_EQ(cudaMemcpyAsync(host.data() + 99, in.data(), 400, cudaMemcpyDeviceToHost, b),
            cudaSuccess);
  return cudaDeviceSynchronize();
}

// Atomics of both would be none.
cudaError_t PlainWriteWhileAnotherStreamCounts(bool faulty) {
  const Stream a;
  const Stream b;
  const DeviceArray<int> counter(Zeros());
  EXPECT_EQ(CountThreads(counter.data(), a), cudaSuccess);
  EXPECT_EQ(faulty ? AddTo(counter.data(), 1, 1, b) : CountThreads(counter.data(), b), cudaSuccess);
  const cudaError_t error = cudaDeviceSynchronize();
  if (!faulty) {
    EXPECT_EQ(counter.Read()[0], 128);
  }
  return error;
}

std::vector<HostFault> StreamFaults() {
  return {
      {"KernelReadsWhatAnotherStreamCopies",
       Fault::kRace,
       {"of global memory", "cudaMemcpyAsync", "CopyKernel", "stream_fault_test.cc:"},
       KernelReadsWhatAnotherStreamCopies},
      {"KernelReadsWhatAnotherStreamsKernelWrites",
       Fault::kRace,
       {"FillKernel", "CopyKernel", "stream_kernels.cu:", "thread ("},
       KernelReadsWhatAnotherStreamsKernelWrites},
      {"SetOverwritesWhatAnotherStreamReads",
       Fault::kRace,
       {"cudaMemsetAsync", "CopyKernel"},
       SetOverwritesWhatAnotherStreamReads},
      {"EventBeforeTheKernel", Fault::kRace, {"FillKernel", "CopyKernel"}, EventBeforeTheKernel},
      {"CopyTouchesOneIntOfAnotherStreams",
       Fault::kRace,
       {"4000 bytes into an allocation"},
       CopyTouchesOneIntOfAnotherStreams},
      {"DefaultStreamDoesNotWaitForNonBlockingOnes",
       Fault::kRace,
       {"cudaMemcpy (", "FillKernel", "the default stream"},
       DefaultStreamDoesNotWaitForNonBlockingOnes},
      {"NonBlockingStreamDoesNotWaitForDefault",
       Fault::kRace,
       {"FillKernel", "CopyKernel"},
       NonBlockingStreamDoesNotWaitForDefault},
      {"HostWaitsForTheWrongStream",
       Fault::kRace,
       {"FillKernel", "CopyKernel"},
       HostWaitsForTheWrongStream},
      {"HostWaitsTooLate", Fault::kRace, {"FillKernel", "CopyKernel"}, HostWaitsTooLate},
      {"WriteAfterOneOfTwoReaders",
       Fault::kRace,
       {"FillKernel", "CopyKernel"},
       WriteAfterOneOfTwoReaders},
      {"PlainWriteWhileAnotherStreamCounts",
       Fault::kRace,
       {"CountKernel", "AddKernel"},
       PlainWriteWhileAnotherStreamCounts},
      {"TwoStreamsCopyToOnePlaceOfTheHosts",
       Fault::kRace,
       {"host memory", "cudaMemcpyAsync"},
       TwoStreamsCopyToOnePlaceOfTheHosts},
  };
}

// Where nothing has been written before, the seed decides which of two faults it is.
TEST(StreamOrder, FirstWriteThatNothingOrdersIsNamed) {
  for (uint64_t seed = 0; seed < kStreamSeeds; ++seed) {
    const WithOptions options(seed);
    const Stream a;
    const Stream b;
    const DeviceArray<int> in(kInts);
    const DeviceArray<int> out(kInts);
    ASSERT_EQ(cudaMemsetAsync(in.data(), 0, kIntBytes, a), cudaSuccess);
    ASSERT_EQ(CopyInts(in.data(), out.data(), kInts, b), cudaSuccess);
    ASSERT_EQ(cudaDeviceSynchronize(), cudaErrorLaunchFailure);
    const simt::Error& error = simt::LastReport().errors.at(0);
    EXPECT_TRUE(error.fault == Fault::kRace || error.fault == Fault::kUninitialised) << error.text;
    EXPECT_NE(error.text.find("cudaMemsetAsync"), std::string::npos) << error.text;
  }
}

class StreamFault : public ::testing::TestWithParam<HostFault> {};
TEST_P(StreamFault, FaultIsFoundUnderEverySeed) { ExpectFound(GetParam()); }
TEST_P(StreamFault, NothingIsSaidWithoutTheFault) { ExpectNothing(GetParam()); }
INSTANTIATE_TEST_SUITE_P(Faults, StreamFault, ::testing::ValuesIn(StreamFaults()), NameOfFault);

}  // namespace
}  // namespace quern::kernels::testing
