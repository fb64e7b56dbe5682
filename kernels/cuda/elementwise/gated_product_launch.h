#pragma once

#include <cuda_runtime.h>

#include "quern/kernels/gated_product.h"

namespace quern::kernels {

// Starts the kernel for checked arguments with at least one token, the one with an output of the
// activations' type or of codes.
cudaError_t StartGatedProduct(const GatedProductArgs& args, cudaStream_t stream);
cudaError_t StartQuantizedGatedProduct(const GatedProductArgs& args, cudaStream_t stream);

}  // namespace quern::kernels
