#include "quern/kernels/add_rms_norm.h"

#include <cmath>

#include "kernels/cuda/common/check.h"
#include "kernels/cuda/common/device.h"
#include "kernels/cuda/elementwise/add_rms_norm_launch.h"

namespace quern::kernels {
namespace {

constexpr const char* kOp = "RMSNorm";

std::string CheckInput(const AddRmsNormArgs& args) {
  if (!(args.epsilon > 0) || std::isinf(args.epsilon)) {
    return "RMSNorm: epsilon is " + std::to_string(args.epsilon) + "; it must be above 0";
  }
  if (std::string wrong =
          FirstOf({CheckPointer(kOp, "residual", args.residual, 16),
                   CheckMultiple(kOp, "residual_stride", args.residual_stride, 4, args.hidden)});
      !wrong.empty()) {
    return wrong;
  }
  if (args.x == nullptr) {
    return args.x_weight == nullptr ? "" : "RMSNorm: x_weight without x; it must be null, too";
  }
  if (args.x_weight != nullptr && !IsAligned(args.x_weight, 16)) {
    return CheckPointer(kOp, "x_weight", args.x_weight, 16);
  }
  return FirstOf({CheckPointer(kOp, "x", args.x, 8),
                  CheckMultiple(kOp, "x_stride", args.x_stride, 4, args.hidden)});
}

std::string CheckOutput(const AddRmsNormArgs& args) {
  if (args.y == nullptr) {
    if (args.x == nullptr) return "RMSNorm: neither x nor y is there, so there is nothing to do";
    return args.weight == nullptr ? "" : "RMSNorm: weight without y; it must be null, too";
  }
  if (args.output != NormOutput::kActivation) {
    if (std::string wrong = CheckPointer(kOp, "y_scale", args.y_scale, 4); !wrong.empty()) {
      return wrong;
    }
  } else if (args.y_scale != nullptr) {
    return "RMSNorm: y_scale with an output that is not quantised; it must be null";
  }
  return FirstOf({CheckPointer(kOp, "weight", args.weight, 16), CheckPointer(kOp, "y", args.y, 8),
                  CheckMultiple(kOp, "y_stride", args.y_stride, 4, args.hidden)});
}

}  // namespace

std::string AddRmsNorm(const AddRmsNormArgs& args, CUstream_st* stream) {
  if (std::string wrong =
          FirstOf({CheckRange(kOp, "tokens", args.tokens, 0, std::numeric_limits<int32_t>::max()),
                   CheckMultiple(kOp, "hidden", args.hidden, 4, 4, kMaxNormHidden),
                   CheckInput(args), CheckOutput(args)});
      !wrong.empty() || args.tokens == 0) {
    return wrong;
  }
  const AddRmsNormLaunch launch{args, 1.0f / static_cast<float>(args.hidden),
                                static_cast<int32_t>(args.hidden / 4)};
  const cudaError_t error = StartAddRmsNorm(launch, stream);
  return error == cudaSuccess ? ""
                              : CudaErrorText("RMSNorm: the kernel could not be started", error);
}

}  // namespace quern::kernels
