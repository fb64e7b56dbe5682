#pragma once

// What the device's tests and benchmarks share. They are plain programs: a machine with a GPU need
// not have GoogleTest.

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "quern/kernels/numeric_types.h"
#include "quern/kernels/w4a16.h"

namespace quern::kernels::testing {

[[noreturn]] inline void Die(const std::string& what) {
  std::fprintf(stderr, "error: %s\n", what.c_str());
  std::exit(1);
}

inline void Check(cudaError_t error, const char* call, int line) {
  if (error != cudaSuccess) {
    Die(std::string(call) + " (line " + std::to_string(line) + "): " + cudaGetErrorString(error));
  }
}
#define QUERN_CUDA_CHECK(call) ::quern::kernels::testing::Check((call), #call, __LINE__)

// Device memory, freed at the end of its scope.
class DeviceMemory {
 public:
  explicit DeviceMemory(size_t bytes) : bytes_(bytes) {
    QUERN_CUDA_CHECK(cudaMalloc(&data_, bytes));
  }
  template <typename T>
  explicit DeviceMemory(const std::vector<T>& host) : DeviceMemory(host.size() * sizeof(T)) {
    QUERN_CUDA_CHECK(cudaMemcpy(data_, host.data(), bytes_, cudaMemcpyHostToDevice));
  }
  DeviceMemory(DeviceMemory&& other) noexcept : data_(other.data_), bytes_(other.bytes_) {
    other.data_ = nullptr;
  }
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;
  DeviceMemory& operator=(DeviceMemory&&) = delete;
  ~DeviceMemory() { cudaFree(data_); }

  template <typename T = void>
  T* As() const {
    return static_cast<T*>(data_);
  }
  size_t bytes() const { return bytes_; }

  void Fill(int byte) { QUERN_CUDA_CHECK(cudaMemset(data_, byte, bytes_)); }

  template <typename T>
  std::vector<T> Read(size_t first, size_t count) const {
    std::vector<T> host(count);
    QUERN_CUDA_CHECK(
        cudaMemcpy(host.data(), As<T>() + first, count * sizeof(T), cudaMemcpyDeviceToHost));
    return host;
  }

 private:
  void* data_ = nullptr;
  size_t bytes_;
};

// Fills device memory with copies of a block of random bytes.
inline void FillRandom(std::mt19937_64& random, DeviceMemory& memory) {
  const size_t block = std::min<size_t>(memory.bytes(), size_t{32} << 20);
  std::vector<uint64_t> bytes((block + 7) / 8);
  for (uint64_t& word : bytes) word = random();
  QUERN_CUDA_CHECK(cudaMemcpy(memory.As(), bytes.data(), block, cudaMemcpyHostToDevice));
  for (size_t at = block; at < memory.bytes(); at += block) {
    QUERN_CUDA_CHECK(cudaMemcpy(memory.As<uint8_t>() + at, memory.As(),
                                std::min(block, memory.bytes() - at), cudaMemcpyDeviceToDevice));
  }
}

inline uint16_t FloatToBf16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

inline uint16_t Round(ActivationType type, float value) {
  return type == ActivationType::kF16 ? FloatToHalf(value) : FloatToBf16(value);
}
inline float Widen(ActivationType type, uint16_t bits) {
  return type == ActivationType::kF16 ? HalfToFloat(bits) : Bf16ToFloat(bits);
}

inline const char* Name(ActivationType type) {
  return type == ActivationType::kF16 ? "f16" : "bf16";
}
inline const char* Name(W4Format format) {
  constexpr const char* kNames[] = {"awq-128", "q4_0-32", "q4_1-32"};
  return kNames[static_cast<int>(format)];
}

// Scales of a packed matrix: random binary16 of a model's size, and AWQ's zeros.
inline std::vector<uint16_t> RandomScales(std::mt19937_64& random, const W4Matrix& matrix,
                                          size_t values) {
  std::normal_distribution<float> normal(0, 0.02f);
  std::vector<uint16_t> scales(values);
  for (size_t i = 0; i < values; ++i) {
    const bool zero = matrix.format == W4Format::kAwq && i % 2 == 1;
    scales[i] = zero ? static_cast<uint16_t>(random() % 16) : FloatToHalf(normal(random));
  }
  return scales;
}

// A packed matrix of random bits in the device's memory.
struct DeviceWeights {
  DeviceMemory codes;
  DeviceMemory scales;
  W4Matrix matrix;

  DeviceWeights(std::mt19937_64& random, W4Matrix shape)
      : codes(static_cast<size_t>(W4CodeBytes(shape))),
        scales(static_cast<size_t>(W4ScaleBytes(shape))),
        matrix(shape) {
    FillRandom(random, codes);
    // A row tile's scales, or 4 MiB of them, over and over: a record never begins in mid-block.
    const size_t total = scales.bytes() / 2;
    const std::vector<uint16_t> block =
        RandomScales(random, shape, std::min<size_t>(total, size_t{2} << 20));
    for (size_t at = 0; at < total; at += block.size()) {
      QUERN_CUDA_CHECK(cudaMemcpy(scales.As<uint16_t>() + at, block.data(),
                                  std::min(block.size(), total - at) * 2, cudaMemcpyHostToDevice));
    }
    matrix.codes = codes.As<uint8_t>();
    matrix.scales = scales.As<uint16_t>();
  }
};

}  // namespace quern::kernels::testing
