#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/backend/backend.h"
#include "runtime/base/result.h"
#include "runtime/formats/gguf.h"

namespace quern {

class Communicator;

// How the hidden states of a text become one vector: that of its last token, or their mean.
enum class Pooling { kLast, kMean };

// Weights of a file that are stored as one type, as GGUF names it: "Q4_1".
struct StoredWeights {
  std::string type;
  int64_t bytes = 0;
};

struct ModelInfo {
  std::string architecture;           // "llama", "qwen3moe"
  std::string name;                   // general.name, or the file's name
  std::string quantization;           // what most weight bytes are stored as: "Q4_1", "Q8_0"
  std::vector<StoredWeights> stored;  // all of the file, most bytes first
  int32_t vocab_size = 0;
  int32_t width = 0;  // of a hidden state
  // Absent: the model's own way is none of these.
  std::optional<Pooling> pooling = Pooling::kLast;
  int32_t context_tokens = 0;  // trained context length
  int64_t parameters = 0;
  int32_t ranks = 1;  // processes that the model is split over; what follows is of one of them
  int64_t weight_bytes = 0;  // resident bytes of the weights, repacked ones counted once
  KvDtype kv_dtype = KvDtype::kF16;
  int64_t kv_bytes_per_token = 0;  // over all layers, in kv_dtype, scales included
  // Layers that see only their last tokens, and need no others kept (KvLayout::window_blocks): how
  // many, the tokens that the one with the longest window sees, and their part of
  // kv_bytes_per_token. 0: none, or no other layers beside them.
  int32_t layers = 0;
  int32_t window_layers = 0;
  int32_t window_tokens = 0;
  int64_t kv_window_bytes_per_token = 0;
  std::string compute;  // instruction set and threads, for the log: "avx2, 2 threads"
};

// "f16", "f32", "int8" or "int4", as options spell them. Here, so that the engine, which does not
// link the model, has it too.
inline const char* KvDtypeName(KvDtype dtype) {
  switch (dtype) {
    case KvDtype::kF16:
      return "f16";
    case KvDtype::kF32:
      return "f32";
    case KvDtype::kInt8:
      return "int8";
    case KvDtype::kInt4:
      return "int4";
  }
  return "";
}
// kInvalidArgument says which there are.
Result<KvDtype> ParseKvDtype(std::string_view name);

struct ModelOptions {
  int threads = 0;  // 0: the cgroup's CPU quota, at most the machine's cores
  KvDtype kv_dtype = KvDtype::kF16;
  // What a GPU's backend keeps activations in.
  kernels::ActivationType activations = kernels::ActivationType::kBF16;
  // Expands quantised weights to float32, which leaves the activations in float32, too: four
  // bytes a weight, and slow. For telling the formats' errors from mistakes.
  bool float32_weights = false;
  // The processes that the model is split over, which outlive it; null: this one has all of it.
  // All load it, and each then makes the same calls (parallel_model.h); rank 0 alone gets logits.
  Communicator* group = nullptr;
};

// kUnsupported when the file holds only a part of a model (metadata split.count over 1), with how
// to join the parts. Model::Load asks, too; whoever reads other parts of the file before can ask
// first.
Status RequireWholeModel(const GgufFile& file);

// A loaded model with its backend and its KV cache. One Forward at a time: not thread-safe.
class Model {
 public:
  // Loads weights (repacking where that is faster, letting the mapped pages go). Errors:
  // kUnsupported (architecture, tensor type; lists those that are), kDataLoss (missing or misshapen
  // tensor, by name).
  static Result<std::unique_ptr<Model>> Load(std::unique_ptr<GgufFile> file,
                                             const ModelOptions& options);
  // The same on a backend of its own; options.threads is not looked at.
  static Result<std::unique_ptr<Model>> Load(std::unique_ptr<GgufFile> file,
                                             const ModelOptions& options,
                                             std::unique_ptr<Backend> backend);
  virtual ~Model() = default;

  virtual const ModelInfo& info() const = 0;
  // What it is computed on, where that is a GPU.
  virtual std::optional<GpuInfo> gpu() const { return std::nullopt; }
  // Of the device that weights and the KV cache are on; absent: they are in the host's.
  virtual Result<std::optional<BackendMemory>> device_memory() const {
    return std::optional<BackendMemory>();
  }
  // Takes the memory of steps of so many tokens and sequences of so long contexts now; before
  // device_memory is asked what is left. kResourceExhausted.
  virtual Status ReserveSteps(int32_t /*tokens*/, int32_t /*sequences*/,
                              int32_t /*context_tokens*/) {
    return {};
  }
  // Whether no Forward can succeed any more.
  virtual bool lost() const { return false; }

  // What the KV cache will store, instead of what the model was loaded with; before AllocateKv.
  virtual void SetKvDtype(KvDtype dtype) = 0;
  // Allocates the KV cache; call once before Forward. kResourceExhausted says how much was wanted
  // and how much there is.
  virtual Status AllocateKv(const KvLayout& layout) = 0;

  // Runs one step: writes K and V of the new tokens into their blocks, and the logits of
  // batch.logit_rows to `logits` [logit_rows, vocab_size], float32, row-major, softcap applied
  // where the model has one; of rows with a rank (logit_ranks), as many of the greatest as are
  // asked for have the same bits as without. The batch is trusted (the engine checked it); debug
  // builds assert its invariants.
  virtual Status Forward(const ForwardBatch& batch, std::span<float> logits) = 0;

  // What Forward read of the output head where it was asked for the greatest logits alone.
  virtual HeadReads head_reads() const { return {}; }

  // After a Forward, and until the next, of any rows of its batch, ascending. To `logits` [rows,
  // vocab_size], as Forward. Errors: as Forward's.
  virtual Status ReadLogits(std::span<const int32_t> rows, std::span<float> logits) = 0;
  // Whether it draws tokens itself: then logits need not be read.
  virtual bool draws() const { return false; }
  // After a Forward of which nothing is read: returns when it has been computed.
  virtual Status Finish() { return {}; }
  // A token for each of these rows, ascending, as Backend::Draw says.
  virtual Status Draw(std::span<const int32_t> /*rows*/, std::span<const TokenDraw> /*draws*/,
                      std::span<int32_t> /*tokens*/) {
    std::abort();  // draws() is false
  }
  // To `hidden` [rows, width]: the last layer's output, normalised, which the head makes logits of.
  virtual Status ReadHidden(std::span<const int32_t> rows, std::span<float> hidden) = 0;
};

}  // namespace quern
