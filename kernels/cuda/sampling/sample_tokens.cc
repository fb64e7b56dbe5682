#include "quern/kernels/sample_tokens.h"

#include <algorithm>

#include "kernels/cuda/common/check.h"
#include "kernels/cuda/common/device.h"
#include "kernels/cuda/sampling/sampling_launch.h"

namespace quern::kernels {
namespace {

constexpr const char* kOp = "sampling";

int64_t TilesOf(int64_t vocab) { return (vocab + kSampleTile - 1) / kSampleTile; }

// Hands out parts of the workspace, 16-byte aligned; with a null one it counts.
class Workspace {
 public:
  explicit Workspace(void* memory) : memory_(static_cast<uint8_t*>(memory)) {}
  template <typename T>
  T* Take(int64_t count) {
    T* part = memory_ == nullptr ? nullptr : reinterpret_cast<T*>(memory_ + used_);
    used_ += (static_cast<size_t>(count) * sizeof(T) + 15) / 16 * 16;
    return part;
  }
  size_t used() const { return used_; }

 private:
  uint8_t* memory_;
  size_t used_ = 0;
};

size_t Divide(void* memory, int64_t rows, int64_t tiles, SampleLaunch* launch) {
  Workspace workspace(memory);
  launch->maxima = workspace.Take<unsigned long long>(rows * tiles);
  launch->bin_weights = workspace.Take<unsigned long long>(rows * kBinsOfAll);
  launch->bin_counts = workspace.Take<uint32_t>(rows * kBinsOfAll);
  launch->states = workspace.Take<CutState>(rows * kCutSteps);
  launch->cuts = workspace.Take<RankCut>(rows);
  launch->tile_weights = workspace.Take<unsigned long long>(rows * tiles);
  launch->tile_ties = workspace.Take<uint32_t>(rows * tiles);
  return workspace.used();
}

std::string CheckArgs(const SampleTokensArgs& args) {
  if (std::string wrong = FirstOf({CheckRange(kOp, "rows", args.rows, 0, 65535),
                                   CheckRange(kOp, "vocab", args.vocab, 1, kMaxSampledVocab)});
      !wrong.empty() || args.rows == 0) {
    return wrong;
  }
  if (args.thread_blocks < 0) return "sampling: thread_blocks is negative";
  if (args.workspace_size < SampleWorkspaceBytes(args.rows, args.vocab)) {
    return "sampling: the workspace has " + std::to_string(args.workspace_size) +
           " bytes, which is less than SampleWorkspaceBytes()";
  }
  return FirstOf(
      {CheckMultiple(kOp, "logits_stride", args.logits_stride, 4, args.vocab),
       CheckPointer(kOp, "logits", args.logits, 16), CheckPointer(kOp, "params", args.params, 8),
       CheckPointer(kOp, "ids", args.ids, 4), CheckPointer(kOp, "workspace", args.workspace, 16)});
}

cudaError_t StartAll(const SampleLaunch& launch, cudaStream_t stream) {
  const bool search = launch.any_draw && (launch.any_top_k || launch.any_top_p);
  cudaError_t error = StartSampleMax(launch, search, stream);
  const auto cut = [&](bool needed, CutStep step) {
    if (needed && error == cudaSuccess) error = StartSampleCut(launch, step, stream);
  };
  cut(search, kFirst);
  cut(search && launch.any_top_k, kTopKSecond);
  cut(search && launch.any_top_k, kTopKThird);
  cut(search && launch.any_top_p, kTopPSecond);
  cut(search && launch.any_top_p, kTopPThird);
  if (launch.any_draw && error == cudaSuccess) error = StartSampleTiles(launch, stream);
  return error == cudaSuccess ? StartSampleDraw(launch, stream) : error;
}

}  // namespace

size_t SampleWorkspaceBytes(int64_t rows, int64_t vocab) {
  SampleLaunch launch{};
  return Divide(nullptr, rows, TilesOf(vocab), &launch);
}

std::string SampleTokens(const SampleTokensArgs& args, CUstream_st* stream) {
  if (std::string wrong = CheckArgs(args); !wrong.empty() || args.rows == 0) return wrong;
  CudaDevice device{};
  if (std::string wrong = FindCudaDevice(&device); !wrong.empty()) return "sampling: " + wrong;
  const int64_t tiles = TilesOf(args.vocab);
  // Four thread blocks for each multiprocessor keep enough loads on their way; more of them only
  // add histograms.
  const int64_t wanted = args.thread_blocks > 0
                             ? args.thread_blocks
                             : (int64_t{4} * device.multiprocessors + args.rows - 1) / args.rows;
  SampleLaunch launch{};
  launch.logits = args.logits;
  launch.stride = args.logits_stride;
  launch.vocab = static_cast<int32_t>(args.vocab);
  launch.rows = static_cast<int32_t>(args.rows);
  launch.tiles = static_cast<int32_t>(tiles);
  launch.blocks = static_cast<int32_t>(std::min(tiles, wanted));
  launch.any_draw = args.any_draw;
  launch.any_top_k = args.any_top_k;
  launch.any_top_p = args.any_top_p;
  launch.params = args.params;
  launch.ids = args.ids;
  Divide(args.workspace, args.rows, tiles, &launch);
  const cudaError_t error = StartAll(launch, stream);
  return error == cudaSuccess ? ""
                              : CudaErrorText("sampling: a kernel could not be started", error);
}

}  // namespace quern::kernels
