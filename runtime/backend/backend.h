#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "quern/kernels/activation_type.h"
#include "quern/kernels/attention.h"
#include "quern/kernels/gated_activation.h"
#include "quern/kernels/moe_route.h"
#include "quern/kernels/rope.h"
#include "quern/kernels/sample_tokens.h"
#include "quern/kernels/weight_types.h"
#include "runtime/backend/forward_batch.h"
#include "runtime/base/result.h"

namespace quern {

class Communicator;

// A weight matrix [rows = outputs, cols = inputs] in a backend's memory and layout.
class Matrix {
 public:
  virtual ~Matrix() = default;
  virtual int64_t rows() const = 0;
  virtual int64_t cols() const = 0;
  virtual int64_t bytes() const = 0;  // resident
};

// One weight of every expert of a layer, [experts, rows = outputs, cols = inputs], in a backend's
// memory and layout.
class ExpertMatrices {
 public:
  virtual ~ExpertMatrices() = default;
  virtual int experts() const = 0;
  virtual int64_t rows() const = 0;  // of each
  virtual int64_t cols() const = 0;
  virtual int64_t bytes() const = 0;  // resident, of all
};

// A small weight that ops take whole: of a norm, [size] float32 in a backend's memory.
class Vector {
 public:
  virtual ~Vector() = default;
  virtual int64_t size() const = 0;
};

enum class TensorKind {
  kResidual,     // float32: what sums go on in
  kActivations,  // what products take and give: float32 on a CPU, 16 bits on a GPU
};

// Values of one step, [rows, width] row-major, in the backend's memory. Made by NewTensor; ops that
// write one set its rows.
struct Tensor {
  int64_t rows = 0;
  int64_t width = 0;
  void* data = nullptr;
};

struct KvShape {
  int layers = 0;
  int kv_heads = 0;
  int head_dim = 0;
  KvDtype dtype = KvDtype::kF16;
  std::vector<int> windows = {};  // tokens that each layer sees, 0: all; empty: all layers see all
};

// Layers that see only their last tokens.
inline int WindowLayers(const KvShape& shape) {
  return static_cast<int>(std::count_if(shape.windows.begin(), shape.windows.end(),
                                        [](int window) { return window > 0; }));
}

// K and V of one token, over so many layers, with the scales of a quantised dtype.
constexpr int64_t KvBytesPerToken(const KvShape& shape, int layers) {
  return kernels::KvTokenBytes(shape.dtype, shape.head_dim) * layers * shape.kv_heads;
}

// Rotary embedding of one kind of layer: radians a token for each pair of a head's first 2 *
// frequencies.size() elements.
struct RopeSpec {
  kernels::RopePairs pairs = kernels::RopePairs::kHalves;
  std::vector<double> frequencies;
};

struct AttentionSpec {
  int layer = 0;
  int heads = 0;
  float scale = 1;    // of q.k
  float softcap = 0;  // 0: none
  int window = 0;     // tokens seen, a token's own included; 0: all. As KvShape::windows
  int rope = 0;       // AddRope's
  // RMS norm of each head of Q and of K before they are turned, [head_dim]; both or none.
  const Vector* q_norm = nullptr;
  const Vector* k_norm = nullptr;
  float epsilon = 0;
};

// A layer's feed-forward half as a mixture of experts (Shazeer et al. 2017): each token goes
// through the few that its router's logits choose.
struct ExpertsSpec {
  const Matrix* router = nullptr;        // [experts, width], LoadRouter's
  const ExpertMatrices* gate = nullptr;  // [experts, ffn_width, width]
  const ExpertMatrices* up = nullptr;    // [experts, ffn_width, width]
  const ExpertMatrices* down = nullptr;  // [experts, width, ffn_width]
  int top_k = 1;                         // experts of a token: kernels/moe_route.h has the limits
  kernels::RouterNorm norm = kernels::RouterNorm::kChosenExperts;
  float scale = 1;  // of the chosen ones' weights
  kernels::Gate kind = kernels::Gate::kSilu;
};

struct Projection {
  const Matrix* weight;
  Tensor* out;
  int64_t column = 0;  // of `out`, where the product's first goes; `out` may be wider
};

// The GPU that computes: "NVIDIA H100 80GB HBM3", and its name in the world, as nvidia-smi and
// dcgm-exporter write it: "GPU-5b0b1c1a-...".
struct GpuInfo {
  std::string name;
  std::string uuid;
};

// Of the device that a backend keeps weights and the KV cache on.
struct BackendMemory {
  int64_t total_bytes = 0;
  int64_t free_bytes = 0;
};

// Of a model, in each of the ranks that it is split over.
struct ModelSizes {
  int64_t width = 0;
  int64_t vocabulary = 0;
  int head_dim = 0;
};

// What steps have at most.
struct LargestStep {
  int32_t tokens = 0;
  int32_t sequences = 0;
  int32_t context_tokens = 0;  // of one sequence
  // Of the model:
  int heads = 0;
  int kv_heads = 0;
  int head_dim = 0;
  int64_t vocabulary = 0;
};

// What was read of output heads where Logits was asked for the greatest logits alone.
struct HeadReads {
  int64_t rows = 0;         // of logits
  int64_t bytes = 0;        // of weights
  int64_t whole_bytes = 0;  // that the whole products would have read
};

// How a row's next token is drawn where the logits are.
using TokenDraw = kernels::SampleRow;

// Where a model's tensors live and its ops run: the forward pass is written against this alone.
// Owns the KV cache's bytes. Ops run in the order of the calls; not thread-safe. Shapes are the
// caller's to get right (asserted in debug builds).
class Backend {
 public:
  virtual ~Backend() = default;
  // What computes, for the log: "avx2, 2 threads".
  virtual std::string Describe() const = 0;
  virtual std::optional<GpuInfo> gpu() const { return std::nullopt; }
  // Absent: the host's memory. Errors: kInternal.
  virtual Result<std::optional<BackendMemory>> memory() const {
    return std::optional<BackendMemory>();
  }
  // Whether an error has made it useless for good: each step gives it, and what is left is to end
  // the process.
  virtual bool lost() const { return false; }
  // Those whose results AllReduce adds up.
  virtual int ranks() const { return 1; }

  // Whether it computes a model of these sizes, asked before weights are loaded. kUnsupported names
  // the number and the limit.
  virtual Status CheckSizes(const ModelSizes& /*sizes*/) const { return {}; }

  // Takes `data`, [rows, cols] in GGUF's layout, into the backend's own memory. `taken` is called
  // with each part of `data` that is no longer needed, so that a large matrix is never wholly in
  // memory twice. Errors: kResourceExhausted.
  using PartTaken = std::function<void(std::span<const std::byte> part)>;
  virtual Result<std::unique_ptr<Matrix>> LoadMatrix(kernels::WeightType type,
                                                     std::span<const std::byte> data, int64_t rows,
                                                     int64_t cols, const PartTaken& taken) = 0;
  // The same of an output head, also where it is the embedding, too: what Logits takes.
  virtual Result<std::unique_ptr<Matrix>> LoadHead(kernels::WeightType type,
                                                   std::span<const std::byte> data, int64_t rows,
                                                   int64_t cols, const PartTaken& taken) {
    return LoadMatrix(type, data, rows, cols, taken);
  }
  // The same of `experts` matrices, one after the other in `data`.
  virtual Result<std::unique_ptr<ExpertMatrices>> LoadExperts(kernels::WeightType type,
                                                              std::span<const std::byte> data,
                                                              int experts, int64_t rows,
                                                              int64_t cols,
                                                              const PartTaken& taken) = 0;
  // The router of a mixture of experts, for ExpertsSpec alone: `data` is float32 [experts, cols],
  // and 16 bits of each number's mantissa or more are kept. Errors: kResourceExhausted.
  virtual Result<std::unique_ptr<Matrix>> LoadRouter(std::span<const std::byte> data,
                                                     int64_t experts, int64_t cols) = 0;
  // Errors: kResourceExhausted.
  virtual Result<std::unique_ptr<Vector>> LoadVector(std::span<const float> values) = 0;
  // kResourceExhausted says how much was wanted and how much there is. `shape` has a layer that
  // sees all tokens where `layout` has window blocks.
  virtual Status AllocateKv(const KvShape& shape, const KvLayout& layout) = 0;
  // [rows of the step, width], owned by the backend.
  virtual Tensor* NewTensor(TensorKind kind, int64_t width) = 0;
  // Takes the memory of the largest step that is to come, before memory() is asked what is left for
  // the KV cache. Without it steps take theirs as they come. After loading. kResourceExhausted.
  virtual Status ReserveSteps(const LargestStep& /*step*/) { return {}; }
  // Returns the number that AttentionSpec takes.
  virtual int AddRope(RopeSpec spec) = 0;
  // Returns the number that Experts takes. Before the first step, which makes room for it.
  virtual int AddExperts(const ExpertsSpec& spec) = 0;

  // Runs a step: `layers` calls ops on the step's rows. They must be the same calls for every batch
  // that no sequence joins or leaves midway: a backend may record and repeat them. `batch` stays
  // valid until the next step. kResourceExhausted when activations do not fit.
  virtual Status RunStep(const ForwardBatch& batch, const std::function<void()>& layers) = 0;

  // The batch's last sequence leaves the step: its rows of x, a residual, are held, and what is
  // called after this sees the others alone. Where the batch says that it goes on (first_layer), it
  // is not there at first, until ResumeLast.
  virtual void HoldLast(Tensor* x) = 0;
  // It joins the step: what was held of it become the last rows of x again.
  virtual void ResumeLast(Tensor* x) = 0;

  // residual = scale * rows of `table` [tokens, width] named by the batch's tokens, of which
  // `first` is the table's first row; of tokens that are not in it, 0.
  virtual void Embed(const Matrix& table, int64_t first, float scale, Tensor* residual) = 0;
  // x = the sum of x over the ranks that a model is split over, in an order that depends on their
  // number alone: the same bits on every rank, and for a row whatever others are beside it. Where
  // there is one rank, nothing is done. When a rank is lost, RunStep and what reads results say so.
  virtual void AllReduce(Tensor* x) = 0;
  // residual += x, or, with `x_weight` [width], its RMS norm times that (x null: nothing); then out
  // = the residual's RMS norm times `weight` [width] (out null: nothing). `out` may be `x`,
  // whose content is undefined afterwards.
  virtual void AddRmsNorm(const Tensor* x, const Vector* x_weight, const Vector* weight,
                          float epsilon, Tensor* residual, Tensor* out) = 0;
  // out = x times the transpose of weight, for several weights of the same input. Their columns of
  // `out` are apart.
  virtual void MatMul(const Tensor& x, std::initializer_list<Projection> projections) = 0;
  // qkv [rows, (heads + 2 kv_heads) * head_dim]: heads of Q, then K, then V. Turns Q and K by their
  // rows' positions, writes K and V to the cache, then out [rows, heads * head_dim] = attention of
  // Q over it. What is in qkv afterwards is undefined.
  virtual void Attention(const AttentionSpec& spec, Tensor* qkv, Tensor* out) = 0;
  // gate = act(gate) * up
  virtual void GatedActivation(kernels::Gate kind, const Tensor& up, Tensor* gate) = 0;
  // out = for each row of x, the sum over its top_k experts, in the order of their logits, of
  // weight * down * (act(gate * row) * (up * row)). Experts and weights are kernels::MoeRoute's of
  // the router's logits, which are summed in float32 at least and not rounded below it. A row's
  // bits do not depend on the others. `out` may be `x`.
  virtual void Experts(int number, const Tensor& x, Tensor* out) = 0;

  // After RunStep, and until the next:
  // out = the RMS norm of these rows of the residual, times weight.
  virtual void RmsNormRows(const Tensor& residual, std::span<const int32_t> rows,
                           const Vector& weight, float epsilon, Tensor* out) = 0;
  // logits [x.rows, head.rows()] = x times the transpose of head, then softcap where it is not 0.
  // `ranks`: ForwardBatch::logit_ranks of these rows.
  // Both return what failed in this step or one before it: kInternal.
  virtual Status Logits(const Tensor& x, const Matrix& head, float softcap,
                        std::span<const int32_t> ranks, std::span<float> logits) = 0;
  // Since it was made. All 0 where no logits were ever read in part.
  virtual HeadReads head_reads() const { return {}; }
  // Whether Draw can be called.
  virtual bool draws() const { return false; }
  // A token for each row of the same logits, as kernels::SampleTokens draws it: tokens [x.rows], -1
  // where a logit is not finite. The logits do not leave the device.
  virtual Status Draw(const Tensor& x, const Matrix& head, float softcap,
                      std::span<const TokenDraw> draws, std::span<int32_t> tokens);
  // to [x.rows, x.width] = x, in the host's memory.
  virtual Status Read(const Tensor& x, std::span<float> to) = 0;
  // Returns when the step has been computed, for who reads nothing of it but the clock.
  virtual Status Finish() { return {}; }
};

// The CPU's. `threads` 0: DefaultThreads(). `group`, which outlives it: the ranks that a model is
// split over, on one machine, whose memory they share evenly; null: there is one. Errors:
// kInvalidArgument (QUERN_CPU_ISA names an instruction set that is not there).
Result<std::unique_ptr<Backend>> MakeCpuBackend(int threads, Communicator* group = nullptr);

// `data`, `size` numbers in GGUF's layout, as float32 in the host's memory.
std::vector<float> Dequantize(kernels::WeightType type, std::span<const std::byte> data,
                              int64_t size);

}  // namespace quern
