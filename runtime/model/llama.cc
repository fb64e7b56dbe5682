#include <cmath>

#include "runtime/model/decoder.h"

// Llama 2 and 3, SmolLM2 and their like (Touvron et al. 2023): pre-norm, RoPE, grouped-query
// attention, SwiGLU.
namespace quern {
namespace {

struct LlamaLayer {
  std::unique_ptr<Vector> attn_norm;  // [width]
  std::unique_ptr<Matrix> q;          // [heads * head_dim, width]
  std::unique_ptr<Matrix> k;          // [kv_heads * head_dim, width]
  std::unique_ptr<Matrix> v;          // [kv_heads * head_dim, width]
  std::unique_ptr<Matrix> attn_out;   // [width, heads * head_dim]
  std::unique_ptr<Vector> ffn_norm;   // [width]
  std::unique_ptr<Matrix> gate;       // [ffn_width, width]
  std::unique_ptr<Matrix> up;         // [ffn_width, width]
  std::unique_ptr<Matrix> down;       // [width, ffn_width]
};

class Llama : public Decoder {
 public:
  using Decoder::Decoder;

 protected:
  Status LoadLayers(WeightLoader& loader) override {
    std::vector<float> factors;  // Llama 3.1's stretched frequencies
    if (loader.Has("rope_freqs.weight")) {
      QUERN_ASSIGN(factors, loader.ReadVector("rope_freqs.weight", h_.rope_dims / 2));
    }
    for (const float factor : factors) {
      if (factor > 0 && std::isfinite(factor)) continue;
      return MakeError(ErrorCode::kDataLoss,
                       "tensor rope_freqs.weight holds {}: frequencies are divided by it, so a "
                       "number above 0 is expected",
                       factor);
    }
    rope_ = backend_->AddRope(
        {kernels::RopePairs::kAdjacent,
         RopeFrequencies(h_.rope_base, h_.rope_dims, h_.rope_linear_factor, factors)});
    layers_.resize(static_cast<size_t>(h_.layers));
    for (int i = 0; i < h_.layers; ++i) {
      QUERN_TRY(LoadLayer(loader, fmt::format("blk.{}.", i), &layers_[static_cast<size_t>(i)]));
    }
    return {};
  }

  void RunLayers(Backend& b) override {
    AttentionSpec attention{.heads = heads(),
                            .scale = 1.0f / std::sqrt(static_cast<float>(h_.head_dim)),
                            .rope = rope_};
    for (const LlamaLayer& layer : layers_) {
      EnterLayer(attention.layer, nullptr, *layer.attn_norm);
      // Attention: x += attn_out * attend(rope(q), rope(k), v)
      b.MatMul(*normed_, {{layer.q.get(), qkv_},
                          {layer.k.get(), qkv_, query_width()},
                          {layer.v.get(), qkv_, query_width() + kv_width()}});
      b.Attention(attention, qkv_, attended_);
      b.MatMul(*attended_, {{layer.attn_out.get(), normed_}});
      b.AllReduce(normed_);
      // Feed-forward: x += down * (silu(gate) * up)
      b.AddRmsNorm(normed_, nullptr, layer.ffn_norm.get(), h_.epsilon, x_, normed_);
      b.MatMul(*normed_, {{layer.gate.get(), gate_}, {layer.up.get(), up_}});
      b.GatedActivation(kernels::Gate::kSilu, *up_, gate_);
      b.MatMul(*gate_, {{layer.down.get(), normed_}});
      b.AllReduce(normed_);
      ++attention.layer;
    }
    LeaveLayers(nullptr);
  }

 private:
  Status LoadLayer(WeightLoader& loader, const std::string& prefix, LlamaLayer* layer) const {
    QUERN_ASSIGN(layer->attn_norm, loader.LoadVector(prefix + "attn_norm.weight", h_.width));
    QUERN_ASSIGN(layer->q, loader.LoadMatrix(prefix + "attn_q.weight", query_part(), h_.width));
    QUERN_ASSIGN(layer->k, loader.LoadMatrix(prefix + "attn_k.weight", kv_part(), h_.width));
    QUERN_ASSIGN(layer->v, loader.LoadMatrix(prefix + "attn_v.weight", kv_part(), h_.width));
    QUERN_ASSIGN(layer->attn_out,
                 loader.LoadMatrix(prefix + "attn_output.weight", h_.width, query_part()));
    QUERN_ASSIGN(layer->ffn_norm, loader.LoadVector(prefix + "ffn_norm.weight", h_.width));
    QUERN_ASSIGN(layer->gate, loader.LoadMatrix(prefix + "ffn_gate.weight", ffn_part(), h_.width));
    QUERN_ASSIGN(layer->up, loader.LoadMatrix(prefix + "ffn_up.weight", ffn_part(), h_.width));
    QUERN_ASSIGN(layer->down, loader.LoadMatrix(prefix + "ffn_down.weight", h_.width, ffn_part()));
    return {};
  }

  std::vector<LlamaLayer> layers_;
  int rope_ = 0;
};

}  // namespace

std::unique_ptr<Decoder> MakeLlama(Hyperparameters h, std::unique_ptr<Backend> backend) {
  return std::make_unique<Llama>(std::move(h), std::move(backend));
}

}  // namespace quern
