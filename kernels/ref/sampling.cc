#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "quern/kernels/sample_tokens.h"

namespace quern::kernels::ref {

double SampleWeights(const float* logits, int64_t vocab, const SampleRow& params, double* weights) {
  std::fill_n(weights, vocab, 0.0);
  for (int64_t id = 0; id < vocab; ++id) {
    if (std::isnan(logits[id]) || logits[id] == INFINITY) return -1;
  }
  std::vector<int32_t> order(static_cast<size_t>(vocab));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int32_t a, int32_t b) { return logits[a] > logits[b]; });
  const float max = logits[order[0]];
  if (max == -INFINITY) return -1;
  if (!(params.temperature >= 1e-5f) || params.top_k == 1) {
    weights[order[0]] = 1;
    return 0;
  }
  if (params.top_k > 0 && params.top_k < vocab) order.resize(static_cast<size_t>(params.top_k));
  double total = 0;
  for (int32_t id : order) {
    const double weight = std::exp((double{logits[id]} - max) / params.temperature);
    if (weight < std::min(1.0, double{params.min_p}) * (1 - 1e-9)) continue;
    weights[id] = weight;
    total += weight;
  }
  if (!(params.top_p < 1)) return 0;
  const double mass = std::max(0.0, double{params.top_p}) * total;
  double before = 0;
  double doubtful = 0;
  for (int32_t id : order) {
    const double weight = weights[id];
    if (before > 0 && std::fabs(before - mass) < 1e-5 * total) doubtful += weight;
    if (before > 0 && before >= mass) weights[id] = 0;
    before += weight;
  }
  return doubtful;
}

}  // namespace quern::kernels::ref
