#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "kernels/simt/simt.h"
#include "tests/cuda/device_support.h"

// What hack/kernel-report asks the emulator: kernels run at one shape each, and a line of JSON for
// each launch.
namespace quern::kernels::testing {

// What one launch of an operation is to move, in bytes; 0: not told.
struct LaunchBytes {
  int64_t bulk = 0;     // to read of the operation's bulk, each once
  int64_t read = 0;     // to read of all operands, each once
  int64_t written = 0;  // of the results
};

struct Operation {
  std::string name;
  std::string shape;
  int64_t batch;
  std::vector<simt::Range> bulk;      // what weighs most: weights, a cache, logits
  std::vector<LaunchBytes> launches;  // one for each, in order
};

// Runs it and prints its launches: how each was launched, what it moved, and what it was to move.
// Ends the program if `start` says that something is wrong, or if there were other launches.
void Show(const Operation& operation, const std::function<std::string()>& start);

inline DeviceMemory Bytes(int64_t count, uint8_t value = 0) {
  return DeviceMemory(std::vector<uint8_t>(static_cast<size_t>(count), value));
}
inline simt::Range All(const DeviceMemory& memory) { return {memory.As(), memory.bytes()}; }
inline std::string Extents(int64_t rows, int64_t cols) {
  return std::to_string(rows) + "x" + std::to_string(cols);
}

void ShowProducts();     // kernel_traffic_products.cc
void ShowAttention();    // kernel_traffic_attention.cc
void ShowElementwise();  // kernel_traffic_elementwise.cc
void ShowChoices();      // kernel_traffic_choices.cc: experts and tokens

}  // namespace quern::kernels::testing
