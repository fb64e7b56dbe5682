#include "runtime/model/decoder.h"

namespace quern {

Status Decoder::LoadWeights(WeightLoader& loader) {
  QUERN_ASSIGN(embedding_, loader.LoadMatrix("token_embd.weight", h_.vocab_size, h_.width));
  QUERN_ASSIGN(output_norm_, loader.LoadVector("output_norm.weight", h_.width));
  if (loader.Has("output.weight")) {
    QUERN_ASSIGN(output_, loader.LoadMatrix("output.weight", h_.vocab_size, h_.width));
  }
  QUERN_TRY(LoadLayers(loader));
  x_ = backend_->NewTensor(h_.width);
  normed_ = backend_->NewTensor(h_.width);
  q_ = backend_->NewTensor(query_width());
  k_ = backend_->NewTensor(kv_width());
  v_ = backend_->NewTensor(kv_width());
  attended_ = backend_->NewTensor(query_width());
  gate_ = backend_->NewTensor(h_.ffn_width);
  up_ = backend_->NewTensor(h_.ffn_width);
  return {};
}

Status Decoder::Forward(const ForwardBatch& batch, std::span<float> logits) {
  Backend& b = *backend_;
  QUERN_TRY(b.BeginStep(batch));
  b.Embed(*embedding_, embedding_scale(), x_);
  RunLayers(b);
  b.SelectLogitRows(*x_, normed_);
  b.RmsNorm(*normed_, output_norm_, h_.epsilon, normed_);
  b.Logits(*normed_, output_ ? *output_ : *embedding_, h_.logit_softcap, logits);
  return {};
}

}  // namespace quern
