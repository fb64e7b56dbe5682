#pragma once

#include <cstdint>
#include <string>

#include "quern/kernels/activation_type.h"

struct CUstream_st;  // what cudaStream_t points to: the header needs no CUDA

namespace quern::kernels {

// Each head times the Hadamard matrix over the square root of its size (hadamard.h), its own
// inverse: attention's results over a cache of rotated heads, rotated back (AppendKvArgs::rotate).
// On an NVIDIA GPU of compute capability 8.0 or later; all pointers are to the current device's
// memory, and all strides are in elements.
struct RotateHeadsArgs {
  ActivationType type;  // of x and out
  int64_t tokens;       // from 0 (nothing is done); at most 2^31 - 1 groups of four heads in all
  int heads;            // of a token: from 1 to 2^20
  int head_dim;         // 64, 128 or 256
  const void* x;        // [tokens, heads * head_dim], 16-byte aligned
  int64_t x_stride;     // a multiple of 8, at least heads * head_dim
  void* out;            // as x; may be x itself, with the same stride, else none of its memory
  int64_t out_stride;
};

// Starts it on `stream` of the current device and returns "", or what is wrong with the arguments;
// then nothing is started. In float32, rounded once; each head is one warp's, and read and written
// once. May be called by several threads, and captured into a graph.
[[nodiscard]] std::string RotateHeads(const RotateHeadsArgs& args, CUstream_st* stream);

}  // namespace quern::kernels
