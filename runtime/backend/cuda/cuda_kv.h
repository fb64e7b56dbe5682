#pragma once

#include <vector>

#include "quern/kernels/device_kv.h"
#include "runtime/backend/backend.h"
#include "runtime/backend/cuda/device_memory.h"
#include "runtime/backend/cuda/step_inputs.h"

namespace quern {

// The KV cache on the device: a part for the layers that see all tokens, and one for those with
// windows where these have blocks of their own.
class CudaKv {
 public:
  // kUnsupported for what no kernel takes: a dtype, a block's or a head's size.
  static Status Check(const KvShape& shape, const KvLayout& layout);
  // As Backend::AllocateKv; Check's errors, too.
  Status Allocate(const KvShape& shape, const KvLayout& layout, kernels::ActivationType activations,
                  cudaStream_t stream);

  const StepKv& limits() const { return limits_; }
  struct Layer {
    kernels::DeviceKv kv;
    int group;  // 1: of the layers with windows that have blocks of their own
    int window;
    // Whether it holds rotated heads, whose elements are much alike: where groups share a scale, as
    // on the CPU (QuaRot, Ashkboos et al. 2024).
    bool rotated() const { return kernels::HasGroupScales(kv.format); }
  };
  const Layer& layer(int layer) const { return layers_[static_cast<size_t>(layer)]; }
  int layers() const { return static_cast<int>(layers_.size()); }

 private:
  StepKv limits_;
  DeviceBuffer memory_[2];
  std::vector<Layer> layers_;
};

}  // namespace quern
