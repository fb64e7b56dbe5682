#pragma once

#include <cuda_runtime.h>

#include "quern/kernels/rotate_heads.h"

namespace quern::kernels {

inline constexpr int kRotateHeadsWarps = 4;  // of a thread block

// Starts the kernel for checked arguments with at least one token.
cudaError_t StartRotateHeads(const RotateHeadsArgs& args, cudaStream_t stream);

}  // namespace quern::kernels
