#pragma once

#include <cuda_runtime.h>

#include <string>

#include "runtime/base/result.h"

namespace quern {

// Of a call of CUDA: "copying a step's inputs: an illegal memory access ... (cudaError...)".
// kResourceExhausted when memory is short, else kInternal.
Status CudaStatus(cudaError_t error, const char* what);

// Of a kernel's host function, which gives "" or what is wrong: kInternal.
Status KernelStatus(std::string wrong);

}  // namespace quern
