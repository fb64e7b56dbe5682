#pragma once

#include <utility>
#include <vector>

#include "quern/kernels/packed_matrix.h"
#include "runtime/backend/backend.h"
#include "runtime/backend/cpu/aligned_memory.h"

namespace quern {

// A weight repacked for the CPU kernels: the only resident copy.
class CpuMatrix : public Matrix {
 public:
  CpuMatrix(const kernels::PackedMatrix& shape, AlignedMemory memory)
      : packed_(shape), memory_(std::move(memory)) {
    packed_.data = memory_.as<uint8_t>();
  }
  int64_t rows() const override { return packed_.rows; }
  int64_t cols() const override { return packed_.cols; }
  int64_t bytes() const override { return static_cast<int64_t>(memory_.size()); }
  const kernels::PackedMatrix& packed() const { return packed_; }

 private:
  kernels::PackedMatrix packed_;
  AlignedMemory memory_;
};

class CpuVector : public Vector {
 public:
  explicit CpuVector(std::vector<float> values) : values_(std::move(values)) {}
  int64_t size() const override { return std::ssize(values_); }
  const float* values() const { return values_.data(); }

 private:
  std::vector<float> values_;
};

// Of a vector of this backend.
inline const float* Values(const Vector& vector) {
  return static_cast<const CpuVector&>(vector).values();
}

}  // namespace quern
