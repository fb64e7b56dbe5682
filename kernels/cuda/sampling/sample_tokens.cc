#include "quern/kernels/sample_tokens.h"

#include <algorithm>

#include "kernels/cuda/common/check.h"
#include "kernels/cuda/common/device.h"
#include "kernels/cuda/sampling/sampling_launch.h"

namespace quern::kernels {
namespace {

constexpr const char* kOp = "sampling";

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

}  // namespace

int64_t SampleThreadBlocks(int64_t rows, int64_t vocab, int multiprocessors) {
  // Four thread blocks for each multiprocessor keep enough loads on their way; more of them only
  // add histograms.
  return std::min(SampleTiles(vocab), (int64_t{4} * multiprocessors + rows - 1) / rows);
}

SampleLaunch MakeSampleLaunch(const SampleShape& shape, SampleWorkspace& workspace) {
  const int64_t tiles = SampleTiles(shape.vocab);
  SampleLaunch launch{};
  launch.logits = shape.logits;
  launch.stride = shape.stride;
  launch.vocab = static_cast<int32_t>(shape.vocab);
  launch.rows = static_cast<int32_t>(shape.rows);
  launch.tiles = static_cast<int32_t>(tiles);
  launch.blocks = static_cast<int32_t>(std::min(tiles, shape.thread_blocks));
  launch.any_draw = shape.any_draw;
  launch.any_top_k = shape.any_draw && shape.any_top_k;
  launch.any_top_p = shape.any_draw && shape.any_top_p;
  launch.params = shape.params;
  launch.rows_per_params = static_cast<int32_t>(shape.rows_per_params);
  launch.maxima = workspace.Take<unsigned long long>(shape.rows * tiles);
  launch.bin_weights = workspace.Take<unsigned long long>(shape.rows * kBinsOfAll);
  launch.bin_counts = workspace.Take<uint32_t>(shape.rows * kBinsOfAll);
  launch.states = workspace.Take<CutState>(shape.rows * kCutSteps);
  launch.cuts = workspace.Take<RankCut>(shape.rows);
  launch.tile_weights = workspace.Take<unsigned long long>(shape.rows * tiles);
  launch.tile_ties = workspace.Take<uint32_t>(shape.rows * tiles);
  return launch;
}

cudaError_t StartSampleSteps(const SampleLaunch& launch, cudaStream_t stream) {
  const bool search = launch.any_top_k || launch.any_top_p;
  cudaError_t error = StartSampleMax(launch, search, stream);
  const auto cut = [&](bool needed, CutStep step) {
    if (needed && error == cudaSuccess) error = StartSampleCut(launch, step, stream);
  };
  cut(search, kFirst);
  cut(launch.any_top_k, kTopKSecond);
  cut(launch.any_top_k, kTopKThird);
  cut(launch.any_top_p, kTopPSecond);
  cut(launch.any_top_p, kTopPThird);
  return launch.any_draw && error == cudaSuccess ? StartSampleTiles(launch, stream) : error;
}

size_t SampleWorkspaceBytes(int64_t rows, int64_t vocab) {
  SampleWorkspace workspace(nullptr);
  SampleShape shape{};
  shape.vocab = vocab;
  shape.rows = rows;
  static_cast<void>(MakeSampleLaunch(shape, workspace));
  return workspace.used();
}

std::string SampleTokens(const SampleTokensArgs& args, CUstream_st* stream) {
  if (std::string wrong = CheckArgs(args); !wrong.empty() || args.rows == 0) return wrong;
  CudaDevice device{};
  if (std::string wrong = FindCudaDevice(&device); !wrong.empty()) return "sampling: " + wrong;
  const int64_t blocks = args.thread_blocks > 0
                             ? args.thread_blocks
                             : SampleThreadBlocks(args.rows, args.vocab, device.multiprocessors);
  SampleWorkspace workspace(args.workspace);
  SampleLaunch launch =
      MakeSampleLaunch({args.logits, args.logits_stride, args.vocab, args.rows, 1, blocks,
                        args.params, args.any_draw, args.any_top_k, args.any_top_p},
                       workspace);
  launch.ids = args.ids;
  cudaError_t error = StartSampleSteps(launch, stream);
  if (error == cudaSuccess) error = StartSampleDraw(launch, stream);
  return error == cudaSuccess ? ""
                              : CudaErrorText("sampling: a kernel could not be started", error);
}

}  // namespace quern::kernels
