#include "quern/kernels/gated_product.h"

#include "kernels/cuda/common/check.h"
#include "kernels/cuda/common/device.h"
#include "kernels/cuda/elementwise/gated_product_launch.h"

namespace quern::kernels {
namespace {

constexpr const char* kOp = "gated product";

std::string CheckInPlace(const GatedProductArgs& args) {
  if (args.y_scale != nullptr) {
    return "gated product: y_scale with an output that is not quantised; it must be null";
  }
  if (args.y == args.gate && (args.up == nullptr || args.y_stride != args.gate_stride)) {
    return "gated product: y is gate; that needs the same stride, and gates and ups in two "
           "matrices";
  }
  if (args.y == args.up && args.y_stride != args.up_stride) {
    return "gated product: y is up; that needs the same stride";
  }
  return CheckPointer(kOp, "y", args.y, 16);
}

std::string CheckCodes(const GatedProductArgs& args) {
  if (args.y == args.gate || args.y == args.up) {
    return std::string("gated product: y is ") + (args.y == args.gate ? "gate" : "up") +
           "; codes must be memory of their own";
  }
  return FirstOf({CheckMultiple(kOp, "inner", args.inner, 8, 8, kMaxQuantizedWidth),
                  CheckPointer(kOp, "y_scale", args.y_scale, 4)});
}

std::string CheckArgs(const GatedProductArgs& args) {
  const bool turns = args.up == nullptr;
  constexpr int64_t kMax = std::numeric_limits<int32_t>::max();
  if (std::string wrong = FirstOf(
          {CheckRange(kOp, "tokens", args.tokens, 0, kMax),
           CheckMultiple(kOp, "inner", args.inner, 8, 8, kMax),
           CheckPointer(kOp, "gate", args.gate, 16),
           CheckMultiple(kOp, "gate_stride", args.gate_stride, 8,
                         turns ? 2 * args.inner : args.inner),
           turns ? "" : CheckMultiple(kOp, "up_stride", args.up_stride, 8, args.inner),
           turns ? "" : CheckPointer(kOp, "up", args.up, 16), CheckPointer(kOp, "y", args.y, 8),
           CheckMultiple(kOp, "y_stride", args.y_stride, 8, args.inner)});
      !wrong.empty()) {
    return wrong;
  }
  if (args.tokens * (args.inner / 4) > kMax) {
    return "gated product: " + std::to_string(args.tokens) + " tokens of " +
           std::to_string(args.inner) + "; at most 2^33 elements can be done at once";
  }
  return args.output == RowOutput::kActivation ? CheckInPlace(args) : CheckCodes(args);
}

}  // namespace

std::string GatedProduct(const GatedProductArgs& args, CUstream_st* stream) {
  if (std::string wrong = CheckArgs(args); !wrong.empty() || args.tokens == 0) return wrong;
  const cudaError_t error = args.output == RowOutput::kActivation
                                ? StartGatedProduct(args, stream)
                                : StartQuantizedGatedProduct(args, stream);
  return error == cudaSuccess
             ? ""
             : CudaErrorText("gated product: the kernel could not be started", error);
}

}  // namespace quern::kernels
