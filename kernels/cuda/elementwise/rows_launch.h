#pragma once

#include <cuda_runtime.h>

#include "quern/kernels/select_rows.h"
#include "quern/kernels/softcap_logits.h"

namespace quern::kernels {

// Start the kernels for checked arguments with something to do.
cudaError_t StartSelectRows(const SelectRowsArgs& args, cudaStream_t stream);
cudaError_t StartSoftcapLogits(const SoftcapLogitsArgs& args, cudaStream_t stream);

}  // namespace quern::kernels
