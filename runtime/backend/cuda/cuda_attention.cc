#include <cassert>
#include <cstdlib>

#include "quern/kernels/append_kv.h"
#include "quern/kernels/device_attention.h"
#include "quern/kernels/rotate_heads.h"
#include "runtime/backend/cuda/cuda_backend.h"
#include "runtime/backend/cuda/cuda_status.h"

namespace quern {

Status CudaBackend::AllocateKv(const KvShape& shape, const KvLayout& layout) {
  QUERN_TRY(Status(status_));
  QUERN_TRY(CudaKv::Check(shape, layout));  // the heads' size is what ropes are measured by
  for (const Rope& rope : ropes_) {
    const int dims = 2 * static_cast<int>(rope.spec.frequencies.size());
    if (dims % (shape.head_dim / 16) == 0 && dims <= shape.head_dim) continue;
    return MakeError(ErrorCode::kUnsupported,
                     "rotary embedding of {} of a head's {} elements: on a GPU it takes a multiple "
                     "of a sixteenth of them (--device cpu takes any)",
                     dims, shape.head_dim);
  }
  QUERN_TRY(UseDevice());
  graphs_.Clear();
  return kv_.Allocate(shape, layout, options_.activations, stream_.get());
}

void CudaBackend::Append(const AttentionSpec& spec, const CudaKv::Layer& layer, const Tensor& qkv) {
  const Rope& rope = ropes_[static_cast<size_t>(spec.rope)];
  kernels::AppendKvArgs args{};
  args.type = options_.activations;
  args.qkv = qkv.data;
  args.q = qkv.data;
  args.qkv_stride = args.q_stride = qkv.width;
  args.tokens = qkv.rows;
  args.q_heads = spec.heads;
  args.q_norm = OnDevice(spec.q_norm);
  args.k_norm = OnDevice(spec.k_norm);
  args.epsilon = spec.epsilon;
  args.pairs = rope.spec.pairs;
  args.rope_dims = 2 * static_cast<int>(rope.spec.frequencies.size());
  args.frequencies = rope.frequencies.as<double>();
  args.positions = Input<int32_t>(layout_->positions);
  args.rotate = layer.rotated();
  args.places = Input<int64_t>(layout_->places[layer.group]);
  args.kv = layer.kv;
  Run(kernels::AppendKv(args, stream_.get()));
}

void CudaBackend::Attend(const AttentionSpec& spec, const CudaKv::Layer& layer,
                         const AttentionRun& run, const Tensor& qkv, const Tensor& out) {
  kernels::DeviceAttentionArgs args{};
  args.type = options_.activations;
  args.q = qkv.data;
  args.q_stride = qkv.width;
  args.out = out.data;
  args.out_stride = out.width;
  args.q_heads = spec.heads;
  args.kv = layer.kv;
  args.query_begins = Input<int32_t>(layout_->query_begins) + run.first;
  args.contexts = Input<int32_t>(layout_->contexts) + run.first;
  args.table_stride = layout_->table_stride;
  args.tables =
      Input<int32_t>(layout_->tables[layer.group]) + int64_t{run.first} * args.table_stride;
  args.sequences = run.count;
  args.max_queries = run.most_queries;
  args.max_context = run.longest_context;
  args.scale = spec.scale;
  args.softcap = spec.softcap;
  args.window = spec.window;
  if (!run.decode) {
    Run(kernels::PrefillAttention(args, stream_.get()));
    return;
  }
  const size_t needed = kernels::DecodeAttentionWorkspaceBytes(args);
  Note(GrowRecorded(attention_workspace_, needed, "attention's parts of long contexts"));
  if (!status_.ok()) return;
  args.workspace = attention_workspace_.as<void>();
  args.workspace_size = attention_workspace_.size();
  Run(kernels::DecodeAttention(args, stream_.get()));
}

void CudaBackend::RotateBack(const AttentionSpec& spec, const CudaKv::Layer& layer,
                             const Tensor& out) {
  Run(kernels::RotateHeads({options_.activations, out.rows, spec.heads, layer.kv.head_dim, out.data,
                            out.width, out.data, out.width},
                           stream_.get()));
}

void CudaBackend::Attention(const AttentionSpec& spec, Tensor* qkv, Tensor* out) {
  assert(spec.layer < kv_.layers());
  const CudaKv::Layer& layer = kv_.layer(spec.layer);
  const int64_t head_dim = layer.kv.head_dim;
  const bool fits = out->width == spec.heads * head_dim &&
                    qkv->width == out->width + 2 * layer.kv.kv_heads * head_dim;
  const bool sees = layer.group == 0 || (spec.window > 0 && spec.window <= layer.window);
  // A fault of the model's code, which would read or write out of bounds.
  if (!fits || !sees) std::abort();
  out->rows = qkv->rows;
  if (!status_.ok() || qkv->rows == 0) return;
  Append(spec, layer, *qkv);
  for (const AttentionRun& run : runs_) {
    if (status_.ok()) Attend(spec, layer, run, *qkv, *out);
  }
  if (layer.rotated() && status_.ok()) RotateBack(spec, layer, *out);
}

}  // namespace quern
