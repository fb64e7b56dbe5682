#pragma once

#include <vector>

#include "quern/kernels/device_kv.h"
#include "runtime/backend/backend.h"
#include "runtime/backend/cuda/device_memory.h"

namespace quern {

// The KV cache on the device: a part for the layers that see all tokens, and one for those with
// windows where these have blocks of their own.
class CudaKv {
 public:
  // As Backend::AllocateKv; kUnsupported for what no kernel takes: a dtype, a block's or a head's
  // size.
  Status Allocate(const KvShape& shape, const KvLayout& layout,
                  kernels::ActivationType activations, cudaStream_t stream);

  // 1, or 2 with blocks of their own for layers with windows.
  int groups() const { return layout_.window_blocks > 0 ? 2 : 1; }
  int32_t block_tokens() const { return layout_.block_tokens; }
  const KvShape& shape() const { return shape_; }
  struct Layer {
    kernels::DeviceKv kv;
    int group;  // whose places and tables are right for it
    int window;
  };
  const Layer& layer(int layer) const { return layers_[static_cast<size_t>(layer)]; }
  int layers() const { return static_cast<int>(layers_.size()); }

 private:
  KvShape shape_;
  KvLayout layout_;
  DeviceBuffer memory_[2];
  std::vector<Layer> layers_;
};

}  // namespace quern
