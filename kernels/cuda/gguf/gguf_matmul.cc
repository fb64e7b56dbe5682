#include "quern/kernels/gguf_matmul.h"

#include "kernels/cuda/gguf/gguf_kernels.h"

namespace quern::kernels {

MatMulKernels FindGgufKernels(WeightType weights, ActivationType type, bool grouped) {
  switch (weights) {
    case WeightType::kQ4_0:
      return GgufKernels<WeightType::kQ4_0>(type, grouped);
    case WeightType::kQ4_1:
      return GgufKernels<WeightType::kQ4_1>(type, grouped);
    case WeightType::kQ5_0:
      return GgufKernels<WeightType::kQ5_0>(type, grouped);
    case WeightType::kQ4_K:
      return GgufKernels<WeightType::kQ4_K>(type, grouped);
    case WeightType::kQ6_K:
      return GgufKernels<WeightType::kQ6_K>(type, grouped);
    default:
      return GgufKernels<WeightType::kQ8_0>(type, grouped);
  }
}

std::string GgufMatMul(const GgufMatMulArgs& args, CUstream_st* stream) {
  const GgufMatrix& w = args.weights;
  if (std::string wrong = CheckGgufShape(w); !wrong.empty()) return "GGUF: " + wrong;
  const MatMulOperands operands{"GGUF",        w.data, w.rows, w.cols,        args.x,
                                args.x_stride, 2,      args.y, args.y_stride, args.batch,
                                args.float32_y};
  const MatMulChoice choice{args.shape, args.thread_blocks, args.overlap_previous};
  if (std::string wrong = CheckMatMul(operands, choice); !wrong.empty()) return wrong;
  MatMulLaunch launch{};
  launch.weights = w.data;
  return StartMatMul(operands, choice, 80, FindGgufKernels(w.type, args.type, false), launch,
                     stream);
}

}  // namespace quern::kernels
