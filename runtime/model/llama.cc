#include <cmath>

#include "runtime/model/decoder.h"

// Llama 2 and 3, SmolLM2 and their like (Touvron et al. 2023): pre-norm, RoPE, grouped-query
// attention, SwiGLU.
namespace quern {
namespace {

struct Layer {
  std::vector<float> attn_norm;      // [width]
  std::unique_ptr<Matrix> q;         // [heads * head_dim, width]
  std::unique_ptr<Matrix> k;         // [kv_heads * head_dim, width]
  std::unique_ptr<Matrix> v;         // [kv_heads * head_dim, width]
  std::unique_ptr<Matrix> attn_out;  // [width, heads * head_dim]
  std::vector<float> ffn_norm;       // [width]
  std::unique_ptr<Matrix> gate;      // [ffn_width, width]
  std::unique_ptr<Matrix> up;        // [ffn_width, width]
  std::unique_ptr<Matrix> down;      // [width, ffn_width]
};

class Llama : public Decoder {
 public:
  using Decoder::Decoder;

  Status LoadWeights(WeightLoader& loader) override {
    QUERN_ASSIGN(embedding_, loader.LoadMatrix("token_embd.weight", h_.vocab_size, h_.width));
    QUERN_ASSIGN(output_norm_, loader.LoadVector("output_norm.weight", h_.width));
    if (loader.Has("output.weight")) {
      QUERN_ASSIGN(output_, loader.LoadMatrix("output.weight", h_.vocab_size, h_.width));
    }
    std::vector<float> factors;  // Llama 3.1's stretched frequencies
    if (loader.Has("rope_freqs.weight")) {
      QUERN_ASSIGN(factors, loader.LoadVector("rope_freqs.weight", h_.rope_dims / 2));
    }
    rope_ = backend_->AddRope(
        {kernels::RopePairs::kAdjacent,
         RopeFrequencies(h_.rope_base, h_.rope_dims, h_.rope_linear_factor, factors)});
    layers_.resize(static_cast<size_t>(h_.layers));
    for (int i = 0; i < h_.layers; ++i) {
      QUERN_TRY(LoadLayer(loader, fmt::format("blk.{}.", i), &layers_[static_cast<size_t>(i)]));
    }
    MakeTensors();
    return {};
  }

  Status Forward(const ForwardBatch& batch, std::span<float> logits) override {
    Backend& b = *backend_;
    QUERN_TRY(b.BeginStep(batch));
    b.Embed(*embedding_, 1.0f, x_);
    AttentionSpec attention{0, h_.heads, 1.0f / std::sqrt(static_cast<float>(h_.head_dim)), 0, 0};
    for (const Layer& layer : layers_) {
      // Attention: x += attn_out * attend(rope(q), rope(k), v)
      b.RmsNorm(*x_, layer.attn_norm, h_.epsilon, normed_);
      b.MatMul(*normed_, {{layer.q.get(), q_}, {layer.k.get(), k_}, {layer.v.get(), v_}});
      b.Rope(rope_, h_.head_dim, q_);
      b.Rope(rope_, h_.head_dim, k_);
      b.Attention(attention, *q_, *k_, *v_, attended_);
      b.MatMul(*attended_, {{layer.attn_out.get(), normed_}});
      b.Add(*normed_, x_);
      // Feed-forward: x += down * (silu(gate) * up)
      b.RmsNorm(*x_, layer.ffn_norm, h_.epsilon, normed_);
      b.MatMul(*normed_, {{layer.gate.get(), gate_}, {layer.up.get(), up_}});
      b.GatedActivation(kernels::Gate::kSilu, *up_, gate_);
      b.MatMul(*gate_, {{layer.down.get(), normed_}});
      b.Add(*normed_, x_);
      ++attention.layer;
    }
    b.SelectLogitRows(*x_, normed_);
    b.RmsNorm(*normed_, output_norm_, h_.epsilon, normed_);
    b.Logits(*normed_, output_ ? *output_ : *embedding_, h_.logit_softcap, logits);
    return {};
  }

 private:
  Status LoadLayer(WeightLoader& loader, const std::string& prefix, Layer* layer) const {
    QUERN_ASSIGN(layer->attn_norm, loader.LoadVector(prefix + "attn_norm.weight", h_.width));
    QUERN_ASSIGN(layer->q, loader.LoadMatrix(prefix + "attn_q.weight", query_width(), h_.width));
    QUERN_ASSIGN(layer->k, loader.LoadMatrix(prefix + "attn_k.weight", kv_width(), h_.width));
    QUERN_ASSIGN(layer->v, loader.LoadMatrix(prefix + "attn_v.weight", kv_width(), h_.width));
    QUERN_ASSIGN(layer->attn_out,
                 loader.LoadMatrix(prefix + "attn_output.weight", h_.width, query_width()));
    QUERN_ASSIGN(layer->ffn_norm, loader.LoadVector(prefix + "ffn_norm.weight", h_.width));
    QUERN_ASSIGN(layer->gate,
                 loader.LoadMatrix(prefix + "ffn_gate.weight", h_.ffn_width, h_.width));
    QUERN_ASSIGN(layer->up, loader.LoadMatrix(prefix + "ffn_up.weight", h_.ffn_width, h_.width));
    QUERN_ASSIGN(layer->down,
                 loader.LoadMatrix(prefix + "ffn_down.weight", h_.width, h_.ffn_width));
    return {};
  }

  void MakeTensors() {
    x_ = backend_->NewTensor(h_.width);
    normed_ = backend_->NewTensor(h_.width);
    q_ = backend_->NewTensor(query_width());
    k_ = backend_->NewTensor(kv_width());
    v_ = backend_->NewTensor(kv_width());
    attended_ = backend_->NewTensor(query_width());
    gate_ = backend_->NewTensor(h_.ffn_width);
    up_ = backend_->NewTensor(h_.ffn_width);
  }

  std::unique_ptr<Matrix> embedding_;  // [vocab, width]
  std::vector<float> output_norm_;     // [width]
  std::unique_ptr<Matrix> output_;     // [vocab, width]; null: tied to the embedding
  std::vector<Layer> layers_;
  int rope_ = 0;
  // Activations of a step, [rows, ...]
  Tensor *x_, *normed_, *q_, *k_, *v_, *attended_, *gate_, *up_;
};

}  // namespace

std::unique_ptr<Decoder> MakeLlama(Hyperparameters h, std::unique_ptr<Backend> backend) {
  return std::make_unique<Llama>(std::move(h), std::move(backend));
}

}  // namespace quern
