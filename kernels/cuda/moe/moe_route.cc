#include "quern/kernels/moe_route.h"

#include <algorithm>

#include "kernels/cuda/common/check.h"
#include "kernels/cuda/common/device.h"
#include "kernels/cuda/moe/moe_launch.h"

namespace quern::kernels {

std::string MoeRoute(const MoeRouteArgs& args, CUstream_st* stream) {
  constexpr const char* kOp = "MoE router";
  constexpr int64_t kMax = std::numeric_limits<int32_t>::max();
  if (std::string wrong = FirstOf(
          {CheckRange(kOp, "tokens", args.tokens, 0, kMax),
           CheckRange(kOp, "experts", args.experts, 1, kMaxRoutedExperts),
           CheckRange(kOp, "top_k", args.top_k, 1, std::min(kMaxChosenExperts, args.experts)),
           CheckMultiple(kOp, "logits_stride", args.logits_stride, 1, args.experts),
           CheckPointer(kOp, "logits", args.logits, 4),
           args.low_logits == nullptr ? "" : CheckPointer(kOp, "low_logits", args.low_logits, 4),
           args.used_tokens == nullptr ? "" : CheckPointer(kOp, "used_tokens", args.used_tokens, 4),
           CheckPointer(kOp, "expert_ids", args.expert_ids, 4),
           CheckPointer(kOp, "weights", args.weights, 4)});
      !wrong.empty() || args.tokens == 0) {
    return wrong;
  }
  const cudaError_t error = StartMoeRoute(args, stream);
  return error == cudaSuccess ? ""
                              : CudaErrorText("MoE router: the kernel could not be started", error);
}

}  // namespace quern::kernels
