#include "quern/kernels/gemm.h"

#include "kernels/cuda/gemm/gemm_kernels.h"

namespace quern::kernels {

std::string Gemm(const GemmArgs& args, CUstream_st* stream) {
  const MatMulOperands operands{"GEMM",        args.w, args.rows, args.cols,     args.x,
                                args.x_stride, 2,      args.y,    args.y_stride, args.batch,
                                args.float32_y};
  const MatMulChoice choice{args.shape, args.thread_blocks, args.overlap_previous};
  if (std::string wrong = CheckMatMul(operands, choice); !wrong.empty()) return wrong;
  if (std::string wrong = CheckMatMulRows(operands, args.w_stride); !wrong.empty()) return wrong;
  MatMulLaunch launch{};
  launch.weights = static_cast<const uint8_t*>(args.w);
  launch.weight_stride = args.w_stride * 2;
  return StartMatMul(operands, choice, 80, DenseKernels(args.type, false), launch, stream);
}

}  // namespace quern::kernels
