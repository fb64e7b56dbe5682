#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/simt/simt.h"

// Kernels with one fault each that the emulator must find, and the same kernels without it.
namespace quern::kernels::testing {

struct FaultCase {
  std::string name;
  simt::Fault fault;
  // Starts the kernel on `memory`, 4096 bytes of zeros (of which it may use `kFaultInts` ints).
  cudaError_t (*start)(bool faulty, int* memory);
  // Words that the error's text must hold.
  std::vector<std::string> says;
};
inline constexpr int kFaultInts = 1024;

const std::vector<FaultCase>& MemoryFaults();
const std::vector<FaultCase>& OrderFaults();
const std::vector<FaultCase>& LibraryFaults();

}  // namespace quern::kernels::testing
