#include <cmath>

#include "runtime/model/decoder.h"

// Llama 2 and 3, SmolLM2 and their like (Touvron et al. 2023): pre-norm, RoPE, grouped-query
// attention, SwiGLU.
namespace quern {
namespace {

class Llama : public Decoder {
 private:
  struct Layer {
    std::unique_ptr<Vector> attn_norm;  // [width]
    AttentionWeights attention;
    std::unique_ptr<Vector> ffn_norm;  // [width]
    FeedForwardWeights feed_forward;
  };

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
    for (const Layer& layer : layers_) {
      EnterLayer(attention.layer, nullptr, *layer.attn_norm);
      // x += attn_out * attend(rope(q), rope(k), v)
      Attend(layer.attention, attention);
      b.AddRmsNorm(normed_, nullptr, layer.ffn_norm.get(), h_.epsilon, x_, normed_);
      // x += down * (silu(gate) * up)
      FeedForward(layer.feed_forward, kernels::Gate::kSilu);
      ++attention.layer;
    }
    LeaveLayers(nullptr);
  }

 private:
  Status LoadLayer(WeightLoader& loader, const std::string& prefix, Layer* layer) const {
    QUERN_ASSIGN(layer->attn_norm, loader.LoadVector(prefix + "attn_norm.weight", h_.width));
    QUERN_TRY(LoadAttention(loader, prefix, /*head_norms=*/false, &layer->attention));
    QUERN_ASSIGN(layer->ffn_norm, loader.LoadVector(prefix + "ffn_norm.weight", h_.width));
    QUERN_TRY(LoadFeedForward(loader, prefix, &layer->feed_forward));
    return {};
  }

  std::vector<Layer> layers_;
  int rope_ = 0;
};

}  // namespace

std::unique_ptr<Decoder> MakeLlama(Hyperparameters h, std::unique_ptr<Backend> backend) {
  return std::make_unique<Llama>(std::move(h), std::move(backend));
}

}  // namespace quern
