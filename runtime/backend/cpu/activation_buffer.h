#pragma once

#include "quern/kernels/quantize_activations.h"
#include "runtime/backend/cpu/aligned_memory.h"

namespace quern {

// Memory for one matmul's quantised input, grown as needed.
class ActivationBuffer {
 public:
  // Room for `rows` x `cols` at once from now on. False when the system has no memory.
  bool Reserve(int64_t rows, int64_t cols) {
    const size_t elements = static_cast<size_t>(rows * cols);
    const size_t wanted = elements * sizeof(int16_t) + elements / 32 * 3 * sizeof(float);
    if (memory_.size() < wanted) memory_ = AlignedMemory(wanted);
    return memory_.size() >= wanted;
  }

  // [rows, cols], at most what was reserved.
  kernels::QuantizedActivations View(int64_t rows, int64_t cols) const {
    kernels::QuantizedActivations view;
    view.rows = rows;
    view.cols = cols;
    view.q = memory_.as<int16_t>();
    view.scale = reinterpret_cast<float*>(view.q + rows * cols);
    view.sum = view.scale + rows * cols / 32;
    view.neg_sum = reinterpret_cast<int32_t*>(view.sum + rows * cols / 32);
    return view;
  }

 private:
  AlignedMemory memory_;
};

}  // namespace quern
