#pragma once

#include <cuda_runtime.h>

#include <vector>

#include "quern/kernels/activation_type.h"
#include "runtime/backend/backend.h"
#include "runtime/backend/cuda/device_memory.h"
#include "runtime/base/result.h"

namespace quern {

// Mixtures of experts on a GPU: rows are sorted by expert on the device, so that an expert's
// weights are read once for a tile of rows, and one launch has the products of all experts. All
// layers work in one workspace. Not thread-safe.
class CudaExperts {
 public:
  explicit CudaExperts(kernels::ActivationType activations) : activations_(activations) {}

  // As Backend::AddExperts.
  int Add(const ExpertsSpec& spec);
  // Makes room for up to `rows` rows, from 1; the workspace moves. kResourceExhausted: it has room
  // for none. kUnsupported: more than a launch counts.
  Status Reserve(int64_t rows, cudaStream_t stream);
  void Free() { workspace_ = {}; }
  // As Backend::Experts, of no more rows than there is room for, put on `stream`; allocates
  // nothing. `used_rows`, a number on the device: rows from it on go through no expert, and zeros
  // come out (null: there are none).
  Status Run(int number, const Tensor& x, const int32_t* used_rows, const Tensor& out,
             cudaStream_t stream) const;

 private:
  const kernels::ActivationType activations_;
  std::vector<ExpertsSpec> specs_;
  DeviceBuffer workspace_;
};

}  // namespace quern
