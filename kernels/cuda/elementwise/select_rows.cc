#include "quern/kernels/select_rows.h"

#include "kernels/cuda/common/check.h"
#include "kernels/cuda/common/device.h"
#include "kernels/cuda/elementwise/rows_launch.h"

namespace quern::kernels {

std::string SelectRows(const SelectRowsArgs& args, CUstream_st* stream) {
  constexpr const char* kOp = "selection of rows";
  constexpr int64_t kMost = std::numeric_limits<int32_t>::max();
  if (std::string wrong =
          FirstOf({CheckRange(kOp, "count", args.count, 0, kMost),
                   CheckRange(kOp, "x_rows", args.x_rows, 1, kMost),
                   CheckMultiple(kOp, "width", args.width, 4, 4, int64_t{1} << 20),
                   CheckMultiple(kOp, "x_stride", args.x_stride, 4, args.width),
                   CheckMultiple(kOp, "out_stride", args.out_stride, 4, args.width),
                   CheckPointer(kOp, "x", args.x, 16), CheckPointer(kOp, "rows", args.rows, 4),
                   CheckPointer(kOp, "out", args.out, 16)});
      !wrong.empty() || args.count == 0) {
    return wrong;
  }
  const cudaError_t error = StartSelectRows(args, stream);
  return error == cudaSuccess
             ? ""
             : CudaErrorText("selection of rows: the kernel could not be started", error);
}

}  // namespace quern::kernels
