#pragma once

#include <cuda_runtime.h>

#include "quern/kernels/embedding_gather.h"

namespace quern::kernels {

// Starts the kernel for checked arguments with at least one token.
cudaError_t StartEmbeddingGather(const EmbeddingGatherArgs& args, cudaStream_t stream);

}  // namespace quern::kernels
