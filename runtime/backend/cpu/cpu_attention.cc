#include <algorithm>
#include <cassert>
#include <cstdlib>

#include "runtime/backend/cpu/cpu_backend.h"

namespace quern {

kernels::PagedKv CpuBackend::LayerKv(int layer) const {
  const KvDtype dtype = kv_shape_.dtype;
  const int dim = kv_shape_.head_dim;
  const KvGroup& group = GroupOf(layer);
  const int64_t heads = int64_t{group.num_blocks} * kv_layout_.block_tokens * kv_shape_.kv_heads;
  uint8_t* k = group.memory.as<uint8_t>() + kv_layers_[static_cast<size_t>(layer)].rank * heads *
                                                kernels::KvTokenBytes(dtype, dim);
  uint8_t* v = k + heads * kernels::KvHeadBytes(kernels::KeyDtype(dtype), dim);
  return {dtype, k, v, kv_layout_.block_tokens, kv_shape_.kv_heads, dim};
}

// Also in release builds: one that is missing would have another sequence's K and V, or foreign
// memory, read and written.
void CpuBackend::CheckBlocks(const AttentionSpec& spec) const {
  const int32_t num_blocks = GroupOf(spec.layer).num_blocks;
  for (const ForwardBatch::Sequence& sequence : batch_.sequences) {
    const std::span<const int32_t> blocks = BlocksOf(sequence, spec.layer);
    const int32_t first_row = sequence.context_tokens - sequence.num_rows;
    const int32_t first = spec.window > 0 ? std::max(0, first_row - spec.window + 1) : 0;
    const auto begin = static_cast<size_t>(first / kv_layout_.block_tokens);
    const auto end = static_cast<size_t>((sequence.context_tokens - 1) / kv_layout_.block_tokens);
    if (end >= blocks.size()) std::abort();
    for (size_t i = begin; i <= end; ++i) {
      if (blocks[i] < 0 || blocks[i] >= num_blocks) std::abort();
    }
  }
}

void CpuBackend::AppendKv(int layer, const Tensor& k, const Tensor& v) {
  const kernels::PagedKv kv = LayerKv(layer);
  for (const ForwardBatch::Sequence& sequence : batch_.sequences) {
    ForRows(sequence.num_rows, [&](int64_t i) {
      const int64_t row = sequence.first_row + i;
      const int32_t token = sequence.context_tokens - sequence.num_rows + static_cast<int32_t>(i);
      const int32_t block = BlocksOf(sequence, layer)[static_cast<size_t>(token / kv.block_tokens)];
      for (int head = 0; head < kv.kv_heads; ++head) {
        kernels_.append_kv(kv, block, head, token % kv.block_tokens,
                           k.row(row) + head * kv.head_dim, v.row(row) + head * kv.head_dim);
      }
    });
  }
}

void CpuBackend::RotateHeads(Tensor* x) {
  const int head_dim = kv_shape_.head_dim;
  ForRows(x->rows, [&](int64_t row) {
    for (int64_t i = 0; i < x->width; i += head_dim) kernels_.hadamard(head_dim, x->row(row) + i);
  });
}

// What a task takes, as far as the order of tasks needs it: its queries times the tokens they look
// back at, and what it costs to load these.
int64_t CpuBackend::CostOf(const AttentionSpec& spec, const AttentionTask& task) const {
  constexpr int64_t kLoad = 16;  // queries that cost as much (AVX2, heads of 64 halves)
  const ForwardBatch::Sequence& sequence = batch_.sequences[static_cast<size_t>(task.sequence)];
  const int64_t rows = task.row_end - task.row_begin;
  int64_t tokens = sequence.context_tokens - sequence.num_rows + task.row_end;
  if (spec.window > 0) tokens = std::min(tokens, spec.window + rows);
  return tokens * (kLoad + rows * (task.head_end - task.head_begin));
}

void CpuBackend::PlanAttention(const AttentionSpec& spec) {
  attention_tasks_.clear();
  const int group = spec.heads / kv_shape_.kv_heads;
  // As many rows to a task as share what is read, but enough tasks for all threads.
  const int64_t fair = static_cast<int64_t>(batch_.tokens.size()) * kv_shape_.kv_heads /
                       (int64_t{2} * pool_.threads());
  const int row_step = static_cast<int>(
      std::clamp<int64_t>(fair, 1, std::max(1, kernels::kAttentionMaxQueries / group)));
  // With fewer rows times KV heads than threads, the query heads of a group are shared out too.
  const int64_t tasks = static_cast<int64_t>(batch_.tokens.size()) * kv_shape_.kv_heads;
  const int parts = tasks < pool_.threads()
                        ? std::min<int>(group, (pool_.threads() + static_cast<int>(tasks) - 1) /
                                                   static_cast<int>(tasks))
                        : 1;
  const int head_step = std::min((group + parts - 1) / parts, kernels::kAttentionMaxQueries);
  for (size_t s = 0; s < batch_.sequences.size(); ++s) {
    const int32_t rows = batch_.sequences[s].num_rows;
    for (int32_t row = 0; row < rows; row += row_step) {
      for (int kv_head = 0; kv_head < kv_shape_.kv_heads; ++kv_head) {
        for (int head = 0; head < group; head += head_step) {
          attention_tasks_.push_back({static_cast<int32_t>(s), kv_head, row,
                                      std::min(rows, row + row_step), kv_head * group + head,
                                      kv_head * group + std::min(group, head + head_step), 0});
          attention_tasks_.back().cost = CostOf(spec, attention_tasks_.back());
        }
      }
    }
  }
  // The longest first: chunks of prompts come last in a batch, and the last of their tasks would
  // keep one thread busy while the others wait.
  std::sort(attention_tasks_.begin(), attention_tasks_.end(),
            [](const AttentionTask& a, const AttentionTask& b) { return a.cost > b.cost; });
}

void CpuBackend::RunAttentionTask(const AttentionSpec& spec, const AttentionTask& task,
                                  const Tensor& q, float* scratch, Tensor* out) const {
  const ForwardBatch::Sequence& sequence = batch_.sequences[static_cast<size_t>(task.sequence)];
  const int head_dim = kv_shape_.head_dim;
  kernels::AttentionQuery queries[kernels::kAttentionMaxQueries];
  int count = 0;
  for (int32_t i = task.row_begin; i < task.row_end; ++i) {
    const int64_t row = sequence.first_row + i;
    const int32_t position = sequence.context_tokens - sequence.num_rows + i;
    for (int32_t head = task.head_begin; head < task.head_end; ++head) {
      queries[count++] = {q.row(row) + head * head_dim, out->row(row) + head * head_dim, position};
    }
  }
  const kernels::AttentionArgs args{LayerKv(spec.layer), BlocksOf(sequence, spec.layer).data(),
                                    task.kv_head,        spec.scale,
                                    spec.softcap,        spec.window};
  kernels_.attention(args, queries, count, scratch);
}

// A quantised cache holds rotated heads: no element is much larger than the others of its group, so
// that steps are finer (QuaRot, Ashkboos et al. 2024). Scores are those of rotated queries; what
// comes out is rotated back.
void CpuBackend::Attention(const AttentionSpec& spec, Tensor* q, Tensor* k, Tensor* v,
                           Tensor* out) {
  assert(spec.layer < static_cast<int>(kv_layers_.size()));
  // Also in release builds: sizes come from a file, and what follows writes by them.
  const int64_t kv_width = int64_t{kv_shape_.kv_heads} * kv_shape_.head_dim;
  const bool fits = q->width == int64_t{spec.heads} * kv_shape_.head_dim &&
                    out->width == q->width && k->width == kv_width && v->width == kv_width;
  // It reads no more than what is kept for it.
  const bool sees =
      !Windowed(spec.layer) ||
      (spec.window > 0 && spec.window <= kv_shape_.windows[static_cast<size_t>(spec.layer)]);
  // A fault of the model's code, which would read or write out of bounds.
  if (!fits || !sees) std::abort();
  CheckBlocks(spec);
  const bool rotated = kernels::IsQuantized(kv_shape_.dtype);
  if (rotated) {
    for (Tensor* heads : {q, k, v}) RotateHeads(heads);
  }
  AppendKv(spec.layer, *k, *v);
  PlanAttention(spec);
  out->rows = q->rows;
  const auto scratch_floats =
      static_cast<size_t>(kernels::AttentionScratchFloats(kv_shape_.head_dim));
  pool_.ParallelFor(
      static_cast<int64_t>(attention_tasks_.size()), 1,
      [&](int64_t begin, int64_t end, int thread) {
        float* scratch = attention_scratch_.data() + static_cast<size_t>(thread) * scratch_floats;
        for (int64_t i = begin; i < end; ++i) {
          RunAttentionTask(spec, attention_tasks_[static_cast<size_t>(i)], *q, scratch, out);
        }
      });
  if (rotated) RotateHeads(out);
}

}  // namespace quern
