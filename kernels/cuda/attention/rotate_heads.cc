#include "quern/kernels/rotate_heads.h"

#include "kernels/cuda/attention/rotate_heads_launch.h"
#include "kernels/cuda/common/check.h"
#include "kernels/cuda/common/device.h"

namespace quern::kernels {
namespace {

std::string CheckRotation(const RotateHeadsArgs& args) {
  constexpr const char* kOp = "rotation of heads";
  if (args.head_dim != 64 && args.head_dim != 128 && args.head_dim != 256) {
    return std::string(kOp) + ": head_dim is " + std::to_string(args.head_dim) +
           "; 64, 128 and 256 are right";
  }
  if (std::string wrong = CheckRange(kOp, "heads", args.heads, 1, 1 << 20); !wrong.empty()) {
    return wrong;
  }
  const int64_t width = int64_t{args.heads} * args.head_dim;
  const int64_t head_blocks = (args.heads + kRotateHeadsWarps - 1) / kRotateHeadsWarps;
  if (std::string wrong = FirstOf({CheckRange(kOp, "tokens", args.tokens, 0,
                                              std::numeric_limits<int32_t>::max() / head_blocks),
                                   CheckMultiple(kOp, "x_stride", args.x_stride, 8, width),
                                   CheckMultiple(kOp, "out_stride", args.out_stride, 8, width)});
      !wrong.empty() || args.tokens == 0) {
    return wrong;
  }
  if (args.x == args.out && args.x_stride != args.out_stride) {
    return std::string(kOp) + ": out is x itself, so out_stride must be x_stride";
  }
  return FirstOf({CheckPointer(kOp, "x", args.x, 16), CheckPointer(kOp, "out", args.out, 16)});
}

}  // namespace

std::string RotateHeads(const RotateHeadsArgs& args, CUstream_st* stream) {
  if (std::string wrong = CheckRotation(args); !wrong.empty() || args.tokens == 0) return wrong;
  const cudaError_t error = StartRotateHeads(args, stream);
  return error == cudaSuccess
             ? ""
             : CudaErrorText("rotation of heads: the kernel could not be started", error);
}

}  // namespace quern::kernels
