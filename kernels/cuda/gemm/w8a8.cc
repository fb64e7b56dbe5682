#include "quern/kernels/w8a8.h"

#include "kernels/cuda/gemm/gemm_kernels.h"

namespace quern::kernels {
namespace {

constexpr int64_t kMaxCols = int64_t{1} << 17;

bool Aligned4(const float* pointer) {
  return pointer != nullptr && reinterpret_cast<uintptr_t>(pointer) % 4 == 0;
}

}  // namespace

std::string W8A8MatMul(const W8A8Args& args, CUstream_st* stream) {
  const bool is_int8 = args.operands == EightBitType::kInt8;
  const MatMulOperands operands{is_int8 ? "W8A8" : "FP8",
                                args.w,
                                args.rows,
                                args.cols,
                                args.x,
                                args.x_stride,
                                1,
                                args.y,
                                args.y_stride,
                                args.batch,
                                args.float32_y};
  const std::string who = std::string(operands.who) + ": ";
  const MatMulChoice choice{args.shape, args.thread_blocks, args.overlap_previous};
  if (std::string wrong = CheckMatMul(operands, choice); !wrong.empty()) return wrong;
  if (std::string wrong = CheckMatMulRows(operands, args.w_stride); !wrong.empty()) return wrong;
  if (args.cols >= kMaxCols) {
    return who + std::to_string(args.cols) + " columns; they must be fewer than 131072";
  }
  if (!Aligned4(args.w_scales) || !Aligned4(args.x_scales)) {
    return who + "w_scales and x_scales must be device memory with 4-byte alignment";
  }
  MatMulLaunch launch{};
  launch.weights = static_cast<const uint8_t*>(args.w);
  launch.weight_stride = args.w_stride;
  launch.weight_scales = args.w_scales;
  launch.x_scales = args.x_scales;
  return StartMatMul(operands, choice, is_int8 ? 80 : 89,
                     is_int8 ? Int8Kernels(args.type) : E4m3Kernels(args.type), launch, stream);
}

}  // namespace quern::kernels
