#include "quern/kernels/device_attention.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/cuda/attention/attention_launch.h"
#include "kernels/cuda/common/check.h"
#include "kernels/cuda/common/device.h"

namespace quern::kernels {
namespace {

constexpr int64_t kMaxContext = int64_t{1} << 30;
constexpr int kMaxKvHeads = 65535;  // of a grid's second dimension

int64_t RowTiles(const DeviceAttentionArgs& args, int rows) {
  return (args.max_queries * (args.q_heads / args.kv.kv_heads) + rows - 1) / rows;
}

// Tokens that a row tile can see at most, from a multiple of kSplitGranule on.
int64_t LongestSpan(const DeviceAttentionArgs& args) {
  if (args.window == 0) return args.max_context;
  return std::min(args.max_context, args.window + args.max_queries + kSplitGranule);
}

int Splits(const DeviceAttentionArgs& args) {
  return MostSplits(static_cast<int>(LongestSpan(args)));
}

int64_t Parts(const DeviceAttentionArgs& args) {
  const int splits = Splits(args);
  if (splits == 1) return 0;
  return args.sequences * RowTiles(args, kDecodeRows) * args.kv.kv_heads * splits;
}

std::string CheckRows(const char* what, const DeviceAttentionArgs& args) {
  const std::string start = std::string(what) + ": ";
  const int64_t width = int64_t{args.q_heads} * args.kv.head_dim;
  if (!IsAligned(args.q, 16) || !IsAligned(args.out, 16)) {
    return start + "q and out must be 16-byte aligned device memory";
  }
  for (const auto& [name, stride] :
       {std::pair{"q_stride", args.q_stride}, {"out_stride", args.out_stride}}) {
    if (stride < width || stride % 8 != 0) {
      return start + name + " is " + std::to_string(stride) +
             "; it must be a multiple of 8 and at least " + std::to_string(width);
    }
  }
  if (args.query_begins == nullptr || args.contexts == nullptr || args.tables == nullptr) {
    return start + "query_begins, contexts and tables must be device memory";
  }
  const int64_t blocks = (args.max_context + args.kv.block_tokens - 1) / args.kv.block_tokens;
  if (args.table_stride < blocks) {
    return start + "table_stride is " + std::to_string(args.table_stride) + "; max_context needs " +
           std::to_string(blocks) + " blocks";
  }
  return "";
}

std::string CheckNumbers(const char* what, const DeviceAttentionArgs& args) {
  const std::string start = std::string(what) + ": ";
  if (args.sequences < 0) return start + "sequences is negative";
  if (args.max_context < 1 || args.max_context > kMaxContext) {
    return start + "max_context is " + std::to_string(args.max_context) +
           "; from 1 to 2^30 is right";
  }
  if (args.max_queries < 1 || args.max_queries > args.max_context) {
    return start + "max_queries is " + std::to_string(args.max_queries) +
           "; from 1 to max_context is right";
  }
  if (!std::isfinite(args.scale)) return start + "scale must be finite";
  if (!(args.softcap >= 0) || !std::isfinite(args.softcap)) {
    return start + "softcap must be 0 or positive and finite";
  }
  if (args.window < 0) return start + "window must not be negative; 0 is for all tokens";
  return "";
}

std::string CheckArgs(const char* what, const DeviceAttentionArgs& args) {
  if (std::string wrong = CheckDeviceKv(what, args.kv); !wrong.empty()) return wrong;
  const std::string start = std::string(what) + ": ";
  if (args.kv.kv_heads > kMaxKvHeads) return start + "more than 65535 KV heads";
  if (args.kv.type != args.type) return start + "kv.type must be the activations' type";
  if (args.q_heads < 1 || args.q_heads % args.kv.kv_heads != 0) {
    return start + "q_heads is " + std::to_string(args.q_heads) + "; it must be a multiple of " +
           std::to_string(args.kv.kv_heads) + ", the KV heads";
  }
  if (std::string wrong = CheckNumbers(what, args); !wrong.empty()) return wrong;
  // Rows and thread blocks are counted in 32 bits.
  const int64_t limit = std::numeric_limits<int32_t>::max();
  const int64_t group = args.q_heads / args.kv.kv_heads;
  if (args.max_queries > limit / group ||
      args.sequences > limit / (RowTiles(args, kDecodeRows) * kMaxSplits)) {
    return start + "too many sequences, queries or heads for one call; split the batch";
  }
  return args.sequences == 0 ? "" : CheckRows(what, args);
}

DeviceAttentionLaunch MakeLaunch(const DeviceAttentionArgs& args) {
  DeviceAttentionLaunch launch{};
  launch.k = static_cast<const uint8_t*>(args.kv.k);
  launch.v = static_cast<const uint8_t*>(args.kv.v);
  launch.k_scales = reinterpret_cast<const uint8_t*>(args.kv.k_scales);
  launch.v_scales = reinterpret_cast<const uint8_t*>(args.kv.v_scales);
  if (args.kv.format == DeviceKvFormat::kE4m3) {
    launch.k_head_scales = args.kv.k_head_scales;
    launch.v_head_scales = args.kv.v_head_scales;
  }
  launch.q = static_cast<const uint16_t*>(args.q);
  launch.out = static_cast<uint16_t*>(args.out);
  launch.q_stride = args.q_stride;
  launch.out_stride = args.out_stride;
  launch.query_begins = args.query_begins;
  launch.contexts = args.contexts;
  launch.tables = args.tables;
  launch.table_stride = args.table_stride;
  launch.sinks = args.sinks;
  launch.scale = args.scale;
  launch.softcap = args.softcap;
  // A window beyond the context hides nothing, and positions less it must not overflow.
  launch.window = args.window > args.max_context ? 0 : args.window;
  launch.max_queries = static_cast<int32_t>(args.max_queries);
  launch.max_context = static_cast<int32_t>(args.max_context);
  launch.sequences = static_cast<int32_t>(args.sequences);
  launch.kv_heads = args.kv.kv_heads;
  launch.group = args.q_heads / args.kv.kv_heads;
  launch.block_tokens = args.kv.block_tokens;
  launch.max_splits = 1;
  return launch;
}

template <typename T>
cudaError_t StartOfType(const DeviceAttentionArgs& args, bool decode,
                        const DeviceAttentionLaunch& launch, cudaStream_t stream) {
  const int head_dim = args.kv.head_dim;
  switch (args.kv.format) {
    case DeviceKvFormat::k16Bit:
      return StartDeviceAttention<T, DeviceKvFormat::k16Bit>(head_dim, decode, launch, stream);
    case DeviceKvFormat::kInt8:
      return StartDeviceAttention<T, DeviceKvFormat::kInt8>(head_dim, decode, launch, stream);
    case DeviceKvFormat::kInt4:
      return StartDeviceAttention<T, DeviceKvFormat::kInt4>(head_dim, decode, launch, stream);
    case DeviceKvFormat::kE4m3:
      return StartDeviceAttention<T, DeviceKvFormat::kE4m3>(head_dim, decode, launch, stream);
  }
  return cudaErrorInvalidValue;
}

std::string Start(const char* what, const DeviceAttentionArgs& args, bool decode,
                  const DeviceAttentionLaunch& launch, cudaStream_t stream) {
  CudaDevice device{};
  if (std::string wrong = FindCudaDevice(&device); !wrong.empty()) {
    return std::string(what) + ": " + wrong;
  }
  const bool half = args.type == ActivationType::kF16;
  cudaError_t error = half ? StartOfType<__half>(args, decode, launch, stream)
                           : StartOfType<__nv_bfloat16>(args, decode, launch, stream);
  if (error == cudaSuccess && launch.max_splits > 1) {
    error = half ? StartCombineSplits<__half>(args.kv.head_dim, launch, stream)
                 : StartCombineSplits<__nv_bfloat16>(args.kv.head_dim, launch, stream);
  }
  if (error == cudaSuccess) return "";
  return std::string(what) + ": " + CudaErrorText("the kernel could not be started", error);
}

}  // namespace

size_t DecodeAttentionWorkspaceBytes(const DeviceAttentionArgs& args) {
  if (args.kv.kv_heads < 1 || args.q_heads % args.kv.kv_heads != 0 || args.sequences < 1 ||
      !CheckNumbers("", args).empty()) {
    return 0;
  }
  return static_cast<size_t>(Parts(args) * kDecodeRows * (args.kv.head_dim + 2)) * sizeof(float);
}

std::string DecodeAttention(const DeviceAttentionArgs& args, CUstream_st* stream) {
  constexpr const char* kWhat = "DecodeAttention";
  if (std::string wrong = CheckArgs(kWhat, args); !wrong.empty()) return wrong;
  if (args.sequences == 0) return "";
  const size_t needed = DecodeAttentionWorkspaceBytes(args);
  if (needed > 0 && (!IsAligned(args.workspace, 16) || args.workspace_size < needed)) {
    return std::string(kWhat) + ": the workspace has " + std::to_string(args.workspace_size) +
           " bytes; it must be 16-byte aligned device memory of " + std::to_string(needed);
  }
  DeviceAttentionLaunch launch = MakeLaunch(args);
  launch.row_tiles = static_cast<int32_t>(RowTiles(args, kDecodeRows));
  launch.max_splits = Splits(args);
  launch.parts = static_cast<float*>(args.workspace);
  launch.stats = launch.parts + Parts(args) * kDecodeRows * args.kv.head_dim;
  return Start(kWhat, args, true, launch, stream);
}

std::string PrefillAttention(const DeviceAttentionArgs& args, CUstream_st* stream) {
  constexpr const char* kWhat = "PrefillAttention";
  if (std::string wrong = CheckArgs(kWhat, args); !wrong.empty()) return wrong;
  if (args.sequences == 0) return "";
  DeviceAttentionLaunch launch = MakeLaunch(args);
  launch.row_tiles = static_cast<int32_t>(RowTiles(args, kPrefillRows));
  return Start(kWhat, args, false, launch, stream);
}

}  // namespace quern::kernels
