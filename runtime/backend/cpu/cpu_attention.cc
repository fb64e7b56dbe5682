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

void CpuBackend::RunAttentionTask(const AttentionSpec& spec, const AttentionTask& task,
                                  const Tensor& q, float* scratch, Tensor* out) {
  const ForwardBatch::Sequence& sequence =
      batch_.sequences[static_cast<size_t>(task.queries.sequence)];
  const int head_dim = kv_shape_.head_dim;
  kernels::AttentionQuery queries[kernels::kAttentionMaxQueries];
  int count = 0;
  for (int32_t i = task.queries.row_begin; i < task.queries.row_end; ++i) {
    const int64_t row = sequence.first_row + i;
    const int32_t position = sequence.context_tokens - sequence.num_rows + i;
    for (int32_t head = task.queries.head_begin; head < task.queries.head_end; ++head) {
      queries[count++] = {q.row(row) + head * head_dim, out->row(row) + head * head_dim, position};
    }
  }
  const kernels::AttentionArgs args{LayerKv(spec.layer),  BlocksOf(sequence, spec.layer).data(),
                                    task.queries.kv_head, spec.scale,
                                    spec.softcap,         spec.window};
  if (task.whole()) {
    kernels_.attention(args, queries, count, scratch);
    return;
  }
  float* parts = attention_parts_.data() + task.part;
  for (int32_t segment = task.segment_begin; segment < task.segment_end; ++segment) {
    kernels_.attention_segment(args, queries, count, segment, parts, scratch);
    parts += count * kernels::AttentionPartFloats(head_dim);
  }
}

void CpuBackend::CombineAttention(const AttentionSplit& split, Tensor* out) const {
  const ForwardBatch::Sequence& sequence =
      batch_.sequences[static_cast<size_t>(split.queries.sequence)];
  const int head_dim = kv_shape_.head_dim;
  const int64_t part_floats = kernels::AttentionPartFloats(head_dim);
  const int64_t stride = split.queries.count() * part_floats;
  const float* parts = attention_parts_.data() + split.part;
  for (int32_t i = split.queries.row_begin; i < split.queries.row_end; ++i) {
    float* row = out->row(sequence.first_row + i);
    for (int32_t head = split.queries.head_begin; head < split.queries.head_end; ++head) {
      kernels_.combine_attention(parts, stride, split.segments, head_dim, row + head * head_dim);
      parts += part_floats;
    }
  }
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
  out->rows = q->rows;
  if (batch_.sequences.empty()) return;
  CheckBlocks(spec);
  const bool rotated = kernels::IsQuantized(kv_shape_.dtype);
  if (rotated) {
    for (Tensor* heads : {q, k, v}) RotateHeads(heads);
  }
  AppendKv(spec.layer, *k, *v);
  PlanAttention({spec.heads, kv_shape_.kv_heads, kv_shape_.head_dim}, spec.window, batch_.sequences,
                pool_.threads(), static_cast<int64_t>(attention_parts_.size()), &attention_plan_);
  const auto& [tasks, splits] = attention_plan_;
  const auto scratch_floats =
      static_cast<size_t>(kernels::AttentionScratchFloats(kv_shape_.head_dim));
  pool_.ParallelFor(
      static_cast<int64_t>(tasks.size()), 1, [&](int64_t begin, int64_t end, int thread) {
        float* scratch = attention_scratch_.data() + static_cast<size_t>(thread) * scratch_floats;
        for (int64_t i = begin; i < end; ++i) {
          RunAttentionTask(spec, tasks[static_cast<size_t>(i)], *q, scratch, out);
        }
      });
  pool_.ParallelFor(static_cast<int64_t>(splits.size()), 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) CombineAttention(splits[static_cast<size_t>(i)], out);
  });
  if (rotated) RotateHeads(out);
}

}  // namespace quern
