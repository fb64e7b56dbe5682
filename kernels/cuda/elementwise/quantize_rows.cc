#include "quern/kernels/quantize_rows.h"

#include "kernels/cuda/common/check.h"
#include "kernels/cuda/common/device.h"
#include "kernels/cuda/elementwise/quantize_rows_launch.h"

namespace quern::kernels {
namespace {

constexpr const char* kQuantizeOp = "quantisation";

std::string CheckQuantizeRows(const QuantizeRowsArgs& args) {
  if (args.output == RowOutput::kActivation) {
    return "quantisation: output is the activations' type; it must be int8 or E4M3";
  }
  if (args.y == args.x && args.x != nullptr) {
    return "quantisation: y is x; it must be memory of its own";
  }
  return FirstOf(
      {CheckRange(kQuantizeOp, "tokens", args.tokens, 0, std::numeric_limits<int32_t>::max()),
       CheckMultiple(kQuantizeOp, "width", args.width, 8, 8, kMaxQuantizedWidth),
       CheckPointer(kQuantizeOp, "x", args.x, 16),
       CheckMultiple(kQuantizeOp, "x_stride", args.x_stride, 8, args.width),
       CheckPointer(kQuantizeOp, "y", args.y, 8),
       CheckMultiple(kQuantizeOp, "y_stride", args.y_stride, 8, args.width),
       CheckPointer(kQuantizeOp, "y_scale", args.y_scale, 4)});
}

}  // namespace

std::string QuantizeRows(const QuantizeRowsArgs& args, CUstream_st* stream) {
  if (std::string wrong = CheckQuantizeRows(args); !wrong.empty() || args.tokens == 0) return wrong;
  const cudaError_t error = StartQuantizeRows(args, stream);
  return error == cudaSuccess
             ? ""
             : CudaErrorText("quantisation: the kernel could not be started", error);
}

}  // namespace quern::kernels
