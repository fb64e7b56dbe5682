#include "runtime/backend/cuda/cuda_kv.h"

#include <algorithm>
#include <utility>

#include "runtime/backend/cuda/cuda_limits.h"

namespace quern {
namespace {

using kernels::DeviceKvFormat;

Result<DeviceKvFormat> FormatOf(KvDtype dtype) {
  switch (dtype) {
    case KvDtype::kF16:
      return DeviceKvFormat::k16Bit;
    case KvDtype::kInt8:
      return DeviceKvFormat::kInt8;
    case KvDtype::kInt4:
      return DeviceKvFormat::kInt4;
    case KvDtype::kF32:
      break;
  }
  return MakeError(ErrorCode::kUnsupported,
                   "a KV cache on a GPU stores f16 (of the activations' type), int8 or int4");
}

// K and V of one layer, one after the other: bytes, each a multiple of 16 as a block's are.
struct LayerBytes {
  int64_t k, v, k_scales, v_scales;
  int64_t all() const { return k + v + k_scales + v_scales; }
};

LayerBytes BytesOf(const kernels::DeviceKv& kv) {
  const int64_t rows = kv.rows();
  const int64_t scales =
      kernels::HasGroupScales(kv.format) ? rows * (kv.head_dim / kernels::kKvGroup) * 2 : 0;
  return {rows * kernels::DeviceKvRowBytes(kernels::DeviceKeyFormat(kv.format), kv.head_dim),
          rows * kernels::DeviceKvRowBytes(kv.format, kv.head_dim), scales, scales};
}

}  // namespace

Status CudaKv::Check(const KvShape& shape, const KvLayout& layout) {
  if (layout.num_blocks < 1) {
    return MakeError(ErrorCode::kInvalidArgument, "a KV cache needs at least one block");
  }
  if (layout.block_tokens != 16 && layout.block_tokens != 32 && layout.block_tokens != 64) {
    return MakeError(ErrorCode::kUnsupported,
                     "blocks of {} tokens in the KV cache: on a GPU they have 16, 32 or 64",
                     layout.block_tokens);
  }
  QUERN_TRY(CheckHeadsForCuda(shape.head_dim));
  QUERN_TRY(FormatOf(shape.dtype));
  return {};
}

Status CudaKv::Allocate(const KvShape& shape, const KvLayout& layout,
                        kernels::ActivationType activations, cudaStream_t stream) {
  QUERN_TRY(Check(shape, layout));
  QUERN_ASSIGN(const DeviceKvFormat format, FormatOf(shape.dtype));
  const int groups = layout.window_blocks > 0 ? 2 : 1;
  limits_ = {layout.block_tokens, groups, {layout.num_blocks, layout.window_blocks}, 0};
  layers_.clear();
  int64_t bytes[2] = {};
  for (int i = 0; i < shape.layers; ++i) {
    const int window = shape.windows.empty() ? 0 : shape.windows[static_cast<size_t>(i)];
    const int group = groups == 2 && window > 0 ? 1 : 0;
    kernels::DeviceKv kv{};
    kv.format = format;
    kv.type = activations;
    kv.blocks = limits_.blocks[group];
    if (group == 1) limits_.window = std::max(limits_.window, window);
    kv.block_tokens = layout.block_tokens;
    kv.kv_heads = shape.kv_heads;
    kv.head_dim = shape.head_dim;
    bytes[group] += BytesOf(kv).all();
    layers_.push_back({kv, group, window});
  }
  for (int group = 0; group < groups; ++group) {
    QUERN_TRY(memory_[group].Allocate(static_cast<size_t>(bytes[group]), stream, "the KV cache"));
  }
  uint8_t* next[2] = {memory_[0].as<uint8_t>(), memory_[1].as<uint8_t>()};
  for (Layer& layer : layers_) {
    const LayerBytes sizes = BytesOf(layer.kv);
    uint8_t* at = std::exchange(next[layer.group], next[layer.group] + sizes.all());
    layer.kv.k = at;
    layer.kv.v = at + sizes.k;
    if (sizes.k_scales == 0) continue;
    layer.kv.k_scales = reinterpret_cast<uint16_t*>(at + sizes.k + sizes.v);
    layer.kv.v_scales = reinterpret_cast<uint16_t*>(at + sizes.k + sizes.v + sizes.k_scales);
  }
  return {};
}

}  // namespace quern
