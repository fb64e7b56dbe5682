#pragma once

#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

namespace quern {

// `n` logits, normal about 0 with the standard deviation `spread`.
inline std::vector<float> RandomLogits(size_t n, float spread, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, spread);
  std::vector<float> logits(n);
  for (float& logit : logits) logit = normal(random);
  return logits;
}

}  // namespace quern
