#include "quern/kernels/attention.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "quern/kernels/numeric_types.h"

namespace quern::kernels::ref {
namespace {

void AttendOne(const AttentionArgs& args, const AttentionQuery& query) {
  const PagedKv& kv = args.kv;
  const int first = args.window > 0 ? std::max(0, query.position - args.window + 1) : 0;
  auto offset = [&](int token) {
    return kv.Offset(args.blocks[token / kv.block_tokens], args.kv_head, token % kv.block_tokens);
  };
  std::vector<double> weights;
  double largest = -INFINITY;
  for (int token = first; token <= query.position; ++token) {
    const uint16_t* k = kv.k + offset(token);
    double score = 0;
    for (int i = 0; i < kv.head_dim; ++i) {
      score += static_cast<double>(query.q[i]) * HalfToFloat(k[i]);
    }
    score *= args.scale;
    if (args.softcap > 0) score = args.softcap * std::tanh(score / args.softcap);
    largest = std::max(largest, score);
    weights.push_back(score);
  }
  double total = 0;
  for (double& w : weights) total += w = std::exp(w - largest);
  std::vector<double> out(static_cast<size_t>(kv.head_dim));
  for (int token = first; token <= query.position; ++token) {
    const uint16_t* v = kv.v + offset(token);
    const double w = weights[static_cast<size_t>(token - first)] / total;
    for (int i = 0; i < kv.head_dim; ++i) out[static_cast<size_t>(i)] += w * HalfToFloat(v[i]);
  }
  for (int i = 0; i < kv.head_dim; ++i)
    query.out[i] = static_cast<float>(out[static_cast<size_t>(i)]);
}

uint16_t SaturatedHalf(float value) { return FloatToHalf(std::clamp(value, -65504.0f, 65504.0f)); }

}  // namespace

void Attention(const AttentionArgs& args, const AttentionQuery* queries, int count) {
  for (int i = 0; i < count; ++i) AttendOne(args, queries[i]);
}

void AppendKv(const PagedKv& kv, int32_t block, int kv_head, int slot, const float* k,
              const float* v) {
  const int64_t offset = kv.Offset(block, kv_head, slot);
  for (int i = 0; i < kv.head_dim; ++i) {
    kv.k[offset + i] = SaturatedHalf(k[i]);
    kv.v[offset + i] = SaturatedHalf(v[i]);
  }
}

}  // namespace quern::kernels::ref
