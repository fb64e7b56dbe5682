#include <algorithm>
#include <cassert>
#include <cstdlib>

#include "runtime/backend/cpu/cpu_backend.h"
#include "runtime/backend/cpu/cpu_matrix.h"

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

// A quantised cache holds rotated heads: no element is much larger than the others of its group, so
// that steps are finer (QuaRot, Ashkboos et al. 2024). Scores are those of rotated queries; what
// comes out is rotated back.
void CpuBackend::PrepareRow(const AttentionSpec& spec, const kernels::PagedKv& kv, int64_t row,
                            const Tensor& qkv) {
  const int dim = kv.head_dim;
  float* q = Row(qkv, row);
  float* k = q + spec.heads * dim;
  float* v = k + kv.kv_heads * dim;
  if (spec.q_norm != nullptr) {
    const auto norm = [&](const Vector& weight, float* begin, const float* end) {
      for (float* head = begin; head < end; head += dim) {
        kernels_.rms_norm(head, Values(weight), spec.epsilon, dim, head);
      }
    };
    norm(*spec.q_norm, q, k);
    norm(*spec.k_norm, k, v);
  }
  const RopeTable& table = ropes_[static_cast<size_t>(spec.rope)];
  const int pairs = static_cast<int>(table.spec.frequencies.size());
  kernels_.rope(table.spec.pairs, table.cosines.data() + row * pairs,
                table.sines.data() + row * pairs, 2 * pairs, spec.heads + kv.kv_heads, dim, q);
  if (kernels::IsQuantized(kv.dtype)) {
    for (float* head = q; head < v + kv.kv_heads * dim; head += dim) kernels_.hadamard(dim, head);
  }
  const ForwardBatch::Sequence& sequence =
      batch_.sequences[static_cast<size_t>(row_sequences_[static_cast<size_t>(row)])];
  const int32_t token =
      sequence.context_tokens - sequence.num_rows + static_cast<int32_t>(row - sequence.first_row);
  const int32_t block =
      BlocksOf(sequence, spec.layer)[static_cast<size_t>(token / kv.block_tokens)];
  for (int head = 0; head < kv.kv_heads; ++head) {
    kernels_.append_kv(kv, block, head, token % kv.block_tokens, k + head * dim, v + head * dim);
  }
}

void CpuBackend::RunAttentionTask(const AttentionSpec& spec, const AttentionTask& task,
                                  const Tensor& qkv, float* scratch, Tensor* out) {
  const ForwardBatch::Sequence& sequence =
      batch_.sequences[static_cast<size_t>(task.queries.sequence)];
  const int head_dim = kv_shape_.head_dim;
  kernels::AttentionQuery queries[kernels::kAttentionMaxQueries];
  int count = 0;
  for (int32_t i = task.queries.row_begin; i < task.queries.row_end; ++i) {
    const int64_t row = sequence.first_row + i;
    const int32_t position = sequence.context_tokens - sequence.num_rows + i;
    for (int32_t head = task.queries.head_begin; head < task.queries.head_end; ++head) {
      queries[count++] = {Row(qkv, row) + head * head_dim, Row(*out, row) + head * head_dim,
                          position};
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
    float* row = Row(*out, sequence.first_row + i);
    for (int32_t head = split.queries.head_begin; head < split.queries.head_end; ++head) {
      kernels_.combine_attention(parts, stride, split.segments, head_dim, row + head * head_dim);
      parts += part_floats;
    }
  }
}

void CpuBackend::Attention(const AttentionSpec& spec, Tensor* qkv, Tensor* out) {
  assert(spec.layer < static_cast<int>(kv_layers_.size()));
  const int head_dim = kv_shape_.head_dim;
  // Also in release builds: sizes come from a file, and what follows writes by them.
  const bool fits = out->width == int64_t{spec.heads} * head_dim &&
                    qkv->width == out->width + int64_t{2} * kv_shape_.kv_heads * head_dim;
  // It reads no more than what is kept for it.
  const bool sees =
      !Windowed(spec.layer) ||
      (spec.window > 0 && spec.window <= kv_shape_.windows[static_cast<size_t>(spec.layer)]);
  // A fault of the model's code, which would read or write out of bounds.
  if (!fits || !sees) std::abort();
  out->rows = qkv->rows;
  if (batch_.sequences.empty()) return;
  CheckBlocks(spec);
  const kernels::PagedKv kv = LayerKv(spec.layer);
  ForRows(qkv->rows, [&](int64_t row) { PrepareRow(spec, kv, row, *qkv); });
  PlanAttention({spec.heads, kv_shape_.kv_heads, head_dim}, spec.window, batch_.sequences,
                pool_.threads(), static_cast<int64_t>(attention_parts_.size()), &attention_plan_);
  const auto& [tasks, splits] = attention_plan_;
  const auto scratch_floats = static_cast<size_t>(kernels::AttentionScratchFloats(head_dim));
  pool_.ParallelFor(
      static_cast<int64_t>(tasks.size()), 1, [&](int64_t begin, int64_t end, int thread) {
        float* scratch = attention_scratch_.data() + static_cast<size_t>(thread) * scratch_floats;
        for (int64_t i = begin; i < end; ++i) {
          RunAttentionTask(spec, tasks[static_cast<size_t>(i)], *qkv, scratch, out);
        }
      });
  pool_.ParallelFor(static_cast<int64_t>(splits.size()), 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) CombineAttention(splits[static_cast<size_t>(i)], out);
  });
  if (!kernels::IsQuantized(kv.dtype)) return;
  ForRows(out->rows, [&](int64_t row) {
    for (int head = 0; head < spec.heads; ++head) {
      kernels_.hadamard(head_dim, Row(*out, row) + head * head_dim);
    }
  });
}

}  // namespace quern
