#include "quern/kernels/rope.h"

#include <cmath>

namespace quern::kernels {

void RopeAngles(int32_t position, const double* frequencies, int n, float* cosines, float* sines) {
  for (int i = 0; i < n; ++i) {
    const double angle = position * frequencies[i];
    cosines[i] = static_cast<float>(std::cos(angle));
    sines[i] = static_cast<float>(std::sin(angle));
  }
}

namespace ref {

void Rope(RopePairs pairs, const float* cosines, const float* sines, int dims, int heads,
          int head_dim, float* x) {
  for (int head = 0; head < heads; ++head, x += head_dim) {
    for (int i = 0; i < dims / 2; ++i) {
      const int a = pairs == RopePairs::kAdjacent ? 2 * i : i;
      const int b = pairs == RopePairs::kAdjacent ? 2 * i + 1 : i + dims / 2;
      const double xa = x[a];
      const double xb = x[b];
      x[a] = static_cast<float>(xa * cosines[i] - xb * sines[i]);
      x[b] = static_cast<float>(xa * sines[i] + xb * cosines[i]);
    }
  }
}

}  // namespace ref
}  // namespace quern::kernels
