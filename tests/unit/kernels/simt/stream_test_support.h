#pragma once

#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "kernels/simt/simt.h"
#include "tests/unit/kernels/simt/simt_test_support.h"

namespace quern::kernels::testing {

inline constexpr int kInts = 3000;  // ends within a page
inline constexpr size_t kIntBytes = kInts * sizeof(int);

class Stream {
 public:
  explicit Stream(unsigned flags = cudaStreamNonBlocking) {
    EXPECT_EQ(cudaStreamCreateWithFlags(&stream_, flags), cudaSuccess);
  }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  ~Stream() { EXPECT_EQ(cudaStreamDestroy(stream_), cudaSuccess); }
  operator cudaStream_t() const { return stream_; }  // NOLINT: as it is used

 private:
  cudaStream_t stream_ = nullptr;
};

class Event {
 public:
  explicit Event(unsigned flags = cudaEventDisableTiming) {
    EXPECT_EQ(cudaEventCreateWithFlags(&event_, flags), cudaSuccess);
  }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  ~Event() { EXPECT_EQ(cudaEventDestroy(event_), cudaSuccess); }
  operator cudaEvent_t() const { return event_; }  // NOLINT: as it is used

 private:
  cudaEvent_t event_ = nullptr;
};

// `later` goes on when what `earlier` has been asked for is done.
inline void Order(cudaStream_t earlier, cudaStream_t later) {
  const Event event;
  EXPECT_EQ(cudaEventRecord(event, earlier), cudaSuccess);
  EXPECT_EQ(cudaStreamWaitEvent(later, event), cudaSuccess);
}

template <typename T>
class PinnedArray {
 public:
  explicit PinnedArray(size_t count) : count_(count) {
    EXPECT_EQ(cudaMallocHost(&data_, count * sizeof(T)), cudaSuccess);
  }
  PinnedArray(const PinnedArray&) = delete;
  PinnedArray& operator=(const PinnedArray&) = delete;
  ~PinnedArray() { EXPECT_EQ(cudaFreeHost(data_), cudaSuccess); }
  T* data() const { return data_; }
  size_t bytes() const { return count_ * sizeof(T); }
  T& operator[](size_t i) const { return data_[i]; }

 private:
  T* data_ = nullptr;
  size_t count_;
};

// A program of the host's with a fault, or the same one without it.
struct HostFault {
  std::string name;
  simt::Fault fault;
  std::vector<std::string> says;  // words that the error's text must hold
  // What the last call that waits for the device returns.
  std::function<cudaError_t(bool faulty)> run;
};

inline void PrintTo(const HostFault& fault, std::ostream* out) { *out << fault.name; }

inline std::string NameOfFault(const ::testing::TestParamInfo<HostFault>& info) {
  return info.param.name;
}

inline constexpr uint64_t kStreamSeeds = 8;

inline void ExpectFound(const HostFault& one) {
  for (uint64_t seed = 0; seed < kStreamSeeds; ++seed) {
    const WithOptions options(seed);
    ASSERT_EQ(one.run(true), cudaErrorLaunchFailure) << "seed " << seed;
    const simt::Error& error = simt::LastReport().errors.at(0);
    EXPECT_STREQ(Name(error.fault), Name(one.fault)) << error.text;
    for (const std::string& word : one.says) {
      EXPECT_NE(error.text.find(word), std::string::npos) << word << " is not in: " << error.text;
    }
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess) << "it is told once";
  }
}

inline void ExpectNothing(const HostFault& one) {
  for (uint64_t seed = 0; seed < kStreamSeeds; ++seed) {
    const WithOptions options(seed);
    EXPECT_EQ(one.run(false), cudaSuccess)
        << cudaGetErrorString(cudaErrorLaunchFailure) << ", seed " << seed;
  }
}

}  // namespace quern::kernels::testing
