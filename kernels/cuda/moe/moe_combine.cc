#include "quern/kernels/moe_combine.h"

#include "kernels/cuda/common/check.h"
#include "kernels/cuda/common/device.h"
#include "kernels/cuda/moe/moe_launch.h"

namespace quern::kernels {

std::string MoeCombine(const MoeCombineArgs& args, CUstream_st* stream) {
  constexpr const char* kOp = "MoE combine";
  constexpr int64_t kMax = std::numeric_limits<int32_t>::max();
  if (std::string wrong =
          FirstOf({CheckRange(kOp, "tokens", args.tokens, 0, kMax),
                   CheckRange(kOp, "top_k", args.top_k, 1, kMaxChosenExperts),
                   CheckMultiple(kOp, "hidden", args.hidden, 8, 8, kMax),
                   CheckMultiple(kOp, "y_stride", args.y_stride, 8, args.hidden),
                   CheckMultiple(kOp, "out_stride", args.out_stride, 8, args.hidden),
                   CheckPointer(kOp, "y", args.y, 16), CheckPointer(kOp, "out", args.out, 16),
                   CheckPointer(kOp, "pair_rows", args.pair_rows, 4),
                   CheckPointer(kOp, "weights", args.weights, 4)});
      !wrong.empty() || args.tokens == 0) {
    return wrong;
  }
  if (args.tokens * (args.hidden / 8) > kMax) {
    return "MoE combine: " + std::to_string(args.tokens) + " tokens of " +
           std::to_string(args.hidden) + "; at most 2^34 elements can be done at once";
  }
  const cudaError_t error = StartMoeCombine(args, stream);
  return error == cudaSuccess
             ? ""
             : CudaErrorText("MoE combine: the kernel could not be started", error);
}

}  // namespace quern::kernels
