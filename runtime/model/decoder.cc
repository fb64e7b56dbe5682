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
  ReadLogits(batch.logit_rows, logits);
  return {};
}

void Decoder::ReadLogits(std::span<const int32_t> rows, std::span<float> logits) {
  Finish(rows);
  backend_->Logits(*normed_, output_ ? *output_ : *embedding_, h_.logit_softcap, logits);
}

void Decoder::ReadHidden(std::span<const int32_t> rows, std::span<float> hidden) {
  Finish(rows);
  backend_->Read(*normed_, hidden);
}

void Decoder::Finish(std::span<const int32_t> rows) {
  backend_->SelectRows(*x_, rows, normed_);
  backend_->RmsNorm(*normed_, output_norm_, h_.epsilon, normed_);
}

}  // namespace quern
