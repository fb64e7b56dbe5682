#include "runtime/model/decoder.h"

#include <algorithm>
#include <cstdlib>

#include "runtime/distributed/communicator.h"

namespace quern {

Status Decoder::LoadWeights(WeightLoader& loader, Communicator* group) {
  group_ = group;
  if (const int size = group ? group->size() : 1; backend_->ranks() != size) {
    return MakeError(
        ErrorCode::kUnsupported,
        "a model for {} processes on a backend of {}: a backend that adds up what they "
        "have is needed",
        size, backend_->ranks());
  }
  QUERN_ASSIGN(shares_,
               ShareOut(h_,
                        {loader.BlockOf(".attn_output.weight"), loader.BlockOf(".ffn_down.weight"),
                         loader.BlockOf(".ffn_down_exps.weight")},
                        group ? group->rank() : 0, group ? group->size() : 1));
  QUERN_TRY(backend_->CheckSizes(
      {.width = h_.width, .vocabulary = shares_.vocab.size, .head_dim = h_.head_dim}));
  const char* const embedding = "token_embd.weight";
  if (loader.Has("output.weight")) {
    QUERN_ASSIGN(embedding_, loader.LoadMatrix(embedding, shares_.vocab, h_.width));
    QUERN_ASSIGN(output_, loader.LoadHead("output.weight", shares_.vocab, h_.width));
  } else {
    QUERN_ASSIGN(embedding_, loader.LoadHead(embedding, shares_.vocab, h_.width));
  }
  QUERN_ASSIGN(output_norm_, loader.LoadVector("output_norm.weight", h_.width));
  QUERN_TRY(LoadLayers(loader));
  constexpr TensorKind kActivations = TensorKind::kActivations;
  x_ = backend_->NewTensor(TensorKind::kResidual, h_.width);
  normed_ = backend_->NewTensor(kActivations, h_.width);
  qkv_ = backend_->NewTensor(kActivations, query_width() + 2 * kv_width());
  attended_ = backend_->NewTensor(kActivations, query_width());
  if (h_.experts > 0) return {};
  gate_ = backend_->NewTensor(kActivations, ffn_part().size);
  up_ = backend_->NewTensor(kActivations, ffn_part().size);
  return {};
}

void Decoder::set_info(ModelInfo info, KvDtype dtype) {
  info_ = std::move(info);
  const auto kv_heads = static_cast<int>(shares_.kv_heads.size);
  kv_shape_ = {h_.layers, kv_heads, h_.head_dim, dtype, {}};
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
  first_layer_ = batch.first_layer;
  end_layer_ = batch.end_layer;
  QUERN_TRY(b.RunStep(batch, [&] {
    b.Embed(*embedding_, shares_.vocab.begin, embedding_scale(), x_);
    b.AllReduce(x_);
    RunLayers(b);
  }));
  // Also in release builds: rows that are not there would be another step's, of other requests.
  const bool holds = batch.end_layer < h_.layers;
  const auto rows = std::ssize(batch.tokens) - (holds ? batch.sequences.back().num_rows : 0);
  if (x_->rows != rows) std::abort();
  return MakeLogits(batch.logit_rows, batch.logit_ranks, logits);
}

Status Decoder::LoadAttention(WeightLoader& loader, const std::string& prefix, bool head_norms,
                              AttentionWeights* weights) const {
  QUERN_ASSIGN(weights->q, loader.LoadMatrix(prefix + "attn_q.weight", query_part(), h_.width));
  QUERN_ASSIGN(weights->k, loader.LoadMatrix(prefix + "attn_k.weight", kv_part(), h_.width));
  QUERN_ASSIGN(weights->v, loader.LoadMatrix(prefix + "attn_v.weight", kv_part(), h_.width));
  if (head_norms) {
    QUERN_ASSIGN(weights->q_norm, loader.LoadVector(prefix + "attn_q_norm.weight", h_.head_dim));
    QUERN_ASSIGN(weights->k_norm, loader.LoadVector(prefix + "attn_k_norm.weight", h_.head_dim));
  }
  QUERN_ASSIGN(weights->out,
               loader.LoadMatrix(prefix + "attn_output.weight", h_.width, query_part()));
  return {};
}

Status Decoder::LoadFeedForward(WeightLoader& loader, const std::string& prefix,
                                FeedForwardWeights* weights) const {
  QUERN_ASSIGN(weights->gate, loader.LoadMatrix(prefix + "ffn_gate.weight", ffn_part(), h_.width));
  QUERN_ASSIGN(weights->up, loader.LoadMatrix(prefix + "ffn_up.weight", ffn_part(), h_.width));
  QUERN_ASSIGN(weights->down, loader.LoadMatrix(prefix + "ffn_down.weight", h_.width, ffn_part()));
  return {};
}

void Decoder::Attend(const AttentionWeights& weights, AttentionSpec spec) {
  Backend& b = *backend_;
  spec.q_norm = weights.q_norm.get();
  spec.k_norm = weights.k_norm.get();
  b.MatMul(*normed_, {{weights.q.get(), qkv_},
                      {weights.k.get(), qkv_, query_width()},
                      {weights.v.get(), qkv_, query_width() + kv_width()}});
  b.Attention(spec, qkv_, attended_);
  b.MatMul(*attended_, {{weights.out.get(), normed_}});
  b.AllReduce(normed_);
}

void Decoder::FeedForward(const FeedForwardWeights& weights, kernels::Gate kind) {
  Backend& b = *backend_;
  b.MatMul(*normed_, {{weights.gate.get(), gate_}, {weights.up.get(), up_}});
  b.GatedActivation(kind, *up_, gate_);
  b.MatMul(*gate_, {{weights.down.get(), normed_}});
  b.AllReduce(normed_);
}

void Decoder::EnterLayer(int layer, const Vector* after, const Vector& before) {
  const Tensor* given = layer > 0 ? normed_ : nullptr;
  const bool resumes = layer > 0 && layer == first_layer_;
  const bool holds = layer > 0 && layer == end_layer_;
  if (resumes || holds) {
    backend_->AddRmsNorm(given, after, nullptr, h_.epsilon, x_, nullptr);
    given = nullptr;
    if (resumes) backend_->ResumeLast(x_);
    if (holds) backend_->HoldLast(x_);
  }
  backend_->AddRmsNorm(given, after, &before, h_.epsilon, x_, normed_);
}

void Decoder::LeaveLayers(const Vector* after) {
  backend_->AddRmsNorm(normed_, after, nullptr, h_.epsilon, x_, nullptr);
}

Status Decoder::ReserveSteps(int32_t tokens, int32_t sequences, int32_t context_tokens) {
  return backend_->ReserveSteps({.tokens = tokens,
                                 .sequences = sequences,
                                 .context_tokens = context_tokens,
                                 .heads = heads(),
                                 .kv_heads = static_cast<int>(shares_.kv_heads.size),
                                 .head_dim = h_.head_dim,
                                 .vocabulary = (output_ ? *output_ : *embedding_).rows()});
}

Status Decoder::ReadLogits(std::span<const int32_t> rows, std::span<float> logits) {
  return MakeLogits(rows, {}, logits);
}

Status Decoder::MakeLogits(std::span<const int32_t> rows, std::span<const int32_t> ranks,
                           std::span<float> logits) {
  if (rows.empty()) return {};
  backend_->RmsNormRows(*x_, rows, *output_norm_, h_.epsilon, normed_);
  const Matrix& head = output_ ? *output_ : *embedding_;
  if (group_ == nullptr) return backend_->Logits(*normed_, head, h_.logit_softcap, ranks, logits);
  part_logits_.resize(rows.size() * static_cast<size_t>(head.rows()));
  QUERN_TRY(backend_->Logits(*normed_, head, h_.logit_softcap, {}, part_logits_));
  return GatherLogits(std::ssize(rows), logits);
}

Status Decoder::GatherLogits(int64_t rows, std::span<float> logits) {
  // Parts of the same length, as they are gathered: rows of the longest one.
  const int size = group_->size();
  const int64_t longest = (h_.vocab_size + size - 1) / size;
  const auto own = std::ssize(part_logits_) / rows;
  if (own < longest) {
    part_logits_.resize(static_cast<size_t>(rows * longest));
    for (int64_t row = rows - 1; row > 0; --row) {
      const auto begin = part_logits_.begin() + row * own;
      std::copy_backward(begin, begin + own, part_logits_.begin() + row * longest + own);
    }
  }
  const bool root = group_->rank() == 0;
  if (root) all_logits_.resize(part_logits_.size() * static_cast<size_t>(size));
  QUERN_TRY(group_->Gather(part_logits_, all_logits_, 0));
  for (int rank = 0; root && rank < size; ++rank) {
    const Part part = SplitEvenly(h_.vocab_size, 1, rank, size);
    for (int64_t row = 0; row < rows; ++row) {
      const auto from = all_logits_.begin() + (rank * rows + row) * longest;
      std::copy(from, from + part.size, logits.begin() + row * h_.vocab_size + part.begin);
    }
  }
  return {};
}

Status Decoder::Draw(std::span<const int32_t> rows, std::span<const TokenDraw> draws,
                     std::span<int32_t> tokens) {
  backend_->RmsNormRows(*x_, rows, *output_norm_, h_.epsilon, normed_);
  return backend_->Draw(*normed_, output_ ? *output_ : *embedding_, h_.logit_softcap, draws,
                        tokens);
}

Status Decoder::ReadHidden(std::span<const int32_t> rows, std::span<float> hidden) {
  backend_->RmsNormRows(*x_, rows, *output_norm_, h_.epsilon, normed_);
  return backend_->Read(*normed_, hidden);
}

}  // namespace quern
