#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <vector>

#include "runtime/backend/cuda/cuda_backend.h"
#include "runtime/model/model.h"
#include "tests/unit/runtime/model/tiny_model.h"

namespace quern::testing {

inline constexpr int32_t kBlockTokens = 16;  // of the KV cache, the fewest that the kernels take
inline constexpr int32_t kAllLayers = std::numeric_limits<int32_t>::max();

// Two layers (gemma3: six, of which the last sees all) with two heads of 64 elements that share K
// and V, and 70 tokens.
TinyModel SmallModel(const char* architecture = "llama");

// A model on the emulated device, and its backend.
struct ModelOnCuda {
  std::unique_ptr<Model> model;
  const CudaBackend* backend = nullptr;
};
// Fails the test, and gives null, where it cannot be loaded.
ModelOnCuda LoadOnCuda(const TinyModel& tiny, const CudaOptions& options = {.threads = 1},
                       KvDtype kv_dtype = KvDtype::kF16);

// A step of several sequences; it keeps what the batch points to.
class StepBatch {
 public:
  // The last `rows` of `tokens`, the first of which a sequence has.
  void Add(std::span<const int32_t> tokens, int32_t rows, std::vector<int32_t> blocks,
           std::vector<int32_t> window_blocks = {});
  // Of logits none are wanted, or those of all rows.
  ForwardBatch batch(bool logits = false, int32_t first_layer = 0, int32_t end_layer = kAllLayers);
  int32_t rows() const { return static_cast<int32_t>(tokens_.size()); }

 private:
  std::vector<int32_t> tokens_, positions_, all_rows_;
  std::vector<ForwardBatch::Sequence> sequences_;
  std::vector<std::vector<int32_t>> blocks_;
};

// The logits of all rows, one after the other; fails the test where they are not finite.
std::vector<float> ForwardAll(Model& model, StepBatch batch);
// A whole sequence in steps of so many rows each, the last of which goes on to the end.
std::vector<float> RunInChunks(Model& model, std::span<const int32_t> tokens,
                               std::vector<int32_t> blocks, std::span<const int32_t> chunks);

std::vector<int32_t> RandomTokens(std::mt19937& random, int count, int vocabulary = 70);
// [from, from + count)
std::vector<int32_t> BlocksFrom(int32_t from, int32_t count);

}  // namespace quern::testing
