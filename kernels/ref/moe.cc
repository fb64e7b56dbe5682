#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "quern/kernels/moe_combine.h"
#include "quern/kernels/moe_permute.h"
#include "quern/kernels/moe_route.h"

namespace quern::kernels::ref {

void MoeRoute(const float* logits, int64_t experts, int64_t top_k, RouterNorm norm, double scale,
              int32_t* expert_ids, double* weights) {
  std::vector<int32_t> order(static_cast<size_t>(experts));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    if (std::isnan(logits[a]) || std::isnan(logits[b])) return !std::isnan(logits[a]);
    return logits[a] > logits[b];
  });
  const bool is_nan = std::isnan(logits[order.back()]);
  double sum = 0;
  for (int64_t i = 0; i < (norm == RouterNorm::kAllExperts ? experts : top_k); ++i) {
    sum += std::exp(double{logits[order[static_cast<size_t>(i)]]} - logits[order[0]]);
  }
  for (int64_t i = 0; i < top_k; ++i) {
    expert_ids[i] = order[static_cast<size_t>(i)];
    weights[i] = is_nan ? std::numeric_limits<double>::quiet_NaN()
                        : std::exp(double{logits[expert_ids[i]]} - logits[order[0]]) / sum * scale;
  }
}

void MoePermute(const MoePermuteArgs& args) {
  std::fill_n(args.row_pairs, MoePermuteRows(args.pairs, args.experts, args.tile), -1);
  std::fill_n(args.pair_rows, args.pairs, -1);
  int64_t row = 0;
  for (int64_t expert = 0; expert < args.experts; ++expert) {
    args.offsets[expert] = static_cast<int32_t>(row);
    for (int64_t pair = 0; pair < args.pairs; ++pair) {
      if (args.expert_ids[pair] != expert) continue;
      args.row_pairs[row] = static_cast<int32_t>(pair);
      args.pair_rows[pair] = static_cast<int32_t>(row++);
    }
    row = (row + args.tile - 1) / args.tile * args.tile;
  }
  args.offsets[args.experts] = static_cast<int32_t>(row);
}

void MoeCombine(const float* y, const int32_t* rows, const float* weights, int64_t top_k,
                int64_t hidden, double* out) {
  std::fill_n(out, hidden, 0.0);
  for (int64_t slot = 0; slot < top_k; ++slot) {
    if (rows[slot] < 0) continue;
    for (int64_t i = 0; i < hidden; ++i) {
      out[i] += static_cast<double>(weights[slot]) * y[rows[slot] * hidden + i];
    }
  }
}

}  // namespace quern::kernels::ref
