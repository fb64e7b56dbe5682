#include "quern/kernels/moe_permute.h"

#include "kernels/cuda/common/check.h"
#include "kernels/cuda/common/device.h"
#include "kernels/cuda/moe/moe_launch.h"

namespace quern::kernels {

size_t MoePermuteWorkspaceBytes(int64_t pairs, int64_t experts) {
  const int64_t chunks = PermuteChunks(pairs);
  return chunks <= 1 ? 0 : static_cast<size_t>(chunks * experts) * sizeof(int32_t);
}

std::string MoePermute(const MoePermuteArgs& args, CUstream_st* stream) {
  constexpr const char* kOp = "MoE permutation";
  if (std::string wrong = FirstOf({CheckRange(kOp, "pairs", args.pairs, 0, int64_t{1} << 30),
                                   CheckRange(kOp, "experts", args.experts, 1, kMaxRoutedExperts),
                                   CheckRange(kOp, "tile", args.tile, 1, 1024)});
      !wrong.empty()) {
    return wrong;
  }
  const int64_t rows = MoePermuteRows(args.pairs, args.experts, args.tile);
  const size_t bytes = MoePermuteWorkspaceBytes(args.pairs, args.experts);
  const bool any = args.pairs > 0;
  if (std::string wrong = FirstOf(
          {CheckRange(kOp, "the number of rows", rows, 0, std::numeric_limits<int32_t>::max()),
           any ? CheckPointer(kOp, "expert_ids", args.expert_ids, 4) : "",
           any ? CheckPointer(kOp, "row_pairs", args.row_pairs, 4) : "",
           any ? CheckPointer(kOp, "pair_rows", args.pair_rows, 4) : "",
           CheckPointer(kOp, "offsets", args.offsets, 4),
           bytes > 0 ? CheckPointer(kOp, "workspace", args.workspace, 16) : ""});
      !wrong.empty()) {
    return wrong;
  }
  if (args.workspace_size < bytes) {
    return "MoE permutation: the workspace has " + std::to_string(args.workspace_size) +
           " bytes, which is less than MoePermuteWorkspaceBytes()";
  }
  const cudaError_t error = StartMoePermute({args, rows, PermuteChunks(args.pairs)}, stream);
  return error == cudaSuccess
             ? ""
             : CudaErrorText("MoE permutation: a kernel could not be started", error);
}

}  // namespace quern::kernels
