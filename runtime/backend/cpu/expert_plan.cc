#include "runtime/backend/cpu/expert_plan.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>

#include "quern/kernels/quantize_activations.h"

namespace quern {

void RouteToken(const float* logits, int experts, int top_k, kernels::RouterNorm norm, float scale,
                int32_t* expert_ids, float* weights) {
  assert(top_k >= 1 && top_k <= kernels::kMaxChosenExperts && top_k <= experts);
  bool is_nan = false;
  int chosen = 0;
  for (int expert = 0; expert < experts; ++expert) {
    const float logit = logits[expert];
    is_nan = is_nan || std::isnan(logit);
    int slot = chosen;  // where it goes: behind its equals, which have lower ids
    while (slot > 0) {
      const float before = logits[expert_ids[slot - 1]];
      if (!(logit > before || (std::isnan(before) && !std::isnan(logit)))) break;
      --slot;
    }
    if (slot == top_k) continue;
    chosen = std::min(chosen + 1, top_k);
    std::copy_backward(expert_ids + slot, expert_ids + chosen - 1, expert_ids + chosen);
    expert_ids[slot] = expert;
  }
  const double most = logits[expert_ids[0]];
  const auto share = [&](int expert) { return std::exp(double{logits[expert]} - most); };
  double sum = 0;
  if (norm == kernels::RouterNorm::kAllExperts) {
    for (int expert = 0; expert < experts; ++expert) sum += share(expert);
  } else {
    for (int slot = 0; slot < top_k; ++slot) sum += share(expert_ids[slot]);
  }
  for (int slot = 0; slot < top_k; ++slot) {
    weights[slot] = is_nan ? std::numeric_limits<float>::quiet_NaN()
                           : static_cast<float>(share(expert_ids[slot]) / sum * scale);
  }
}

void ExpertPlan::Reserve(int64_t pairs, int experts) {
  const auto count = static_cast<size_t>(pairs);
  if (expert_ids.size() < count) {
    expert_ids.resize(count);
    weights.resize(count);
    row_pairs.resize(count);
    pair_rows.resize(count);
    bundles.reserve(count);
  }
  groups.reserve(static_cast<size_t>(experts));
  next_.reserve(static_cast<size_t>(experts));
}

void ExpertPlan::SortPairs(int64_t pairs, int experts) {
  groups.clear();
  bundles.clear();
  next_.assign(static_cast<size_t>(experts), 0);
  for (int64_t pair = 0; pair < pairs; ++pair) {
    const int32_t expert = expert_ids[static_cast<size_t>(pair)];
    assert(expert >= 0 && expert < experts);
    ++next_[static_cast<size_t>(expert)];
  }
  int64_t begin = 0;
  for (int32_t expert = 0; expert < experts; ++expert) {
    int64_t& next = next_[static_cast<size_t>(expert)];
    const int64_t rows = next;
    next = begin;
    if (rows == 0) continue;
    const auto group = static_cast<int32_t>(groups.size());
    groups.push_back({expert, begin, begin + rows});
    for (int64_t start = 0; start < rows; start += kernels::BundleRows(start, rows)) {
      bundles.push_back({group, start});
    }
    begin += rows;
  }
  for (int64_t pair = 0; pair < pairs; ++pair) {
    const auto i = static_cast<size_t>(pair);
    const int64_t row = next_[static_cast<size_t>(expert_ids[i])]++;
    pair_rows[i] = static_cast<int32_t>(row);
    row_pairs[static_cast<size_t>(row)] = static_cast<int32_t>(pair);
  }
}

}  // namespace quern
