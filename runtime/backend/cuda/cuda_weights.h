#pragma once

#include <cuda_runtime.h>

#include <memory>
#include <span>
#include <string>

#include "quern/kernels/activation_type.h"
#include "quern/kernels/gguf_weights.h"
#include "runtime/backend/backend.h"
#include "runtime/backend/cuda/device_memory.h"
#include "runtime/base/thread_pool.h"

namespace quern {

// A weight matrix on the device: of one of GGUF's quantised types as kernels::GgufMatrix has it, or
// dense [rows, cols] in the activations' type.
class CudaMatrix : public Matrix {
 public:
  CudaMatrix(const kernels::GgufMatrix& shape, bool dense, DeviceBuffer memory)
      : shape_(shape), dense_(dense), memory_(std::move(memory)) {
    shape_.data = memory_.as<uint8_t>();
  }
  int64_t rows() const override { return shape_.rows; }
  int64_t cols() const override { return shape_.cols; }
  int64_t bytes() const override { return static_cast<int64_t>(memory_.size()); }
  bool dense() const { return dense_; }
  // `data` alone is right where it is dense.
  const kernels::GgufMatrix& shape() const { return shape_; }

 private:
  kernels::GgufMatrix shape_;
  bool dense_;
  DeviceBuffer memory_;
};

class CudaVector : public Vector {
 public:
  CudaVector(int64_t size, DeviceBuffer memory) : size_(size), memory_(std::move(memory)) {}
  int64_t size() const override { return size_; }
  const float* data() const { return memory_.as<float>(); }

 private:
  int64_t size_;
  DeviceBuffer memory_;
};

// Of a matrix and a vector of this backend.
inline const CudaMatrix& OnDevice(const Matrix& matrix) {
  return static_cast<const CudaMatrix&>(matrix);
}
inline const float* OnDevice(const Vector* vector) {
  return vector == nullptr ? nullptr : static_cast<const CudaVector&>(*vector).data();
}

// Lays weights out in pinned memory and copies them to the device: while one part is on its way the
// next is laid out.
class WeightUploader {
 public:
  // Copies go to `stream`, which outlives what is made.
  WeightUploader(const CudaStream& stream, kernels::ActivationType activations, int threads)
      : stream_(stream), activations_(activations), pool_(threads) {}

  // As Backend::LoadMatrix; kUnsupported for a type or a width that no kernel takes, or a dense
  // weight beyond the activations' range.
  Result<std::unique_ptr<Matrix>> LoadMatrix(kernels::WeightType type,
                                             std::span<const std::byte> data, int64_t rows,
                                             int64_t cols, const Backend::PartTaken& taken);
  Result<std::unique_ptr<Vector>> LoadVector(std::span<const float> values);

 private:
  // Rows [begin, end) as they lie on the device, into `to`. False: a number is out of range.
  bool WriteDense(kernels::WeightType type, const std::byte* source, int64_t rows, int64_t cols,
                  uint16_t* to);
  void WriteGguf(const kernels::GgufMatrix& part, const std::byte* source, uint8_t* to);

  struct Stage {
    PinnedBuffer memory;
    CudaEvent copied;
  };

  const CudaStream& stream_;
  kernels::ActivationType activations_;
  ThreadPool pool_;
  Stage stages_[2];
};

}  // namespace quern
