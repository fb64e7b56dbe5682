#pragma once

#include <memory>
#include <string>
#include <vector>

#include "runtime/backend/backend.h"
#include "runtime/model/hyperparameters.h"
#include "runtime/model/model.h"
#include "runtime/model/shares.h"
#include "runtime/model/weight_loader.h"

namespace quern {

// What the families have in common: sizes, backend, the KV cache's shape, the embedding and the
// head. Each family's file has its layers and what it does with them.
class Decoder : public Model {
 public:
  Decoder(Hyperparameters hyperparameters, std::unique_ptr<Backend> backend)
      : h_(std::move(hyperparameters)), backend_(std::move(backend)) {}

  const ModelInfo& info() const override { return info_; }
  std::optional<GpuInfo> gpu() const override { return backend_->gpu(); }
  Result<std::optional<BackendMemory>> device_memory() const override { return backend_->memory(); }
  Status ReserveSteps(int32_t tokens, int32_t sequences, int32_t context_tokens) override;
  bool lost() const override { return backend_->lost(); }
  Status Finish() override { return backend_->Finish(); }
  HeadReads head_reads() const override { return backend_->head_reads(); }
  void SetKvDtype(KvDtype dtype) override;
  Status AllocateKv(const KvLayout& layout) override {
    return backend_->AllocateKv(kv_shape_, layout);
  }
  // x = embedding_scale() times the rows of the batch's tokens; RunLayers; logits of x.
  Status Forward(const ForwardBatch& batch, std::span<float> logits) override;
  Status ReadLogits(std::span<const int32_t> rows, std::span<float> logits) override;
  bool draws() const override { return group_ == nullptr && backend_->draws(); }
  Status Draw(std::span<const int32_t> rows, std::span<const TokenDraw> draws,
              std::span<int32_t> tokens) override;
  Status ReadHidden(std::span<const int32_t> rows, std::span<float> hidden) override;

  // Takes the weights; once, before anything else. Of one of several ranks, `group`'s (null: there
  // is one), its share of them; kUnsupported where the model cannot be split so.
  Status LoadWeights(WeightLoader& loader, Communicator* group = nullptr);
  // What the file says of the model; what the KV cache takes in `dtype` is added to it.
  void set_info(ModelInfo info, KvDtype dtype);

 protected:
  struct AttentionWeights {
    std::unique_ptr<Matrix> q;       // [heads * head_dim, width]
    std::unique_ptr<Matrix> k;       // [kv_heads * head_dim, width]
    std::unique_ptr<Matrix> v;       // [kv_heads * head_dim, width]
    std::unique_ptr<Vector> q_norm;  // [head_dim]; null where heads are not normalised
    std::unique_ptr<Vector> k_norm;  // [head_dim]; the same
    std::unique_ptr<Matrix> out;     // [width, heads * head_dim]
  };
  struct FeedForwardWeights {
    std::unique_ptr<Matrix> gate;  // [ffn_width, width]
    std::unique_ptr<Matrix> up;    // [ffn_width, width]
    std::unique_ptr<Matrix> down;  // [width, ffn_width]
  };
  // This rank's part of what lies under "<prefix>attn_" and "<prefix>ffn_".
  Status LoadAttention(WeightLoader& loader, const std::string& prefix, bool head_norms,
                       AttentionWeights* weights) const;
  Status LoadFeedForward(WeightLoader& loader, const std::string& prefix,
                         FeedForwardWeights* weights) const;
  // normed_ = out * attend(rope(q), rope(k), v) of normed_. The norms of `spec` are the weights'.
  void Attend(const AttentionWeights& weights, AttentionSpec spec);
  // normed_ = down * (act(gate) * up) of normed_.
  void FeedForward(const FeedForwardWeights& weights, kernels::Gate kind);

  // Makes the RoPE tables and, for each layer, reads its weights, called "blk.<i>.<name>".
  virtual Status LoadLayers(WeightLoader& loader) = 0;
  // The residual stream x_ through all layers, EnterLayer before each and LeaveLayers at the end.
  // It keeps what comes out until the next step.
  virtual void RunLayers(Backend& b) = 0;
  // What the layer before gave, in normed_, is added to x_ (its norm by `after`, where there is
  // one); the batch's last sequence joins or leaves x_ here, if the batch says so; then normed_ =
  // the norm of x_ by `before`.
  void EnterLayer(int layer, const Vector* after, const Vector& before);
  void LeaveLayers(const Vector* after);
  virtual float embedding_scale() const { return 1; }
  // Tokens that a layer's attention sees, its own included; 0: all.
  virtual int window(int /*layer*/) const { return 0; }

  // Of this rank: of its heads, of the weights that make them, of the feed-forward network.
  int heads() const { return static_cast<int>(shares_.heads.size); }
  int query_width() const { return heads() * h_.head_dim; }
  int kv_width() const { return static_cast<int>(kv_part().size); }
  Part query_part() const { return shares_.heads * h_.head_dim; }
  Part kv_part() const { return shares_.kv_heads * h_.head_dim; }
  Part ffn_part() const { return shares_.ffn; }
  Part expert_ffn_part() const { return shares_.expert_ffn; }

  Hyperparameters h_;  // of the whole model
  std::unique_ptr<Backend> backend_;
  // Activations of a step, [rows, ...]
  Tensor* x_ = nullptr;         // [width]: the residual stream
  Tensor* normed_ = nullptr;    // [width]
  Tensor* qkv_ = nullptr;       // [query_width() + 2 * kv_width()]
  Tensor* attended_ = nullptr;  // [query_width()]
  Tensor* gate_ = nullptr;      // [ffn_part().size]; null where there are experts
  Tensor* up_ = nullptr;        // [ffn_part().size]

 private:
  // `ranks`: as ForwardBatch::logit_ranks.
  Status MakeLogits(std::span<const int32_t> rows, std::span<const int32_t> ranks,
                    std::span<float> logits);
  // Brings the ranks' parts of `rows` rows of logits, this one's in part_logits_, together on rank
  // 0.
  Status GatherLogits(int64_t rows, std::span<float> logits);

  Communicator* group_ = nullptr;  // null: there is one rank
  Shares shares_;
  std::unique_ptr<Matrix> embedding_;    // [shares_.vocab.size, width]
  std::unique_ptr<Vector> output_norm_;  // [width]
  std::unique_ptr<Matrix> output_;       // [shares_.vocab.size, width]; null: tied to the embedding
  std::vector<float> part_logits_, all_logits_;
  ModelInfo info_;
  KvShape kv_shape_;
  int32_t first_layer_ = 0, end_layer_ = 0;  // of the batch at hand
};

std::unique_ptr<Decoder> MakeLlama(Hyperparameters h, std::unique_ptr<Backend> backend);
// With experts where the hyperparameters have them.
std::unique_ptr<Decoder> MakeQwen3(Hyperparameters h, std::unique_ptr<Backend> backend);
std::unique_ptr<Decoder> MakeGemma3(Hyperparameters h, std::unique_ptr<Backend> backend);

}  // namespace quern
