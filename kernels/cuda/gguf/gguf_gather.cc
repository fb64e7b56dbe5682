#include "quern/kernels/gguf_gather.h"

#include "kernels/cuda/common/check.h"
#include "kernels/cuda/common/device.h"
#include "kernels/cuda/gguf/gguf_gather_launch.h"

namespace quern::kernels {
namespace {

constexpr const char* kGatherOp = "GGUF gather";

std::string CheckGather(const GgufGatherArgs& args) {
  if (std::string wrong = CheckGgufShape(args.table); !wrong.empty()) {
    return std::string(kGatherOp) + ": " + wrong;
  }
  return FirstOf(
      {CheckRange(kGatherOp, "tokens", args.tokens, 0, std::numeric_limits<int32_t>::max()),
       CheckRange(kGatherOp, "table.cols", args.table.cols, 1, int64_t{1} << 20),
       CheckMultiple(kGatherOp, "out_stride", args.out_stride, 4, args.table.cols),
       CheckRange(kGatherOp, "first", args.first, 0, std::numeric_limits<int32_t>::max()),
       CheckPointer(kGatherOp, "table.data", args.table.data, 16),
       CheckPointer(kGatherOp, "ids", args.ids, 4), CheckPointer(kGatherOp, "out", args.out, 16)});
}

}  // namespace

std::string GgufGather(const GgufGatherArgs& args, CUstream_st* stream) {
  if (std::string wrong = CheckGather(args); !wrong.empty() || args.tokens == 0) return wrong;
  const cudaError_t error = StartGgufGather(args, stream);
  return error == cudaSuccess
             ? ""
             : CudaErrorText("GGUF gather: the kernel could not be started", error);
}

}  // namespace quern::kernels
