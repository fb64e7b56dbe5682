#pragma once

#include <cuda_runtime.h>

#include "quern/kernels/quantize_rows.h"

namespace quern::kernels {

// Starts the kernel for checked arguments with at least one token.
cudaError_t StartQuantizeRows(const QuantizeRowsArgs& args, cudaStream_t stream);

}  // namespace quern::kernels
