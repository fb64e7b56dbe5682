#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "runtime/backend/cuda/step_inputs.h"
#include "runtime/base/result.h"

namespace quern {

// Steps as recorded CUDA graphs, by their size: one launch instead of hundreds. The first step of a
// size runs as it is (kernels are loaded then), the second is recorded, later ones repeat it.
class GraphCache {
 public:
  // `most`: graphs that are kept; beyond it the one that was used longest ago goes.
  explicit GraphCache(size_t most) : most_(most) {}
  ~GraphCache() { Clear(); }
  GraphCache(const GraphCache&) = delete;
  GraphCache& operator=(const GraphCache&) = delete;

  // Puts the step on `stream`. `launch` puts it there kernel by kernel; its calls must depend on
  // `size` alone, and all memory they use be where it was. A recording in which it fails is not
  // kept and not launched.
  Status Run(const StepSize& size, cudaStream_t stream, const std::function<Status()>& launch);
  // Forgets all: memory has moved.
  void Clear();

  int64_t launched() const { return launched_; }
  int64_t recorded() const { return recorded_; }
  int64_t repeated() const { return repeated_; }

 private:
  struct Entry {
    StepSize size;
    cudaGraphExec_t graph = nullptr;  // null: seen once
    int64_t last_use = 0;
  };
  Entry& Find(const StepSize& size);
  Status Record(Entry& entry, cudaStream_t stream, const std::function<Status()>& launch);

  size_t most_;
  std::vector<Entry> entries_;
  int64_t uses_ = 0, launched_ = 0, recorded_ = 0, repeated_ = 0;
};

}  // namespace quern
