#include "quern/kernels/append_kv.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <limits>

#include "kernels/cuda/attention/append_kv_launch.h"
#include "kernels/cuda/common/check.h"
#include "kernels/cuda/common/device.h"

namespace quern::kernels {
namespace {

constexpr int kMaxHeads = 1 << 20;

std::string CheckRows(const AppendKvArgs& args) {
  const int64_t q_width = int64_t{args.q_heads} * args.kv.head_dim;
  const int64_t width = q_width + int64_t{2} * args.kv.kv_heads * args.kv.head_dim;
  if (!IsAligned(args.qkv, 16) || !IsAligned(args.q, 16)) {
    return "AppendKv: qkv and q must be 16-byte aligned device memory";
  }
  if (args.qkv_stride < width || args.qkv_stride % 8 != 0) {
    return "AppendKv: qkv_stride is " + std::to_string(args.qkv_stride) +
           "; it must be a multiple of 8 and at least " + std::to_string(width);
  }
  if (args.q_stride < q_width || args.q_stride % 8 != 0) {
    return "AppendKv: q_stride is " + std::to_string(args.q_stride) +
           "; it must be a multiple of 8 and at least " + std::to_string(q_width);
  }
  if (args.q == args.qkv && args.q_stride != args.qkv_stride) {
    return "AppendKv: q is qkv itself, so q_stride must be qkv_stride";
  }
  if (args.places == nullptr) return "AppendKv: places must be device memory";
  return "";
}

std::string CheckArgs(const AppendKvArgs& args) {
  if (std::string wrong = CheckDeviceKv("AppendKv", args.kv); !wrong.empty()) return wrong;
  if (args.q_heads < 1 || args.q_heads > kMaxHeads) {
    return "AppendKv: q_heads is " + std::to_string(args.q_heads) + "; from 1 to 2^20 is right";
  }
  if (args.kv.type != args.type) return "AppendKv: kv.type must be the activations' type";
  const int64_t head_blocks = (args.q_heads + 2 * args.kv.kv_heads + 3) / 4;
  if (args.tokens < 0 || args.tokens > std::numeric_limits<int32_t>::max() / head_blocks) {
    return "AppendKv: " + std::to_string(args.tokens) + " tokens; from 0 to " +
           std::to_string(std::numeric_limits<int32_t>::max() / head_blocks) + " are right";
  }
  const int step = args.kv.head_dim / 16;
  if (args.rope_dims < 0 || args.rope_dims > args.kv.head_dim || args.rope_dims % step != 0) {
    return "AppendKv: rope_dims is " + std::to_string(args.rope_dims) +
           "; it must be a multiple of " + std::to_string(step) + " and at most " +
           std::to_string(args.kv.head_dim);
  }
  if (args.rope_dims > 0 && (args.frequencies == nullptr || args.positions == nullptr)) {
    return "AppendKv: rope_dims is above 0, so frequencies and positions must be device memory";
  }
  for (const float* norm : {args.q_norm, args.k_norm}) {
    if (norm == nullptr) continue;
    if (!IsAligned(norm, 16)) return "AppendKv: the norms' weights must be 16-byte aligned";
    if (!(args.epsilon >= 0)) return "AppendKv: epsilon must not be negative";
  }
  return args.tokens == 0 ? "" : CheckRows(args);
}

}  // namespace

std::string CheckDeviceKv(const char* what, const DeviceKv& kv) {
  const std::string start = std::string(what) + ": ";
  if (kv.head_dim != 64 && kv.head_dim != 128 && kv.head_dim != 256) {
    return start + "head_dim is " + std::to_string(kv.head_dim) + "; 64, 128 and 256 are right";
  }
  if (kv.block_tokens != 16 && kv.block_tokens != 32 && kv.block_tokens != 64) {
    return start + "block_tokens is " + std::to_string(kv.block_tokens) +
           "; 16, 32 and 64 are right";
  }
  if (kv.kv_heads < 1 || kv.kv_heads > kMaxHeads) {
    return start + "kv_heads is " + std::to_string(kv.kv_heads) + "; from 1 to 2^20 is right";
  }
  if (kv.blocks < 1 || kv.blocks > std::numeric_limits<int32_t>::max()) {
    return start + std::to_string(kv.blocks) + " blocks; from 1 to 2^31 - 1 are right";
  }
  if (!IsAligned(kv.k, 16) || !IsAligned(kv.v, 16)) {
    return start + "k and v must be 16-byte aligned device memory";
  }
  if (HasGroupScales(kv.format) && (!IsAligned(kv.k_scales, 16) || !IsAligned(kv.v_scales, 16))) {
    return start + "k_scales and v_scales must be 16-byte aligned device memory for int8 and int4";
  }
  if (kv.format == DeviceKvFormat::kE4m3 &&
      (kv.k_head_scales == nullptr || kv.v_head_scales == nullptr)) {
    return start + "k_head_scales and v_head_scales must be device memory for E4M3";
  }
  return "";
}

std::string AppendKv(const AppendKvArgs& args, CUstream_st* stream) {
  if (std::string wrong = CheckArgs(args); !wrong.empty()) return wrong;
  if (args.tokens == 0) return "";
  CudaDevice device{};
  if (std::string wrong = FindCudaDevice(&device); !wrong.empty()) return "AppendKv: " + wrong;
  const cudaError_t error = args.type == ActivationType::kF16
                                ? StartAppendKv<__half>(args, stream)
                                : StartAppendKv<__nv_bfloat16>(args, stream);
  return error == cudaSuccess ? ""
                              : CudaErrorText("AppendKv: the kernel could not be started", error);
}

}  // namespace quern::kernels
