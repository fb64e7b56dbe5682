#pragma once

// Stands in for CUDA's header of this name where kernels are built for the emulator: what the
// project's kernels and their host code use of the language and of the runtime.
#include "kernels/simt/cuda_language.h"
#include "kernels/simt/cuda_runtime_api.h"
