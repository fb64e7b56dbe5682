#include "runtime/model/decoder.h"

#include <algorithm>
#include <cstdlib>

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

void Decoder::set_info(ModelInfo info, KvDtype dtype) {
  info_ = std::move(info);
  kv_shape_ = {h_.layers, h_.kv_heads, h_.head_dim, dtype, {}};
  for (int layer = 0; layer < h_.layers; ++layer) kv_shape_.windows.push_back(window(layer));
  // Were there no other layers, nothing would say how many tokens the cache holds: they are taken
  // for layers that keep all.
  if (WindowLayers(kv_shape_) == h_.layers) kv_shape_.windows.clear();
  info_.layers = h_.layers;
  info_.window_layers = WindowLayers(kv_shape_);
  for (const int tokens : kv_shape_.windows) {
    info_.window_tokens = std::max(info_.window_tokens, tokens);
  }
  SetKvDtype(dtype);
}

void Decoder::SetKvDtype(KvDtype dtype) {
  kv_shape_.dtype = info_.kv_dtype = dtype;
  info_.kv_bytes_per_token = KvBytesPerToken(kv_shape_, info_.layers);
  info_.kv_window_bytes_per_token = KvBytesPerToken(kv_shape_, info_.window_layers);
}

Status Decoder::Forward(const ForwardBatch& batch, std::span<float> logits) {
  Backend& b = *backend_;
  QUERN_TRY(b.BeginStep(batch));
  first_layer_ = batch.first_layer;
  end_layer_ = batch.end_layer;
  b.Embed(*embedding_, embedding_scale(), x_);
  RunLayers(b);
  // Also in release builds: rows that are not there would be another step's, of other requests.
  const bool holds = batch.end_layer < h_.layers;
  const auto rows = std::ssize(batch.tokens) - (holds ? batch.sequences.back().num_rows : 0);
  if (x_->rows != rows) std::abort();
  ReadLogits(batch.logit_rows, logits);
  return {};
}

void Decoder::EnterLayer(int layer) {
  if (layer == 0) return;
  if (layer == first_layer_) backend_->ResumeLast(x_);
  if (layer == end_layer_) backend_->HoldLast(x_);
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
