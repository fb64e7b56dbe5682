#include <cmath>

#include "runtime/model/decoder.h"

// Qwen 3 (Qwen Team 2025, arXiv:2505.09388), dense and with experts: pre-norm, RoPE, grouped-query
// attention with normalised queries and keys, SwiGLU. The experts' weights are the softmax over all
// of them, divided by the sum of those chosen.
namespace quern {
namespace {

class Qwen3 : public Decoder {
 private:
  struct Layer {
    std::unique_ptr<Vector> attn_norm;  // [width]
    AttentionWeights attention;
    std::unique_ptr<Vector> ffn_norm;  // [width]
    FeedForwardWeights feed_forward;   // without experts
    // With experts
    std::unique_ptr<Matrix> router;             // [experts, width]
    std::unique_ptr<ExpertMatrices> gate_exps;  // [experts, expert_ffn_part().size, width]
    std::unique_ptr<ExpertMatrices> up_exps;    // [experts, expert_ffn_part().size, width]
    std::unique_ptr<ExpertMatrices> down_exps;  // [experts, width, expert_ffn_part().size]
    int experts = 0;                            // AddExperts'
  };

 public:
  using Decoder::Decoder;

 protected:
  Status LoadLayers(WeightLoader& loader) override {
    rope_ =
        backend_->AddRope({kernels::RopePairs::kHalves,
                           RopeFrequencies(h_.rope_base, h_.rope_dims, h_.rope_linear_factor, {})});
    layers_.resize(static_cast<size_t>(h_.layers));
    for (int i = 0; i < h_.layers; ++i) {
      Layer* layer = &layers_[static_cast<size_t>(i)];
      const std::string prefix = fmt::format("blk.{}.", i);
      QUERN_ASSIGN(layer->attn_norm, loader.LoadVector(prefix + "attn_norm.weight", h_.width));
      QUERN_TRY(LoadAttention(loader, prefix, /*head_norms=*/true, &layer->attention));
      QUERN_ASSIGN(layer->ffn_norm, loader.LoadVector(prefix + "ffn_norm.weight", h_.width));
      QUERN_TRY(h_.experts > 0 ? LoadExperts(loader, prefix, layer)
                               : LoadFeedForward(loader, prefix, &layer->feed_forward));
    }
    return {};
  }

  void RunLayers(Backend& b) override {
    AttentionSpec attention{.heads = heads(),
                            .scale = 1.0f / std::sqrt(static_cast<float>(h_.head_dim)),
                            .rope = rope_,
                            .epsilon = h_.epsilon};
    for (const Layer& layer : layers_) {
      EnterLayer(attention.layer, nullptr, *layer.attn_norm);
      // x += attn_out * attend(rope(norm(q)), rope(norm(k)), v)
      Attend(layer.attention, attention);
      b.AddRmsNorm(normed_, nullptr, layer.ffn_norm.get(), h_.epsilon, x_, normed_);
      // x += down * (silu(gate) * up), or its experts' sum
      if (h_.experts > 0) {
        b.Experts(layer.experts, *normed_, normed_);
        b.AllReduce(normed_);
      } else {
        FeedForward(layer.feed_forward, kernels::Gate::kSilu);
      }
      ++attention.layer;
    }
    LeaveLayers(nullptr);
  }

 private:
  // All ranks have the router whole, and so choose the same experts: x has the same bits on all.
  Status LoadExperts(WeightLoader& loader, const std::string& prefix, Layer* layer) const {
    const Part ffn_width = expert_ffn_part();
    QUERN_ASSIGN(layer->router,
                 loader.LoadRouter(prefix + "ffn_gate_inp.weight", h_.experts, h_.width));
    QUERN_ASSIGN(layer->gate_exps, loader.LoadExperts(prefix + "ffn_gate_exps.weight", h_.experts,
                                                      ffn_width, h_.width));
    QUERN_ASSIGN(layer->up_exps, loader.LoadExperts(prefix + "ffn_up_exps.weight", h_.experts,
                                                    ffn_width, h_.width));
    QUERN_ASSIGN(layer->down_exps, loader.LoadExperts(prefix + "ffn_down_exps.weight", h_.experts,
                                                      h_.width, ffn_width));
    layer->experts = backend_->AddExperts({.router = layer->router.get(),
                                           .gate = layer->gate_exps.get(),
                                           .up = layer->up_exps.get(),
                                           .down = layer->down_exps.get(),
                                           .top_k = h_.experts_used,
                                           .norm = h_.expert_weights_sum_to_one
                                                       ? kernels::RouterNorm::kChosenExperts
                                                       : kernels::RouterNorm::kAllExperts,
                                           .scale = h_.expert_weights_scale});
    return {};
  }

  std::vector<Layer> layers_;
  int rope_ = 0;
};

}  // namespace

std::unique_ptr<Decoder> MakeQwen3(Hyperparameters h, std::unique_ptr<Backend> backend) {
  return std::make_unique<Qwen3>(std::move(h), std::move(backend));
}

}  // namespace quern
