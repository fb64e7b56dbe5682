#pragma once

#include <cstdint>

namespace quern::kernels {

// What K and V are stored as.
enum class KvDtype {
  kF16,  // IEEE binary16; values beyond +-65504 saturate rather than becoming infinite
  kF32,  // exact, at twice the memory: to tell the cache's rounding from other errors
  // Groups of kKvGroup elements of a head that share a binary16 scale; a head's last group is
  // padded with zeros. Meant for rotated heads (hadamard.h), whose elements are much alike.
  kInt8,  // scale, then 32 signed bytes: 8.5 bits an element
  // V as scale, then 16 bytes; byte i has element i in its low four bits and element i + 16 in the
  // high ones, as indices into kInt4Levels: 4.5 bits an element. K as kInt8: an error in K moves
  // every weight of the softmax, and 4 bits cost too much there.
  kInt4,
};

// What K is stored as in a cache of `dtype`; V is stored as `dtype`.
constexpr KvDtype KeyDtype(KvDtype dtype) {
  return dtype == KvDtype::kInt4 ? KvDtype::kInt8 : dtype;
}

inline constexpr int kKvGroup = 32;

// The 16 levels that lose least of a normal distribution (Max 1960, table I), the outermost at 127.
inline constexpr int8_t kInt4Levels[16] = {-127, -96, -75, -58, -44, -31, -18, -6,
                                           6,    18,  31,  44,  58,  75,  96,  127};

constexpr bool IsQuantized(KvDtype dtype) {
  return dtype == KvDtype::kInt8 || dtype == KvDtype::kInt4;
}

// Of a quantised dtype, the scale included.
constexpr int64_t KvGroupBytes(KvDtype dtype) {
  return dtype == KvDtype::kInt8 ? 2 + kKvGroup : 2 + kKvGroup / 2;
}

// Of one token's V of one head, or of its K where KeyDtype is `dtype`: scales and padding included.
constexpr int64_t KvHeadBytes(KvDtype dtype, int head_dim) {
  if (IsQuantized(dtype)) return (head_dim + kKvGroup - 1) / kKvGroup * KvGroupBytes(dtype);
  return int64_t{dtype == KvDtype::kF32 ? 4 : 2} * head_dim;
}

// Of one token's K and V of one head.
constexpr int64_t KvTokenBytes(KvDtype dtype, int head_dim) {
  return KvHeadBytes(KeyDtype(dtype), head_dim) + KvHeadBytes(dtype, head_dim);
}

// Writes `x` [head_dim] as groups of `dtype`, a quantised one. The error of an int8 element is at
// most half a step of its group, a 254th of its largest magnitude, and what rounding the scale to
// binary16 adds; int4 takes the scale that fits its levels best. A group with an infinity or a NaN
// gets NaN as its scale, so that what is computed from it says so. The same bits on every
// instruction set.
void QuantizeKvHead(KvDtype dtype, const float* x, int head_dim, uint8_t* groups);

namespace ref {
// The head_dim values that `groups` stand for.
void DequantizeKvHead(KvDtype dtype, const uint8_t* groups, int head_dim, float* x);
}  // namespace ref
}  // namespace quern::kernels
