#pragma once

#include <span>
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
  // Of one that can be screened (HeadScreen), kernels::RaiseGreatestScales' of all tiles; else
  // empty.
  std::span<const float> greatest_scales() const { return greatest_scales_; }
  void set_greatest_scales(std::vector<float> scales) { greatest_scales_ = std::move(scales); }

 private:
  kernels::PackedMatrix packed_;
  AlignedMemory memory_;
  std::vector<float> greatest_scales_;
};

// The same of experts, each repacked for itself, so that no tile holds rows of two.
class CpuExperts : public ExpertMatrices {
 public:
  CpuExperts(std::vector<kernels::PackedMatrix> experts, AlignedMemory memory)
      : experts_(std::move(experts)), memory_(std::move(memory)) {}
  int experts() const override { return static_cast<int>(experts_.size()); }
  int64_t rows() const override { return experts_[0].rows; }
  int64_t cols() const override { return experts_[0].cols; }
  int64_t bytes() const override { return static_cast<int64_t>(memory_.size()); }
  const kernels::PackedMatrix& packed(int expert) const {
    return experts_[static_cast<size_t>(expert)];
  }

 private:
  std::vector<kernels::PackedMatrix> experts_;  // at least one
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

// Of a matrix of this backend.
inline const kernels::PackedMatrix& Packed(const Matrix& matrix) {
  return static_cast<const CpuMatrix&>(matrix).packed();
}

// Of a vector of this backend.
inline const float* Values(const Vector& vector) {
  return static_cast<const CpuVector&>(vector).values();
}

}  // namespace quern
