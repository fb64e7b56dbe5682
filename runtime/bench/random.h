#pragma once

#include <cstdint>

namespace quern::bench {

// SplitMix64 (Steele, Lea, Flood 2014): small, and the same numbers with every standard library,
// which std's distributions do not promise. Not thread-safe.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  uint64_t Next() {
    uint64_t z = state_ += 0x9E3779B97F4A7C15;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
    return z ^ (z >> 31);
  }
  // From 0 to `bound` - 1; `bound` is at least 1. The bias is below bound / 2^32.
  uint32_t Below(uint32_t bound) { return static_cast<uint32_t>(((Next() >> 32) * bound) >> 32); }
  // In (0, 1].
  double Unit() { return static_cast<double>((Next() >> 11) + 1) * 0x1p-53; }

 private:
  uint64_t state_;
};

// A seed made of two: streams of numbers that have nothing to do with each other.
inline uint64_t MixSeeds(uint64_t a, uint64_t b) {
  return Random(a ^ (Random(b).Next() * 0x9E3779B97F4A7C15)).Next();
}

}  // namespace quern::bench
