#include "quern/kernels/hadamard.h"

#include <bit>
#include <cmath>
#include <vector>

namespace quern::kernels::ref {

// Element (i, j) of the Hadamard matrix is -1 to the number of ones that i and j share.
void Hadamard(int n, float* x) {
  const int block = HadamardBlock(n);
  std::vector<double> sums(static_cast<size_t>(block));
  for (int begin = 0; begin < n; begin += block) {
    for (int i = 0; i < block; ++i) {
      double& sum = sums[static_cast<size_t>(i)] = 0;
      for (int j = 0; j < block; ++j) {
        const bool negative = std::popcount(static_cast<unsigned>(i & j)) % 2 == 1;
        sum += negative ? -x[begin + j] : x[begin + j];
      }
    }
    for (int i = 0; i < block; ++i) {
      x[begin + i] = static_cast<float>(sums[static_cast<size_t>(i)] / std::sqrt(block));
    }
  }
}

}  // namespace quern::kernels::ref
