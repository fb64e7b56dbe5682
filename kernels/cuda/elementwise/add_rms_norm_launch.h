#pragma once

#include <cuda_runtime.h>

#include "quern/kernels/add_rms_norm.h"

namespace quern::kernels {

// What the kernel is told: checked arguments.
struct AddRmsNormLaunch {
  AddRmsNormArgs args;
  float inverse_hidden;
  int32_t vectors;  // hidden / 4
};

// Starts the kernel; at least one token.
cudaError_t StartAddRmsNorm(const AddRmsNormLaunch& launch, cudaStream_t stream);

}  // namespace quern::kernels
