#pragma once

#include <cuda_runtime.h>

#include "quern/kernels/append_kv.h"

namespace quern::kernels {

// Starts the kernel for the checked arguments' head_dim, with at least one token. T: __half or
// __nv_bfloat16.
template <typename T>
cudaError_t StartAppendKv(const AppendKvArgs& args, cudaStream_t stream);

}  // namespace quern::kernels
