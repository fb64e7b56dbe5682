#include <cmath>

#include "runtime/model/decoder.h"

// Gemma 3, text (Gemma Team 2025, arXiv:2503.19786): norms before and after each half of a layer,
// normalised queries and keys, five sliding-window layers to one global, GeGLU, a scaled and tied
// embedding. The norms' "1 + w" is already in a GGUF file's weights.
namespace quern {
namespace {

constexpr int kLayersPerGlobal = 6;  // layers 5, 11, ... see the whole context
constexpr double kLocalRopeBase = 10000;

struct Gemma3Layer {
  std::unique_ptr<Vector> attn_norm;       // [width]
  std::unique_ptr<Matrix> q;               // [heads * head_dim, width]
  std::unique_ptr<Matrix> k;               // [kv_heads * head_dim, width]
  std::unique_ptr<Matrix> v;               // [kv_heads * head_dim, width]
  std::unique_ptr<Vector> q_norm;          // [head_dim]
  std::unique_ptr<Vector> k_norm;          // [head_dim]
  std::unique_ptr<Matrix> attn_out;        // [width, heads * head_dim]
  std::unique_ptr<Vector> post_attn_norm;  // [width]
  std::unique_ptr<Vector> ffn_norm;        // [width]
  std::unique_ptr<Matrix> gate;            // [ffn_width, width]
  std::unique_ptr<Matrix> up;              // [ffn_width, width]
  std::unique_ptr<Matrix> down;            // [width, ffn_width]
  std::unique_ptr<Vector> post_ffn_norm;   // [width]
};

class Gemma3 : public Decoder {
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
      const Gemma3Layer& layer = layers_[static_cast<size_t>(i)];
      attention.layer = i;
      attention.window = window(i);
      attention.rope = window(i) == 0 ? global_rope_ : local_rope_;
      attention.q_norm = layer.q_norm.get();
      attention.k_norm = layer.k_norm.get();
      EnterLayer(i, after, *layer.attn_norm);
      // Attention: x += norm(attn_out * attend(rope(norm(q)), rope(norm(k)), v))
      b.MatMul(*normed_, {{layer.q.get(), qkv_},
                          {layer.k.get(), qkv_, query_width()},
                          {layer.v.get(), qkv_, query_width() + kv_width()}});
      b.Attention(attention, qkv_, attended_);
      b.MatMul(*attended_, {{layer.attn_out.get(), normed_}});
      b.AllReduce(normed_);
      // Feed-forward: x += norm(down * (gelu(gate) * up))
      b.AddRmsNorm(normed_, layer.post_attn_norm.get(), layer.ffn_norm.get(), h_.epsilon, x_,
                   normed_);
      b.MatMul(*normed_, {{layer.gate.get(), gate_}, {layer.up.get(), up_}});
      b.GatedActivation(kernels::Gate::kGeluTanh, *up_, gate_);
      b.MatMul(*gate_, {{layer.down.get(), normed_}});
      b.AllReduce(normed_);
      after = layer.post_ffn_norm.get();
    }
    LeaveLayers(after);
  }

 private:
  // The 27B model, alone, scales by its width per head (its config's query_pre_attn_scalar = 168).
  int QueryScaleDim() const { return h_.layers == 62 ? h_.width / h_.heads : h_.head_dim; }

  Status LoadLayer(WeightLoader& loader, const std::string& prefix, Gemma3Layer* layer) const {
    QUERN_ASSIGN(layer->attn_norm, loader.LoadVector(prefix + "attn_norm.weight", h_.width));
    QUERN_ASSIGN(layer->q, loader.LoadMatrix(prefix + "attn_q.weight", query_part(), h_.width));
    QUERN_ASSIGN(layer->k, loader.LoadMatrix(prefix + "attn_k.weight", kv_part(), h_.width));
    QUERN_ASSIGN(layer->v, loader.LoadMatrix(prefix + "attn_v.weight", kv_part(), h_.width));
    QUERN_ASSIGN(layer->q_norm, loader.LoadVector(prefix + "attn_q_norm.weight", h_.head_dim));
    QUERN_ASSIGN(layer->k_norm, loader.LoadVector(prefix + "attn_k_norm.weight", h_.head_dim));
    QUERN_ASSIGN(layer->attn_out,
                 loader.LoadMatrix(prefix + "attn_output.weight", h_.width, query_part()));
    QUERN_ASSIGN(layer->post_attn_norm,
                 loader.LoadVector(prefix + "post_attention_norm.weight", h_.width));
    QUERN_ASSIGN(layer->ffn_norm, loader.LoadVector(prefix + "ffn_norm.weight", h_.width));
    QUERN_ASSIGN(layer->gate, loader.LoadMatrix(prefix + "ffn_gate.weight", ffn_part(), h_.width));
    QUERN_ASSIGN(layer->up, loader.LoadMatrix(prefix + "ffn_up.weight", ffn_part(), h_.width));
    QUERN_ASSIGN(layer->down, loader.LoadMatrix(prefix + "ffn_down.weight", h_.width, ffn_part()));
    QUERN_ASSIGN(layer->post_ffn_norm,
                 loader.LoadVector(prefix + "post_ffw_norm.weight", h_.width));
    return {};
  }

  std::vector<Gemma3Layer> layers_;
  int global_rope_ = 0;
  int local_rope_ = 0;
};

}  // namespace

std::unique_ptr<Decoder> MakeGemma3(Hyperparameters h, std::unique_ptr<Backend> backend) {
  return std::make_unique<Gemma3>(std::move(h), std::move(backend));
}

}  // namespace quern
