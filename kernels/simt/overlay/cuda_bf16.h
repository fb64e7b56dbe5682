#pragma once

// Stands in for CUDA's header of this name on the emulator.
#include "kernels/simt/cuda_float16.h"
