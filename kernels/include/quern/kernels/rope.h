#pragma once

#include <cstdint>

namespace quern::kernels {

// Rotary position embedding (Su et al. 2021): which two elements of a head are turned together.
enum class RopePairs {
  kAdjacent,  // (2i, 2i + 1): GGUF's llama, whose Q and K rows were permuted for it
  kHalves,    // (i, i + dims / 2): "NeoX", gemma3
};

// Turns the first `dims` elements of each of `heads` heads (head_dim apart) by the angles of one
// position, given as cosines and sines [dims / 2]. In place.
using RopeFn = void (*)(RopePairs pairs, const float* cosines, const float* sines, int dims,
                        int heads, int head_dim, float* x);

// Cosine and sine of position * frequency for each of n frequencies (radians per token). The angle
// is taken in double precision: at position 100,000 a float32 angle would be off by 0.004.
void RopeAngles(int32_t position, const double* frequencies, int n, float* cosines, float* sines);

namespace ref {
void Rope(RopePairs pairs, const float* cosines, const float* sines, int dims, int heads,
          int head_dim, float* x);
}  // namespace ref
}  // namespace quern::kernels
