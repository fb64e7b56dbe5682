#include <algorithm>
#include <cassert>

#include "runtime/backend/cpu/cpu_backend.h"
#include "runtime/backend/cpu/cpu_matrix.h"

// Mixtures of experts: rows sorted by expert, so that a weight is read once for all rows of its
// expert, and multiplied with the kernels of all other weights. Those give a row the same bits
// whatever rows are beside it, and each token's sum is taken in the order of its slots.
namespace quern {
namespace {

const CpuExperts& PackedExperts(const ExpertMatrices& matrices) {
  return static_cast<const CpuExperts&>(matrices);
}

bool IsQuantized(const ExpertMatrices& matrices) {
  return !kernels::IsFloatType(PackedExperts(matrices).packed(0).type);
}

// The rows of one expert.
kernels::QuantizedActivations RowsOf(const kernels::QuantizedActivations& all,
                                     const ExpertPlan::Rows& rows) {
  const int64_t groups = rows.begin * (all.cols / 32);
  return {rows.end - rows.begin, all.cols,         all.q + rows.begin * all.cols,
          all.scale + groups,    all.sum + groups, all.neg_sum + groups};
}

// y = sum over the slots of weights * rows.
void CombineExperts(const float* rows, const int32_t* pair_rows, const float* weights, int top_k,
                    int64_t width, float* y) {
  for (int slot = 0; slot < top_k; ++slot) {
    const float weight = weights[slot];
    const float* row = rows + pair_rows[slot] * width;
    if (slot == 0) {
      for (int64_t i = 0; i < width; ++i) y[i] = weight * row[i];
    } else {
      for (int64_t i = 0; i < width; ++i) y[i] += weight * row[i];
    }
  }
}

}  // namespace

int CpuBackend::AddExperts(const ExpertsSpec& spec) {
  assert(Packed(*spec.router).type == kernels::WeightType::kF32 &&
         spec.router->rows() == spec.gate->experts() && spec.router->cols() == spec.gate->cols());
  assert(spec.up->experts() == spec.gate->experts() && spec.up->rows() == spec.gate->rows() &&
         spec.up->cols() == spec.gate->cols());
  assert(spec.down->experts() == spec.gate->experts() && spec.down->rows() == spec.gate->cols() &&
         spec.down->cols() == spec.gate->rows());
  experts_.push_back(spec);
  expert_workspace_.Fit(spec);
  return static_cast<int>(experts_.size()) - 1;
}

template <typename Body>
void CpuBackend::PrepareExpertRows(const float* x, int64_t width, bool quantize, const Body& body) {
  const ExpertPlan& plan = expert_workspace_.plan();
  const auto bundles = std::ssize(plan.bundles);
  const kernels::QuantizedActivations all =
      expert_workspace_.quantized().View(plan.groups.back().end, width);
  const int64_t grain = plan.groups.back().end < kSerialRows ? bundles : 1;
  pool_.ParallelFor(bundles, grain, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      const ExpertPlan::Bundle& bundle = plan.bundles[static_cast<size_t>(i)];
      const ExpertPlan::Rows& group = plan.groups[static_cast<size_t>(bundle.group)];
      const int64_t first = group.begin + bundle.start;
      const int rows = kernels::BundleRows(bundle.start, group.end - group.begin);
      for (int64_t row = first; row < first + rows; ++row) body(row);
      if (!quantize) continue;
      kernels_.quantize_activations(x + group.begin * width, width, bundle.start, 0, width / 32,
                                    RowsOf(all, group));
    }
  });
}

void CpuBackend::MultiplyExperts(const float* x, int64_t width,
                                 std::span<const ExpertProduct> products) {
  const ExpertPlan& plan = expert_workspace_.plan();
  const kernels::QuantizedActivations all =
      expert_workspace_.quantized().View(plan.groups.back().end, width);
  int64_t tiles = 0;  // of one expert
  for (const ExpertProduct& product : products) tiles += product.weight->packed(0).tiles();
  const int64_t count = tiles * std::ssize(plan.groups);
  // More ranges a thread than Multiply's: experts have more and fewer rows.
  const int64_t grain = (count + 8 * pool_.threads() - 1) / (8 * pool_.threads());
  pool_.ParallelFor(count, grain, [&](int64_t begin, int64_t end, int) {
    while (begin < end) {
      const ExpertPlan::Rows& group = plan.groups[static_cast<size_t>(begin / tiles)];
      const kernels::QuantizedActivations view = RowsOf(all, group);
      const int64_t from = begin % tiles;
      const int64_t to = std::min(tiles, from + end - begin);
      begin += to - from;
      int64_t first = 0;  // of this product's tiles
      for (const ExpertProduct& product : products) {
        const kernels::PackedMatrix& weight = product.weight->packed(group.expert);
        const int64_t last = first + weight.tiles();
        if (from < last && to > first) {
          const kernels::MatMulArgs args{
              &weight,    &view,     x + group.begin * width,
              width,      view.rows, product.y + group.begin * weight.rows,
              weight.rows};
          kernels_.matmul(args, std::max(from, first) - first, std::min(to, last) - first);
        }
        first = last;
      }
    }
  });
}

void CpuBackend::Experts(int number, const Tensor& x, Tensor* out) {
  const ExpertsSpec& spec = experts_[static_cast<size_t>(number)];
  const CpuExperts& gate = PackedExperts(*spec.gate);
  const CpuExperts& up = PackedExperts(*spec.up);
  const CpuExperts& down = PackedExperts(*spec.down);
  const int64_t width = gate.cols();
  const int64_t ffn_width = gate.rows();
  const int experts = gate.experts();
  const int top_k = spec.top_k;
  ExpertWorkspace& work = expert_workspace_;
  ExpertPlan& plan = work.plan();
  assert(x.width == width && out->width == width);
  out->rows = x.rows;
  if (x.rows == 0) return;

  const Product router{&Packed(*spec.router), work.logits(), experts};
  Multiply(x, std::span(&router, 1));
  ForRows(x.rows, [&](int64_t row) {
    RouteToken(work.logits() + row * experts, experts, top_k, spec.norm, spec.scale,
               plan.expert_ids.data() + row * top_k, plan.weights.data() + row * top_k);
  });
  plan.SortPairs(x.rows * top_k, experts);

  PrepareExpertRows(work.rows(), width, IsQuantized(gate) || IsQuantized(up), [&](int64_t row) {
    const float* token = Row(x, plan.row_pairs[static_cast<size_t>(row)] / top_k);
    std::copy(token, token + width, work.rows() + row * width);
  });
  const ExpertProduct gate_up[] = {{&gate, work.gate()}, {&up, work.up()}};
  MultiplyExperts(work.rows(), width, gate_up);
  PrepareExpertRows(work.gate(), ffn_width, IsQuantized(down), [&](int64_t row) {
    kernels_.gated_activation(spec.kind, work.up() + row * ffn_width, ffn_width,
                              work.gate() + row * ffn_width);
  });
  const ExpertProduct into_rows{&down, work.rows()};
  MultiplyExperts(work.gate(), ffn_width, std::span(&into_rows, 1));
  ForRows(x.rows, [&](int64_t row) {
    CombineExperts(work.rows(), plan.pair_rows.data() + row * top_k,
                   plan.weights.data() + row * top_k, top_k, width, Row(*out, row));
  });
}

}  // namespace quern
