#include "runtime/backend/cuda/cuda_status.h"

#include <utility>

namespace quern {

Status CudaStatus(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return {};
  static_cast<void>(cudaGetLastError());  // CUDA would give it to the next call, too
  const auto code =
      error == cudaErrorMemoryAllocation ? ErrorCode::kResourceExhausted : ErrorCode::kInternal;
  return MakeError(code, "{}: {} ({})", what, cudaGetErrorString(error), cudaGetErrorName(error));
}

Status KernelStatus(std::string wrong) {
  if (wrong.empty()) return {};
  return Error{ErrorCode::kInternal, std::move(wrong)};
}

}  // namespace quern
