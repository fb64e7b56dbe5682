#pragma once

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

}  // namespace quern
