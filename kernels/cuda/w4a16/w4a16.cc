#include "quern/kernels/w4a16.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <limits>

#include "kernels/cuda/common/check.h"
#include "kernels/cuda/common/device.h"
#include "kernels/cuda/w4a16/w4a16_launch.h"

namespace quern::kernels {
namespace {

constexpr int kFormats = 3;
constexpr int kTypes = 2;

// The workspace: a counter for each thread block that can be resident, then their parts. Where the
// parts begin depends on nothing but the device, so that products of all sizes can share it.
constexpr int kMaxBlocksPerSm = 32;
constexpr int64_t CounterBytes(int64_t multiprocessors) {
  return (multiprocessors * kMaxBlocksPerSm * 4 + 255) / 256 * 256;
}

struct Kernels {
  cudaError_t (*blocks_per_sm)(int, int*);
  cudaError_t (*start)(int, const W4A16Launch&, bool, cudaStream_t);
};

template <typename T, W4Format kFormat>
constexpr Kernels KernelsOf() {
  return {W4A16BlocksPerSm<T, kFormat>, StartW4A16<T, kFormat>};
}

constexpr Kernels kKernels[kFormats][kTypes] = {
    {KernelsOf<__half, W4Format::kAwq>(), KernelsOf<__nv_bfloat16, W4Format::kAwq>()},
    {KernelsOf<__half, W4Format::kQ4_0>(), KernelsOf<__nv_bfloat16, W4Format::kQ4_0>()},
    {KernelsOf<__half, W4Format::kQ4_1>(), KernelsOf<__nv_bfloat16, W4Format::kQ4_1>()},
};

// Thread blocks of the kernel that a multiprocessor of the device holds at once; asked for once.
std::string FindResidency(const CudaDevice& device, int format, int type, int variant,
                          int* blocks) {
  static std::array<std::atomic<int>, kMaxCudaDevices * kFormats * kTypes * kW4VariantCount> all;
  const int index =
      ((device.number * kFormats + format) * kTypes + type) * kW4VariantCount + variant;
  std::atomic<int>& known = all[static_cast<size_t>(index)];
  *blocks = known.load();
  if (*blocks != 0) return "";
  const cudaError_t error = kKernels[format][type].blocks_per_sm(variant, blocks);
  if (error != cudaSuccess) {
    const bool unfit = error == cudaErrorNoKernelImageForDevice || error == cudaErrorInvalidValue ||
                       error == cudaErrorInvalidDeviceFunction;
    return CudaErrorText(
        unfit ? "W4A16: no kernel for this device (it needs compute capability 8.0 or "
                "later, a build for it (QUERN_CUDA_ARCHITECTURES), and the variant's "
                "shared memory)"
              : "W4A16: the kernel could not be looked up",
        error);
  }
  if (*blocks == 0) return "W4A16: the kernel does not fit this device";
  known.store(*blocks);
  return "";
}

std::string CheckArgs(const W4A16Args& args) {
  const W4Matrix& w = args.weights;
  if (std::string wrong = CheckW4Shape(w); !wrong.empty()) return wrong;
  if (!IsAligned(w.codes, 16) || !IsAligned(w.scales, 16) || !IsAligned(args.x, 16) ||
      !IsAligned(args.workspace, 16)) {
    return "W4A16: weights, scales, x and workspace must be 16-byte aligned device memory";
  }
  if (!IsAligned(args.y, 2)) {
    return "W4A16: y must be device memory with 2-byte alignment";
  }
  if (args.batch < 1 || args.batch > std::numeric_limits<int32_t>::max()) {
    return "W4A16: a batch of " + std::to_string(args.batch) + "; from 1 to 2^31 - 1 is right";
  }
  if (args.x_stride < w.cols || args.x_stride % 8 != 0) {
    return "W4A16: x_stride is " + std::to_string(args.x_stride) +
           "; it must be a multiple of 8 and at least " + std::to_string(w.cols);
  }
  if (args.y_stride < w.rows) {
    return "W4A16: y_stride is " + std::to_string(args.y_stride) + "; it must be at least " +
           std::to_string(w.rows);
  }
  if (args.variant < -1 || args.variant >= kW4VariantCount) {
    return "W4A16: there is no variant " + std::to_string(args.variant);
  }
  if (args.thread_blocks < 0) return "W4A16: thread_blocks is negative";
  return "";
}

// Cuts the product up; "" or why it cannot be done.
std::string MakePlan(const W4A16Args& args, const W4Variant& shape, int multiprocessors, int per_sm,
                     W4Plan* plan) {
  const int64_t blocks = (args.weights.rows + shape.rows() - 1) / shape.rows();
  const int64_t chunk_tiles = shape.k_warps * shape.col_tiles;
  const int64_t chunks = (args.weights.col_tiles() + chunk_tiles - 1) / chunk_tiles;
  if (blocks * chunks > std::numeric_limits<int32_t>::max()) {
    return "W4A16: a matrix of " + std::to_string(args.weights.rows) + " x " +
           std::to_string(args.weights.cols) +
           " has too many tiles for one product; split its rows";
  }
  plan->chunks = static_cast<int32_t>(chunks);
  plan->units = static_cast<int32_t>(blocks * chunks);
  plan->ctas = args.thread_blocks > 0
                   ? std::min(plan->units, args.thread_blocks)
                   : ChooseW4ThreadBlocks(blocks, plan->units, multiprocessors, per_sm);
  const int64_t part_bytes = int64_t{2} * shape.rows() * shape.batch() * 4;
  const int64_t room =
      (static_cast<int64_t>(args.workspace_size) - CounterBytes(multiprocessors)) / part_bytes;
  if (room < int64_t{multiprocessors} * per_sm) {
    return "W4A16: the workspace has " + std::to_string(args.workspace_size) +
           " bytes, which is less than W4A16WorkspaceBytes()";
  }
  if (plan->ctas != blocks) {  // there will be parts
    const int64_t counters = int64_t{multiprocessors} * kMaxBlocksPerSm;
    plan->ctas = static_cast<int32_t>(std::min<int64_t>({plan->ctas, room, counters}));
  }
  return "";
}

// One product of at most kW4MaxBatch rows of x, those from `begin` on.
std::string MultiplySlice(const W4A16Args& args, int64_t begin, int64_t rows, cudaStream_t stream) {
  const W4Matrix& w = args.weights;
  CudaDevice device{};
  if (std::string wrong = FindCudaDevice(&device); !wrong.empty()) return "W4A16: " + wrong;
  const int variant =
      args.variant >= 0 ? args.variant : ChooseW4Variant(w, rows, device.shared_bytes);
  const W4Variant& shape = kW4Variants[variant];
  const int format = static_cast<int>(w.format);
  const int type = static_cast<int>(args.type);
  int per_sm = 0;
  if (std::string wrong = FindResidency(device, format, type, variant, &per_sm); !wrong.empty()) {
    return wrong;
  }
  W4A16Launch launch{};
  if (std::string wrong = MakePlan(args, shape, device.multiprocessors, per_sm, &launch.plan);
      !wrong.empty()) {
    return wrong;
  }
  launch.codes = w.codes;
  launch.scales = reinterpret_cast<const uint8_t*>(w.scales);
  launch.x = static_cast<const uint16_t*>(args.x) + begin * args.x_stride;
  launch.y = static_cast<uint16_t*>(args.y) + begin * args.y_stride;
  launch.counters = static_cast<int32_t*>(args.workspace);
  launch.workspace = reinterpret_cast<float4*>(static_cast<uint8_t*>(args.workspace) +
                                               CounterBytes(device.multiprocessors));
  launch.x_stride = args.x_stride;
  launch.y_stride = args.y_stride;
  launch.batch = static_cast<int32_t>(rows);
  launch.rows = static_cast<int32_t>(w.rows);
  launch.cols = static_cast<int32_t>(w.cols);
  launch.row_tiles = static_cast<int32_t>(w.row_tiles());
  launch.col_tiles = static_cast<int32_t>(w.col_tiles());
  launch.records = static_cast<int32_t>(w.format == W4Format::kAwq ? w.cols / 128 : w.col_tiles());
  const cudaError_t error =
      kKernels[format][type].start(variant, launch, args.overlap_previous, stream);
  return error == cudaSuccess ? "" : CudaErrorText("W4A16: the kernel could not be started", error);
}

}  // namespace

size_t W4A16WorkspaceBytes() {
  CudaDevice device{};
  if (!FindCudaDevice(&device).empty()) return 0;
  // Two parts per resident thread block. What a multiprocessor's thread blocks hold of sums is
  // bounded by its registers, 64 Ki of 4 bytes.
  const int64_t parts = int64_t{device.multiprocessors} * 2 * 64 * 1024 * 4;
  return static_cast<size_t>(CounterBytes(device.multiprocessors) + parts);
}

std::string W4A16MatMul(const W4A16Args& args, CUstream_st* stream) {
  if (std::string wrong = CheckArgs(args); !wrong.empty()) return wrong;
  const int64_t step = args.variant >= 0 ? kW4Variants[args.variant].batch() : int64_t{kW4MaxBatch};
  for (int64_t begin = 0; begin < args.batch; begin += step) {
    const int64_t rows = std::min<int64_t>(step, args.batch - begin);
    if (std::string wrong = MultiplySlice(args, begin, rows, stream); !wrong.empty()) return wrong;
  }
  return "";
}

}  // namespace quern::kernels
