#pragma once

#include <cuda_runtime.h>

#include "quern/kernels/gated_product.h"

namespace quern::kernels {

// Starts the kernel for checked arguments with at least one token.
cudaError_t StartGatedProduct(const GatedProductArgs& args, cudaStream_t stream);

}  // namespace quern::kernels
