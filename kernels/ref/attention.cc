#include "quern/kernels/attention.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "quern/kernels/numeric_types.h"

namespace quern::kernels::ref {
namespace {

uint16_t SaturatedHalf(float value) { return FloatToHalf(std::clamp(value, -65504.0f, 65504.0f)); }

float ReadKv(KvDtype dtype, const void* cache, int64_t at) {
  return dtype == KvDtype::kF32 ? static_cast<const float*>(cache)[at]
                                : HalfToFloat(static_cast<const uint16_t*>(cache)[at]);
}

void WriteKv(KvDtype dtype, float value, void* cache, int64_t at) {
  if (dtype == KvDtype::kF32) {
    static_cast<float*>(cache)[at] = value;
  } else {
    static_cast<uint16_t*>(cache)[at] = SaturatedHalf(value);
  }
}

void AttendOne(const AttentionArgs& args, const AttentionQuery& query) {
  const PagedKv& kv = args.kv;
  const int first = args.window > 0 ? std::max(0, query.position - args.window + 1) : 0;
  auto offset = [&](int token) {
    return kv.Offset(args.blocks[token / kv.block_tokens], args.kv_head, token % kv.block_tokens);
  };
  std::vector<double> weights;
  double largest = -INFINITY;
  for (int token = first; token <= query.position; ++token) {
    double score = 0;
    for (int i = 0; i < kv.head_dim; ++i) {
      score += static_cast<double>(query.q[i]) * ReadKv(kv.dtype, kv.k, offset(token) + i);
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
    const double w = weights[static_cast<size_t>(token - first)] / total;
    for (int i = 0; i < kv.head_dim; ++i) {
      out[static_cast<size_t>(i)] += w * ReadKv(kv.dtype, kv.v, offset(token) + i);
    }
  }
  for (int i = 0; i < kv.head_dim; ++i)
    query.out[i] = static_cast<float>(out[static_cast<size_t>(i)]);
}

}  // namespace

void Attention(const AttentionArgs& args, const AttentionQuery* queries, int count) {
  for (int i = 0; i < count; ++i) AttendOne(args, queries[i]);
}

void AppendKv(const PagedKv& kv, int32_t block, int kv_head, int slot, const float* k,
              const float* v) {
  const int64_t offset = kv.Offset(block, kv_head, slot);
  for (int i = 0; i < kv.head_dim; ++i) {
    WriteKv(kv.dtype, k[i], kv.k, offset + i);
    WriteKv(kv.dtype, v[i], kv.v, offset + i);
  }
}

}  // namespace quern::kernels::ref
