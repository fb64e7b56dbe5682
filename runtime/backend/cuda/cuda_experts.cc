#include "runtime/backend/cuda/cuda_experts.h"

#include <algorithm>
#include <cassert>
#include <cstdlib>

#include "quern/kernels/gated_product.h"
#include "quern/kernels/gemm.h"
#include "quern/kernels/grouped_matmul.h"
#include "quern/kernels/moe_combine.h"
#include "quern/kernels/moe_permute.h"
#include "quern/kernels/moe_route.h"
#include "runtime/backend/cuda/cuda_limits.h"
#include "runtime/backend/cuda/cuda_status.h"
#include "runtime/backend/cuda/cuda_weights.h"

namespace quern {
namespace {

// Where a mixture's arrays are in the workspace, in bytes, for so many rows of x. No size falls
// when rows rise: room for many is room for few. `sorted` rows are those of MoePermute; what lies
// in one that no pair has is never used.
struct ExpertsLayout {
  ExpertsLayout(const ExpertsSpec& spec, int64_t rows)
      : experts(spec.gate->experts()),
        pairs(rows * spec.top_k),
        tile(kernels::GroupedMatMulTile(pairs, experts)),
        sorted(kernels::MoePermuteRows(pairs, experts, tile)),
        logits(Place(rows * 2 * experts * 4)),
        expert_ids(Place(pairs * 4)),
        weights(Place(pairs * 4)),
        row_pairs(Place(sorted * 4)),
        pair_rows(Place(pairs * 4)),
        offsets(Place((experts + 1) * 4)),
        permute_bytes(kernels::MoePermuteWorkspaceBytes(pairs, experts)),
        permute(Place(static_cast<int64_t>(permute_bytes))),
        gate(Place(sorted * spec.gate->rows() * 2)),
        up(Place(sorted * spec.gate->rows() * 2)),
        down(Place(sorted * spec.gate->cols() * 2)) {}

  int64_t Place(int64_t size) {
    const int64_t at = bytes;
    bytes += (size + 127) / 128 * 128;
    return at;
  }

  int64_t bytes = 0;
  int64_t experts;
  int64_t pairs;
  int64_t tile;
  int64_t sorted;
  int64_t logits;      // float32 [rows, 2 experts]: the router's two parts
  int64_t expert_ids;  // int32 [pairs]
  int64_t weights;     // float32 [pairs]
  int64_t row_pairs;   // int32 [sorted]
  int64_t pair_rows;   // int32 [pairs]
  int64_t offsets;     // int32 [experts + 1]
  size_t permute_bytes;
  int64_t permute;  // MoePermute's workspace
  int64_t gate;     // activations [sorted, ffn_width], as is up
  int64_t up;
  int64_t down;  // activations [sorted, width]
};

// One mixture's kernels on their stream.
class ExpertsRun {
 public:
  ExpertsRun(const ExpertsSpec& spec, kernels::ActivationType type, int64_t rows,
             const DeviceBuffer& workspace, cudaStream_t stream)
      : spec_(spec),
        type_(type),
        layout_(spec, rows),
        workspace_(workspace.as<std::byte>()),
        stream_(stream) {
    // Also in release builds: the kernels would write out of bounds.
    if (static_cast<size_t>(layout_.bytes) > workspace.size()) std::abort();
  }

  std::string Route(const Tensor& x, const int32_t* used_rows) const {
    const int64_t experts = layout_.experts;
    kernels::GemmArgs gemm{};
    gemm.type = type_;
    gemm.w = static_cast<const CudaRouter&>(*spec_.router).data();
    gemm.rows = gemm.y_stride = 2 * experts;
    gemm.cols = gemm.w_stride = gemm.x_stride = x.width;
    gemm.x = x.data;
    gemm.y = At<float>(layout_.logits);
    gemm.batch = x.rows;
    gemm.float32_y = true;
    if (std::string wrong = kernels::Gemm(gemm, stream_); !wrong.empty()) return wrong;
    kernels::MoeRouteArgs route{};
    route.logits = At<float>(layout_.logits);
    route.low_logits = route.logits + experts;
    route.logits_stride = 2 * experts;
    route.tokens = x.rows;
    route.experts = experts;
    route.top_k = spec_.top_k;
    route.norm = spec_.norm;
    route.scale = spec_.scale;
    route.expert_ids = At<int32_t>(layout_.expert_ids);
    route.weights = At<float>(layout_.weights);
    route.used_tokens = used_rows;
    return kernels::MoeRoute(route, stream_);
  }

  std::string Sort() const {
    return kernels::MoePermute(
        {At<int32_t>(layout_.expert_ids), layout_.pairs, layout_.experts, layout_.tile,
         At<int32_t>(layout_.row_pairs), At<int32_t>(layout_.pair_rows),
         At<int32_t>(layout_.offsets), At<void>(layout_.permute), layout_.permute_bytes},
        stream_);
  }

  // The sorted rows' products with `weights`, to `y` in the workspace. `top_k`, as of
  // GroupedMatMulArgs: whether x has rows of tokens.
  std::string Multiply(const ExpertMatrices& weights, const void* x, int64_t top_k,
                       int64_t y) const {
    const CudaExpertMatrices& matrices = OnDevice(weights);
    kernels::GroupedMatMulArgs args{};
    args.offsets = At<int32_t>(layout_.offsets);
    args.row_pairs = At<int32_t>(layout_.row_pairs);
    args.pairs = layout_.pairs;
    args.experts = layout_.experts;
    args.tile = layout_.tile;
    args.type = type_;
    args.x = x;
    args.x_stride = matrices.cols();
    args.top_k = top_k;
    args.y = At<void>(y);
    args.y_stride = matrices.rows();
    if (!matrices.dense()) return kernels::GroupedGgufMatMul(args, matrices.one(), stream_);
    return kernels::GroupedGemm(
        args, {matrices.one().data, matrices.cols(), matrices.rows(), matrices.cols()}, stream_);
  }

  std::string Gate() const {
    kernels::GatedProductArgs args{};
    args.gate_kind = spec_.kind;
    args.type = type_;
    args.tokens = layout_.sorted;
    args.inner = args.gate_stride = args.up_stride = args.y_stride = spec_.gate->rows();
    args.gate = args.y = At<void>(layout_.gate);
    args.up = At<void>(layout_.up);
    return kernels::GatedProduct(args, stream_);
  }

  std::string Combine(const Tensor& out) const {
    kernels::MoeCombineArgs args{};
    args.type = type_;
    args.tokens = out.rows;
    args.top_k = spec_.top_k;
    args.hidden = args.y_stride = args.out_stride = out.width;
    args.y = At<void>(layout_.down);
    args.pair_rows = At<int32_t>(layout_.pair_rows);
    args.weights = At<float>(layout_.weights);
    args.out = out.data;
    return kernels::MoeCombine(args, stream_);
  }

  const ExpertsLayout& layout() const { return layout_; }
  template <typename T>
  T* At(int64_t offset) const {
    return reinterpret_cast<T*>(workspace_ + offset);
  }

 private:
  const ExpertsSpec& spec_;
  kernels::ActivationType type_;
  ExpertsLayout layout_;
  std::byte* workspace_;
  cudaStream_t stream_;
};

}  // namespace

int CudaExperts::Add(const ExpertsSpec& spec) {
  assert(spec.router->rows() == spec.gate->experts() && spec.router->cols() == spec.gate->cols());
  assert(spec.up->experts() == spec.gate->experts() && spec.up->rows() == spec.gate->rows() &&
         spec.up->cols() == spec.gate->cols());
  assert(spec.down->experts() == spec.gate->experts() && spec.down->rows() == spec.gate->cols() &&
         spec.down->cols() == spec.gate->rows());
  specs_.push_back(spec);
  return static_cast<int>(specs_.size()) - 1;
}

Status CudaExperts::Reserve(int64_t rows, cudaStream_t stream) {
  int64_t bytes = 0;
  for (const ExpertsSpec& spec : specs_) {
    const ExpertsLayout layout(spec, rows);
    // A token's rows of all its experts, and what fills tiles up.
    QUERN_TRY(CheckStepForCuda(rows, (layout.sorted * spec.gate->rows() + rows - 1) / rows));
    bytes = std::max(bytes, layout.bytes);
  }
  return workspace_.Allocate(static_cast<size_t>(bytes), stream,
                             "the experts' activations of a step");
}

Status CudaExperts::Run(int number, const Tensor& x, const int32_t* used_rows, const Tensor& out,
                        cudaStream_t stream) const {
  const ExpertsSpec& spec = specs_[static_cast<size_t>(number)];
  assert(x.width == spec.gate->cols() && out.width == x.width && out.rows == x.rows);
  const ExpertsRun run(spec, activations_, x.rows, workspace_, stream);
  const ExpertsLayout& layout = run.layout();
  QUERN_TRY(KernelStatus(run.Route(x, used_rows)));
  QUERN_TRY(KernelStatus(run.Sort()));
  QUERN_TRY(KernelStatus(run.Multiply(*spec.gate, x.data, spec.top_k, layout.gate)));
  QUERN_TRY(KernelStatus(run.Multiply(*spec.up, x.data, spec.top_k, layout.up)));
  QUERN_TRY(KernelStatus(run.Gate()));
  QUERN_TRY(KernelStatus(run.Multiply(*spec.down, run.At<void>(layout.gate), 0, layout.down)));
  return KernelStatus(run.Combine(out));
}

}  // namespace quern
