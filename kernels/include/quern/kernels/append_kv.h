#pragma once

#include <cstdint>
#include <string>

#include "quern/kernels/device_kv.h"
#include "quern/kernels/rope.h"

namespace quern::kernels {

// What lies between the QKV product and attention, in one pass on an NVIDIA GPU of compute
// capability 8.0 or later: for each head of Q and K an optional RMSNorm over the head (QK-norm:
// Henry et al. 2020; Qwen3, Gemma 3), then rotary embedding; and of Q, K and V
// alike a rotation that spreads large elements, where the cache's codes want it. Q is written as
// activations, K and V into the cache. All pointers are to the current device's memory.
struct AppendKvArgs {
  ActivationType type;  // of qkv and q
  // [tokens, (q_heads + 2 kv_heads) * head_dim]: heads of Q, then K, then V. 16-byte aligned.
  const void* qkv;
  int64_t qkv_stride;  // elements from token to token: a multiple of 8
  void* q;             // [tokens, q_heads * head_dim], 16-byte aligned; may be qkv itself
  int64_t q_stride;    // a multiple of 8; qkv_stride where q is qkv
  int64_t tokens;      // from 0
  int q_heads;         // from 1
  // RMSNorm's weights float32 [head_dim], 16-byte aligned, of Q and of K (x / sqrt(mean(x^2) +
  // epsilon) * weight); null: none.
  const float* q_norm;
  const float* k_norm;
  float epsilon;
  // Rotary embedding of the first rope_dims elements (0: none; else a multiple of head_dim / 16, at
  // most head_dim) by position * frequencies[i], i < rope_dims / 2, in radians, taken in float64.
  RopePairs pairs;
  int rope_dims;
  const double* frequencies;
  const int32_t* positions;  // [tokens]
  // Then each head of Q, K and V times the Hadamard matrix over the square root of its size
  // (hadamard.h), as the CPU's backend has it where the cache is quantised: scores stay, and
  // attention's results are to be rotated back (rotate_heads.h). An element of Q may become up to
  // sqrt(head_dim) times the head's largest: binary16 ends at 65504.
  bool rotate;
  // [tokens]: where each token goes, block * block_tokens + slot, each place once; below 0: K and V
  // are not written. Not checked against kv.blocks on the host; places beyond are not written.
  const int64_t* places;
  DeviceKv kv;
};

// Starts it on `stream` of the current device and returns "", or what is wrong; arguments that are
// wrong start nothing. float32 throughout, rounded once at the end. Codes are those of
// QuantizeKvHead for the same float32 K and V, those of int8 bit by bit; int4's scale is made of
// sums in another order, so that it may differ by a unit, and codes with it by a level. May be
// called by several threads and captured into a graph.
[[nodiscard]] std::string AppendKv(const AppendKvArgs& args, CUstream_st* stream);

}  // namespace quern::kernels
