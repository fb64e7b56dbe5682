#pragma once

#include <cstdint>
#include <string>

struct CUstream_st;  // what cudaStream_t points to: the header needs no CUDA

namespace quern::kernels {

// y[i] = cap * tanh(y[i] / cap), in place, on an NVIDIA GPU of compute capability 8.0 or later:
// keeps logits within (-cap, cap) (Gemma 2, section 2). In float32, as the CPU's SoftcapFn.
struct SoftcapLogitsArgs {
  float cap;      // above 0, finite
  int64_t count;  // from 0 (nothing is done); a multiple of 4 below 2^40
  float* y;       // [count], 16-byte aligned device memory
};

// Starts it on `stream` of the current device and returns "", or what is wrong with the arguments;
// then nothing is started. May be called by several threads, and captured into a graph.
[[nodiscard]] std::string SoftcapLogits(const SoftcapLogitsArgs& args, CUstream_st* stream);

}  // namespace quern::kernels
