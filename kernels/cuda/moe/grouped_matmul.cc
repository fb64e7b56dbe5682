#include "quern/kernels/grouped_matmul.h"

#include <algorithm>

#include "kernels/cuda/common/check.h"
#include "kernels/cuda/gemm/gemm_kernels.h"
#include "kernels/cuda/gguf/gguf_kernels.h"

namespace quern::kernels {
namespace {

// What every grouped product is told, and what is wrong with it.
struct Grouped {
  MatMulOperands operands;
  MatMulGroups groups;
  MatMulChoice choice;

  Grouped(const char* who, const GroupedMatMulArgs& args, const void* weights, int64_t rows,
          int64_t cols)
      : operands{who, weights, rows,          cols, args.x,        args.x_stride,
                 2,   args.y,  args.y_stride, 1,    args.float32_y},
        groups{args.offsets, args.row_pairs, args.pairs, args.experts, args.tile, args.top_k},
        choice{args.shape, args.thread_blocks, args.overlap_previous} {}

  // Also finds the number of sorted rows.
  std::string Check() {
    const char* who = operands.who;
    std::string wrong = FirstOf({CheckRange(who, "pairs", groups.pairs, 0, int64_t{1} << 30),
                                 CheckRange(who, "experts", groups.experts, 1, kMaxRoutedExperts),
                                 CheckMultiple(who, "tile", groups.tile, 8, 8, 1024),
                                 CheckRange(who, "top_k", groups.top_k, 0, kMaxRoutedExperts),
                                 CheckPointer(who, "offsets", groups.offsets, 4),
                                 CheckPointer(who, "row_pairs", groups.row_pairs, 4)});
    if (!wrong.empty()) return wrong;
    if (groups.top_k > 0 && groups.pairs % groups.top_k != 0) {
      return std::string(who) + ": pairs is " + std::to_string(groups.pairs) +
             "; it must be a multiple of top_k, " + std::to_string(groups.top_k);
    }
    const int64_t rows = MoePermuteRows(groups.pairs, groups.experts, groups.tile);
    operands.batch = std::max<int64_t>(rows, 1);  // without pairs the rest is to be right, too
    return CheckMatMul(operands, choice);
  }
};

}  // namespace

std::string GroupedGemm(const GroupedMatMulArgs& args, const DenseExperts& weights,
                        CUstream_st* stream) {
  Grouped grouped("grouped GEMM", args, weights.w, weights.rows, weights.cols);
  if (std::string wrong = grouped.Check(); !wrong.empty()) return wrong;
  if (std::string wrong = CheckMatMulRows(grouped.operands, weights.w_stride); !wrong.empty()) {
    return wrong;
  }
  MatMulLaunch launch{};
  launch.weights = static_cast<const uint8_t*>(weights.w);
  launch.weight_stride = weights.w_stride * 2;
  launch.expert_bytes = launch.weight_stride * weights.rows;
  return StartGroupedMatMul(grouped.operands, grouped.groups, grouped.choice,
                            DenseKernels(args.type, true), launch, stream);
}

std::string GroupedGgufMatMul(const GroupedMatMulArgs& args, const GgufMatrix& one,
                              CUstream_st* stream) {
  if (std::string wrong = CheckGgufShape(one); !wrong.empty()) return "grouped GGUF: " + wrong;
  Grouped grouped("grouped GGUF", args, one.data, one.rows, one.cols);
  if (std::string wrong = grouped.Check(); !wrong.empty()) return wrong;
  MatMulLaunch launch{};
  launch.weights = one.data;
  launch.expert_bytes = GgufBytes(one);
  return StartGroupedMatMul(grouped.operands, grouped.groups, grouped.choice,
                            FindGgufKernels(one.type, args.type, true), launch, stream);
}

}  // namespace quern::kernels
