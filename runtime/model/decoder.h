#pragma once

#include <memory>
#include <string>
#include <vector>

#include "runtime/backend/backend.h"
#include "runtime/model/hyperparameters.h"
#include "runtime/model/model.h"
#include "runtime/model/weight_loader.h"

namespace quern {

// What the families have in common: sizes, backend, the KV cache's shape, the embedding and the
// head. Each family's file has its layers and what it does with them.
class Decoder : public Model {
 public:
  Decoder(Hyperparameters hyperparameters, std::unique_ptr<Backend> backend)
      : h_(std::move(hyperparameters)), backend_(std::move(backend)) {}

  const ModelInfo& info() const override { return info_; }
  std::optional<BackendMemory> device_memory() const override { return backend_->memory(); }
  void SetKvDtype(KvDtype dtype) override;
  Status AllocateKv(const KvLayout& layout) override {
    return backend_->AllocateKv(kv_shape_, layout);
  }
  // x = embedding_scale() times the rows of the batch's tokens; RunLayers; logits of x.
  Status Forward(const ForwardBatch& batch, std::span<float> logits) override;
  Status ReadLogits(std::span<const int32_t> rows, std::span<float> logits) override;
  bool draws() const override { return backend_->draws(); }
  Status Draw(std::span<const int32_t> rows, std::span<const TokenDraw> draws,
              std::span<int32_t> tokens) override;
  Status ReadHidden(std::span<const int32_t> rows, std::span<float> hidden) override;

  // Takes the weights; once, before anything else.
  Status LoadWeights(WeightLoader& loader);
  // What the file says of the model; what the KV cache takes in `dtype` is added to it.
  void set_info(ModelInfo info, KvDtype dtype);

 protected:
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

  int query_width() const { return h_.heads * h_.head_dim; }
  int kv_width() const { return h_.kv_heads * h_.head_dim; }

  Hyperparameters h_;
  std::unique_ptr<Backend> backend_;
  // Activations of a step, [rows, ...]
  Tensor* x_ = nullptr;         // [width]: the residual stream
  Tensor* normed_ = nullptr;    // [width]
  Tensor* qkv_ = nullptr;       // [(heads + 2 * kv_heads) * head_dim]
  Tensor* attended_ = nullptr;  // [heads * head_dim]
  Tensor* gate_ = nullptr;      // [ffn_width]; null where there are experts
  Tensor* up_ = nullptr;        // [ffn_width]

 private:
  std::unique_ptr<Matrix> embedding_;    // [vocab, width]
  std::unique_ptr<Vector> output_norm_;  // [width]
  std::unique_ptr<Matrix> output_;       // [vocab, width]; null: tied to the embedding
  ModelInfo info_;
  KvShape kv_shape_;
  int32_t first_layer_ = 0, end_layer_ = 0;  // of the batch at hand
};

std::unique_ptr<Decoder> MakeLlama(Hyperparameters h, std::unique_ptr<Backend> backend);
// With experts where the hyperparameters have them.
std::unique_ptr<Decoder> MakeQwen3(Hyperparameters h, std::unique_ptr<Backend> backend);
std::unique_ptr<Decoder> MakeGemma3(Hyperparameters h, std::unique_ptr<Backend> backend);

}  // namespace quern
