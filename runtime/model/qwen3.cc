#include <cmath>

#include "runtime/model/decoder.h"

// Qwen 3 (Qwen Team 2025, arXiv:2505.09388), dense and with experts: pre-norm, RoPE, grouped-query
// attention with normalised queries and keys, SwiGLU. The experts' weights are the softmax over all
// of them, divided by the sum of those chosen.
namespace quern {
namespace {

struct Qwen3Layer {
  std::unique_ptr<Vector> attn_norm;  // [width]
  std::unique_ptr<Matrix> q;          // [heads * head_dim, width]
  std::unique_ptr<Matrix> k;          // [kv_heads * head_dim, width]
  std::unique_ptr<Matrix> v;          // [kv_heads * head_dim, width]
  std::unique_ptr<Vector> q_norm;     // [head_dim]
  std::unique_ptr<Vector> k_norm;     // [head_dim]
  std::unique_ptr<Matrix> attn_out;   // [width, heads * head_dim]
  std::unique_ptr<Vector> ffn_norm;   // [width]
  // Dense
  std::unique_ptr<Matrix> gate;  // [ffn_width, width]
  std::unique_ptr<Matrix> up;    // [ffn_width, width]
  std::unique_ptr<Matrix> down;  // [width, ffn_width]
  // With experts
  std::unique_ptr<Matrix> router;             // [experts, width]
  std::unique_ptr<ExpertMatrices> gate_exps;  // [experts, expert_ffn_width, width]
  std::unique_ptr<ExpertMatrices> up_exps;    // [experts, expert_ffn_width, width]
  std::unique_ptr<ExpertMatrices> down_exps;  // [experts, width, expert_ffn_width]
  int experts = 0;                            // AddExperts'
};

class Qwen3 : public Decoder {
 public:
  using Decoder::Decoder;

 protected:
  Status LoadLayers(WeightLoader& loader) override {
    rope_ =
        backend_->AddRope({kernels::RopePairs::kHalves,
                           RopeFrequencies(h_.rope_base, h_.rope_dims, h_.rope_linear_factor, {})});
    layers_.resize(static_cast<size_t>(h_.layers));
    for (int i = 0; i < h_.layers; ++i) {
      Qwen3Layer* layer = &layers_[static_cast<size_t>(i)];
      const std::string prefix = fmt::format("blk.{}.", i);
      QUERN_TRY(LoadAttention(loader, prefix, layer));
      QUERN_TRY(h_.experts > 0 ? LoadExperts(loader, prefix, layer)
                               : LoadFeedForward(loader, prefix, layer));
    }
    return {};
  }

  void RunLayers(Backend& b) override {
    AttentionSpec attention{.heads = heads(),
                            .scale = 1.0f / std::sqrt(static_cast<float>(h_.head_dim)),
                            .rope = rope_,
                            .epsilon = h_.epsilon};
    for (const Qwen3Layer& layer : layers_) {
      attention.q_norm = layer.q_norm.get();
      attention.k_norm = layer.k_norm.get();
      EnterLayer(attention.layer, nullptr, *layer.attn_norm);
      // Attention: x += attn_out * attend(rope(norm(q)), rope(norm(k)), v)
      b.MatMul(*normed_, {{layer.q.get(), qkv_},
                          {layer.k.get(), qkv_, query_width()},
                          {layer.v.get(), qkv_, query_width() + kv_width()}});
      b.Attention(attention, qkv_, attended_);
      b.MatMul(*attended_, {{layer.attn_out.get(), normed_}});
      b.AllReduce(normed_);
      // Feed-forward: x += down * (silu(gate) * up), or its experts' sum
      b.AddRmsNorm(normed_, nullptr, layer.ffn_norm.get(), h_.epsilon, x_, normed_);
      if (h_.experts > 0) {
        b.Experts(layer.experts, *normed_, normed_);
      } else {
        b.MatMul(*normed_, {{layer.gate.get(), gate_}, {layer.up.get(), up_}});
        b.GatedActivation(kernels::Gate::kSilu, *up_, gate_);
        b.MatMul(*gate_, {{layer.down.get(), normed_}});
        b.AllReduce(normed_);
      }
      ++attention.layer;
    }
    LeaveLayers(nullptr);
  }

 private:
  Status LoadAttention(WeightLoader& loader, const std::string& prefix, Qwen3Layer* layer) const {
    QUERN_ASSIGN(layer->attn_norm, loader.LoadVector(prefix + "attn_norm.weight", h_.width));
    QUERN_ASSIGN(layer->q, loader.LoadMatrix(prefix + "attn_q.weight", query_part(), h_.width));
    QUERN_ASSIGN(layer->k, loader.LoadMatrix(prefix + "attn_k.weight", kv_part(), h_.width));
    QUERN_ASSIGN(layer->v, loader.LoadMatrix(prefix + "attn_v.weight", kv_part(), h_.width));
    QUERN_ASSIGN(layer->q_norm, loader.LoadVector(prefix + "attn_q_norm.weight", h_.head_dim));
    QUERN_ASSIGN(layer->k_norm, loader.LoadVector(prefix + "attn_k_norm.weight", h_.head_dim));
    QUERN_ASSIGN(layer->attn_out,
                 loader.LoadMatrix(prefix + "attn_output.weight", h_.width, query_part()));
    QUERN_ASSIGN(layer->ffn_norm, loader.LoadVector(prefix + "ffn_norm.weight", h_.width));
    return {};
  }

  Status LoadFeedForward(WeightLoader& loader, const std::string& prefix, Qwen3Layer* layer) const {
    QUERN_ASSIGN(layer->gate, loader.LoadMatrix(prefix + "ffn_gate.weight", ffn_part(), h_.width));
    QUERN_ASSIGN(layer->up, loader.LoadMatrix(prefix + "ffn_up.weight", ffn_part(), h_.width));
    QUERN_ASSIGN(layer->down, loader.LoadMatrix(prefix + "ffn_down.weight", h_.width, ffn_part()));
    return {};
  }

  Status LoadExperts(WeightLoader& loader, const std::string& prefix, Qwen3Layer* layer) const {
    const int ffn_width = h_.expert_ffn_width;
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

  std::vector<Qwen3Layer> layers_;
  int rope_ = 0;
};

}  // namespace

std::unique_ptr<Decoder> MakeQwen3(Hyperparameters h, std::unique_ptr<Backend> backend) {
  return std::make_unique<Qwen3>(std::move(h), std::move(backend));
}

}  // namespace quern
