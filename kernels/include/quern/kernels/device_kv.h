#pragma once

#include <cstdint>
#include <string>

#include "quern/kernels/kv_format.h"
#include "quern/kernels/w4a16.h"

// A layer's KV cache on the GPU: the same blocks, formats and codes as the CPU's (attention.h,
// kv_format.h), with the scales apart, so that every token's codes are 16-byte aligned.
namespace quern::kernels {

enum class DeviceKvFormat {
  k16Bit,  // the activations' type; binary16 saturates at +-65504, as the CPU's cache does
  kInt8,   // signed bytes, a binary16 scale for each kKvGroup elements
  kInt4,   // V: byte i of a group's 16 has element i in its low four bits and element i + 16 in the
           // high ones, as indices into kInt4Levels, a binary16 scale a group; K: as kInt8
  // OCP FP8 E4M3 with one float32 scale for each KV head of K and of V, given beforehand. Values
  // beyond 448 scales saturate; infinities and NaN become NaN.
  kE4m3,
};

// What K is stored as in a cache of `format`; V is stored as `format`.
constexpr DeviceKvFormat DeviceKeyFormat(DeviceKvFormat format) {
  return format == DeviceKvFormat::kInt4 ? DeviceKvFormat::kInt8 : format;
}

// Of one token's codes of one head where K or V itself is of `format`.
constexpr int DeviceKvRowBytes(DeviceKvFormat format, int head_dim) {
  return format == DeviceKvFormat::k16Bit  ? 2 * head_dim
         : format == DeviceKvFormat::kInt4 ? head_dim / 2
                                           : head_dim;
}

constexpr bool HasGroupScales(DeviceKvFormat format) {
  return format == DeviceKvFormat::kInt8 || format == DeviceKvFormat::kInt4;
}

// All pointers are to the device's memory. Token i of a sequence lies in the block
// table[i / block_tokens], slot i % block_tokens. What no token was written to is never read.
struct DeviceKv {
  DeviceKvFormat format;
  ActivationType type;  // of k16Bit's elements
  // Codes [block][kv_head][slot][DeviceKvRowBytes], 16-byte aligned.
  void* k;
  void* v;
  // kInt8, kInt4: binary16 [block][kv_head][slot][head_dim / kKvGroup], 16-byte aligned; else null.
  uint16_t* k_scales;
  uint16_t* v_scales;
  // kE4m3: float32 [kv_heads], positive and finite; else null.
  const float* k_head_scales;
  const float* v_head_scales;
  int64_t blocks;    // at most 2^31 - 1
  int block_tokens;  // 16, 32 or 64
  int kv_heads;      // from 1
  int head_dim;      // 64, 128 or 256

  int64_t Row(int64_t block, int kv_head, int slot) const {
    return (block * kv_heads + kv_head) * block_tokens + slot;
  }
  int64_t rows() const { return blocks * kv_heads * block_tokens; }
};

// Bytes of codes, and of scales, of K and V together.
constexpr int64_t DeviceKvTokenBytes(DeviceKvFormat format, int head_dim) {
  const DeviceKvFormat key = DeviceKeyFormat(format);
  const int scales = head_dim / kKvGroup * 2;
  return DeviceKvRowBytes(key, head_dim) + DeviceKvRowBytes(format, head_dim) +
         (HasGroupScales(format) ? 2 * scales : 0);
}

// "" or what is wrong with the cache's shape or pointers, beginning with `what`.
[[nodiscard]] std::string CheckDeviceKv(const char* what, const DeviceKv& kv);

namespace ref {
// The head_dim values that one row stands for: `codes` of `format` (that of K or of V itself), and
// the row's group scales, or the head's scale. The layout's definition; host memory.
void ReadDeviceKvRow(DeviceKvFormat format, ActivationType type, const void* codes,
                     const uint16_t* scales, float head_scale, int head_dim, float* x);
}  // namespace ref
}  // namespace quern::kernels
