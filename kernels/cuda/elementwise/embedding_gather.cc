#include "quern/kernels/embedding_gather.h"

#include "kernels/cuda/common/check.h"
#include "kernels/cuda/common/device.h"
#include "kernels/cuda/elementwise/embedding_gather_launch.h"

namespace quern::kernels {
namespace {

constexpr const char* kOp = "embedding gather";
constexpr int64_t kMaxCount = std::numeric_limits<int32_t>::max();

std::string CheckArgs(const EmbeddingGatherArgs& args) {
  return FirstOf({CheckRange(kOp, "tokens", args.tokens, 0, kMaxCount),
                  CheckRange(kOp, "vocab", args.vocab, 1, kMaxCount),
                  CheckMultiple(kOp, "hidden", args.hidden, 4, 4, int64_t{1} << 20),
                  CheckMultiple(kOp, "table_stride", args.table_stride, 4, args.hidden),
                  CheckMultiple(kOp, "out_stride", args.out_stride, 4, args.hidden),
                  CheckRange(kOp, "first", args.first, 0, kMaxCount),
                  CheckPointer(kOp, "table", args.table, 8), CheckPointer(kOp, "ids", args.ids, 4),
                  CheckPointer(kOp, "out", args.out, 16)});
}

}  // namespace

std::string EmbeddingGather(const EmbeddingGatherArgs& args, CUstream_st* stream) {
  if (std::string wrong = CheckArgs(args); !wrong.empty() || args.tokens == 0) return wrong;
  const cudaError_t error = StartEmbeddingGather(args, stream);
  return error == cudaSuccess
             ? ""
             : CudaErrorText("embedding gather: the kernel could not be started", error);
}

}  // namespace quern::kernels
