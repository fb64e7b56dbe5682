#include <cmath>

#include "runtime/model/decoder.h"

// Gemma 3, text (Gemma Team 2025, arXiv:2503.19786): norms before and after each half of a layer,
// normalised queries and keys, five sliding-window layers to one global, GeGLU, a scaled and tied
// embedding. The norms' "1 + w" is already in a GGUF file's weights.
namespace quern {
namespace {

constexpr int kLayersPerGlobal = 6;  // layers 5, 11, ... see the whole context
constexpr double kLocalRopeBase = 10000;

class Gemma3 : public Decoder {
 private:
  struct Layer {
    std::unique_ptr<Vector> attn_norm;  // [width]
    AttentionWeights attention;
    std::unique_ptr<Vector> post_attn_norm;  // [width]
    std::unique_ptr<Vector> ffn_norm;        // [width]
    FeedForwardWeights feed_forward;
    std::unique_ptr<Vector> post_ffn_norm;  // [width]
  };

 public:
  using Decoder::Decoder;

 protected:
  float embedding_scale() const override { return std::sqrt(static_cast<float>(h_.width)); }
  int window(int layer) const override {
    return layer % kLayersPerGlobal == kLayersPerGlobal - 1 ? 0 : h_.window;
  }

  Status LoadLayers(WeightLoader& loader) override {
    if (h_.window == 0) {
      return MakeError(ErrorCode::kDataLoss,
                       "metadata gemma3.attention.sliding_window is missing: expected the tokens "
                       "that a local layer sees");
    }
    global_rope_ =
        backend_->AddRope({kernels::RopePairs::kHalves,
                           RopeFrequencies(h_.rope_base, h_.rope_dims, h_.rope_linear_factor, {})});
    local_rope_ = backend_->AddRope(
        {kernels::RopePairs::kHalves, RopeFrequencies(kLocalRopeBase, h_.rope_dims, 1, {})});
    layers_.resize(static_cast<size_t>(h_.layers));
    for (int i = 0; i < h_.layers; ++i) {
      QUERN_TRY(LoadLayer(loader, fmt::format("blk.{}.", i), &layers_[static_cast<size_t>(i)]));
    }
    return {};
  }

  void RunLayers(Backend& b) override {
    AttentionSpec attention{.heads = heads(),
                            .scale = 1.0f / std::sqrt(static_cast<float>(QueryScaleDim())),
                            .softcap = h_.attention_softcap,
                            .epsilon = h_.epsilon};
    const Vector* after = nullptr;
    for (int i = 0; i < h_.layers; ++i) {
      const Layer& layer = layers_[static_cast<size_t>(i)];
      attention.layer = i;
      attention.window = window(i);
      attention.rope = window(i) == 0 ? global_rope_ : local_rope_;
      EnterLayer(i, after, *layer.attn_norm);
      // x += norm(attn_out * attend(rope(norm(q)), rope(norm(k)), v))
      Attend(layer.attention, attention);
      b.AddRmsNorm(normed_, layer.post_attn_norm.get(), layer.ffn_norm.get(), h_.epsilon, x_,
                   normed_);
      // x += norm(down * (gelu(gate) * up))
      FeedForward(layer.feed_forward, kernels::Gate::kGeluTanh);
      after = layer.post_ffn_norm.get();
    }
    LeaveLayers(after);
  }

 private:
  // The 27B model, alone, scales by its width per head (its config's query_pre_attn_scalar = 168).
  int QueryScaleDim() const { return h_.layers == 62 ? h_.width / h_.heads : h_.head_dim; }

  Status LoadLayer(WeightLoader& loader, const std::string& prefix, Layer* layer) const {
    QUERN_ASSIGN(layer->attn_norm, loader.LoadVector(prefix + "attn_norm.weight", h_.width));
    QUERN_TRY(LoadAttention(loader, prefix, /*head_norms=*/true, &layer->attention));
    QUERN_ASSIGN(layer->post_attn_norm,
                 loader.LoadVector(prefix + "post_attention_norm.weight", h_.width));
    QUERN_ASSIGN(layer->ffn_norm, loader.LoadVector(prefix + "ffn_norm.weight", h_.width));
    QUERN_TRY(LoadFeedForward(loader, prefix, &layer->feed_forward));
    QUERN_ASSIGN(layer->post_ffn_norm,
                 loader.LoadVector(prefix + "post_ffw_norm.weight", h_.width));
    return {};
  }

  std::vector<Layer> layers_;
  int global_rope_ = 0;
  int local_rope_ = 0;
};

}  // namespace

std::unique_ptr<Decoder> MakeGemma3(Hyperparameters h, std::unique_ptr<Backend> backend) {
  return std::make_unique<Gemma3>(std::move(h), std::move(backend));
}

}  // namespace quern
