#pragma once

#include <cuda_runtime.h>

#include "quern/kernels/gguf_gather.h"

namespace quern::kernels {

// Starts the kernel for checked arguments with at least one token.
cudaError_t StartGgufGather(const GgufGatherArgs& args, cudaStream_t stream);

}  // namespace quern::kernels
