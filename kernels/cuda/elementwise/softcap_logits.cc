#include "quern/kernels/softcap_logits.h"

#include <cmath>

#include "kernels/cuda/common/check.h"
#include "kernels/cuda/common/device.h"
#include "kernels/cuda/elementwise/rows_launch.h"

namespace quern::kernels {

std::string SoftcapLogits(const SoftcapLogitsArgs& args, CUstream_st* stream) {
  constexpr const char* kOp = "softcap";
  if (!(args.cap > 0) || std::isinf(args.cap)) {
    return "softcap: cap is " + std::to_string(args.cap) + "; it must be above 0 and finite";
  }
  if (std::string wrong =
          FirstOf({CheckMultiple(kOp, "count", args.count, 4, 0, (int64_t{1} << 40) - 4),
                   CheckPointer(kOp, "y", args.y, 16)});
      !wrong.empty() || args.count == 0) {
    return wrong;
  }
  const cudaError_t error = StartSoftcapLogits(args, stream);
  return error == cudaSuccess ? ""
                              : CudaErrorText("softcap: the kernel could not be started", error);
}

}  // namespace quern::kernels
