#include "quern/kernels/verify_drafts.h"

#include <algorithm>

#include "kernels/cuda/common/check.h"
#include "kernels/cuda/common/device.h"
#include "kernels/cuda/sampling/verify_launch.h"

namespace quern::kernels {
namespace {

constexpr const char* kOp = "draft verification";

std::string CheckArgs(const VerifyDraftsArgs& args) {
  if (std::string wrong = FirstOf({CheckRange(kOp, "drafts", args.drafts, 1, kMaxDrafts),
                                   CheckRange(kOp, "sequences", args.sequences, 0,
                                              65535 / (args.drafts < 1 ? 2 : args.drafts + 1)),
                                   CheckRange(kOp, "vocab", args.vocab, 1, kMaxSampledVocab)});
      !wrong.empty() || args.sequences == 0) {
    return wrong;
  }
  if (args.workspace_size < VerifyWorkspaceBytes(args.sequences, args.drafts, args.vocab)) {
    return "draft verification: the workspace has " + std::to_string(args.workspace_size) +
           " bytes, which is less than VerifyWorkspaceBytes()";
  }
  if (args.draft_logits != nullptr && !IsAligned(args.draft_logits, 16)) {
    return CheckPointer(kOp, "draft_logits", args.draft_logits, 16);
  }
  return FirstOf({CheckMultiple(kOp, "logits_stride", args.logits_stride, 4, args.vocab),
                  CheckPointer(kOp, "target_logits", args.target_logits, 16),
                  CheckPointer(kOp, "draft_tokens", args.draft_tokens, 4),
                  CheckPointer(kOp, "params", args.params, 8),
                  CheckPointer(kOp, "accepted", args.accepted, 4),
                  CheckPointer(kOp, "tokens", args.tokens, 4),
                  CheckPointer(kOp, "workspace", args.workspace, 16)});
}

VerifyLaunch MakeLaunch(const VerifyDraftsArgs& args, int64_t blocks, SampleWorkspace& workspace) {
  SampleShape shape{args.target_logits, args.logits_stride,
                    args.vocab,         args.sequences * (args.drafts + 1),
                    args.drafts + 1,    blocks,
                    args.params,        args.any_draw,
                    args.any_top_k,     args.any_top_p};
  VerifyLaunch launch{};
  launch.target = MakeSampleLaunch(shape, workspace);
  launch.target.ids = workspace.Take<int32_t>(shape.rows);
  shape.logits = args.draft_logits;
  shape.rows = args.sequences * args.drafts;
  shape.rows_per_params = args.drafts;
  launch.draft = MakeSampleLaunch(shape, workspace);
  launch.sequences = static_cast<int32_t>(args.sequences);
  launch.drafts = static_cast<int32_t>(args.drafts);
  launch.draft_tokens = args.draft_tokens;
  launch.accepted = args.accepted;
  launch.tokens = args.tokens;
  launch.fates = workspace.Take<int32_t>(args.sequences * args.drafts);
  launch.tile_weights =
      workspace.Take<unsigned long long>(args.sequences * SampleTiles(args.vocab));
  return launch;
}

cudaError_t StartAll(const VerifyLaunch& launch, bool with_logits, cudaStream_t stream) {
  cudaError_t error = StartSampleSteps(launch.target, stream);
  if (error != cudaSuccess) return error;
  if (with_logits) {
    error = StartSampleSteps(launch.draft, stream);
    return error == cudaSuccess ? StartJudgeDrafts(launch, stream) : error;
  }
  error = StartSampleDraw(launch.target, stream);
  return error == cudaSuccess ? StartMatchDrafts(launch, stream) : error;
}

}  // namespace

size_t VerifyWorkspaceBytes(int64_t sequences, int64_t drafts, int64_t vocab) {
  SampleWorkspace workspace(nullptr);
  VerifyDraftsArgs args{};
  args.sequences = sequences;
  args.drafts = drafts;
  args.vocab = vocab;
  static_cast<void>(MakeLaunch(args, 1, workspace));
  return workspace.used();
}

std::string VerifyDrafts(const VerifyDraftsArgs& args, CUstream_st* stream) {
  if (std::string wrong = CheckArgs(args); !wrong.empty() || args.sequences == 0) return wrong;
  CudaDevice device{};
  if (std::string wrong = FindCudaDevice(&device); !wrong.empty()) {
    return "draft verification: " + wrong;
  }
  const int64_t blocks =
      SampleThreadBlocks(args.sequences * args.drafts, args.vocab, device.multiprocessors);
  SampleWorkspace workspace(args.workspace);
  const VerifyLaunch launch = MakeLaunch(args, blocks, workspace);
  const cudaError_t error = StartAll(launch, args.draft_logits != nullptr, stream);
  return error == cudaSuccess
             ? ""
             : CudaErrorText("draft verification: a kernel could not be started", error);
}

}  // namespace quern::kernels
