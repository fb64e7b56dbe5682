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

// The weights of all experts on the device, one after the other: each as CudaMatrix has its own.
class CudaExpertMatrices : public ExpertMatrices {
 public:
  CudaExpertMatrices(int experts, const kernels::GgufMatrix& one, bool dense, DeviceBuffer memory)
      : experts_(experts), one_(one), dense_(dense), memory_(std::move(memory)) {
    one_.data = memory_.as<uint8_t>();
  }
  int experts() const override { return experts_; }
  int64_t rows() const override { return one_.rows; }
  int64_t cols() const override { return one_.cols; }
  int64_t bytes() const override { return static_cast<int64_t>(memory_.size()); }
  bool dense() const { return dense_; }
  // Of the first; its data are those of all. `data` alone is right where it is dense.
  const kernels::GgufMatrix& one() const { return one_; }

 private:
  int experts_;
  kernels::GgufMatrix one_;
  bool dense_;
  DeviceBuffer memory_;
};

// A router in two parts of the activations' type, [2][experts, cols]: the weights rounded, then
// what the rounding left, rounded. Their products' sum has 16 bits of each weight's mantissa in
// bfloat16; in binary16 22, or what is above 2^-25.
class CudaRouter : public Matrix {
 public:
  CudaRouter(int64_t experts, int64_t cols, DeviceBuffer memory)
      : experts_(experts), cols_(cols), memory_(std::move(memory)) {}
  int64_t rows() const override { return experts_; }
  int64_t cols() const override { return cols_; }
  int64_t bytes() const override { return static_cast<int64_t>(memory_.size()); }
  const void* data() const { return memory_.as<void>(); }

 private:
  int64_t experts_;
  int64_t cols_;
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

// Of what this backend loaded.
inline const CudaMatrix& OnDevice(const Matrix& matrix) {
  return static_cast<const CudaMatrix&>(matrix);
}
inline const CudaExpertMatrices& OnDevice(const ExpertMatrices& matrices) {
  return static_cast<const CudaExpertMatrices&>(matrices);
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
  // The same of experts.
  Result<std::unique_ptr<ExpertMatrices>> LoadExperts(kernels::WeightType type,
                                                      std::span<const std::byte> data, int experts,
                                                      int64_t rows, int64_t cols,
                                                      const Backend::PartTaken& taken);
  // As Backend::LoadRouter.
  Result<std::unique_ptr<Matrix>> LoadRouter(std::span<const std::byte> data, int64_t experts,
                                             int64_t cols);
  Result<std::unique_ptr<Vector>> LoadVector(std::span<const float> values);

 private:
  struct Stage {
    PinnedBuffer memory;
    CudaEvent copied;
  };

  // `count` matrices [rows, cols], one after the other, as they lie on the device.
  Result<DeviceBuffer> Upload(kernels::WeightType type, std::span<const std::byte> data,
                              int64_t count, int64_t rows, int64_t cols,
                              const Backend::PartTaken& taken);
  // Where the next part is laid out: `bytes` that no copy uses any more.
  Result<Stage*> NextStage(size_t bytes);
  // Puts the copy of what was laid out, from byte `from` on, on the stream.
  Status Copy(const Stage& stage, size_t from, size_t bytes, uint8_t* to);
  // Rows [begin, end) as they lie on the device, into `to`. False: a number is out of range.
  bool WriteDense(kernels::WeightType type, const std::byte* source, int64_t rows, int64_t cols,
                  uint16_t* to);
  void WriteGguf(const kernels::GgufMatrix& part, const std::byte* source, uint8_t* to);
  // `count` float32 numbers in two parts, `high` and `low`. False: one is out of range.
  bool WriteParts(const std::byte* source, int64_t count, uint16_t* high, uint16_t* low);

  const CudaStream& stream_;
  kernels::ActivationType activations_;
  ThreadPool pool_;
  Stage stages_[2];
  int stage_ = 0;
};

}  // namespace quern
