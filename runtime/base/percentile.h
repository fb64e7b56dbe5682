#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

namespace quern {

// Linear between the two nearest ranks (NumPy's default). `sorted` ascends and is not empty; `part`
// is from 0 to 1.
template <typename T>
double PercentileOfSorted(std::span<const T> sorted, double part) {
  const double rank = part * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(rank);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  const auto low = static_cast<double>(sorted[below]);
  return low + (rank - static_cast<double>(below)) * (static_cast<double>(sorted[above]) - low);
}

}  // namespace quern
