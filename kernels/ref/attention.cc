#include "quern/kernels/attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "quern/kernels/numeric_types.h"

namespace quern::kernels::ref {
namespace {

uint16_t SaturatedHalf(float value) { return FloatToHalf(std::clamp(value, -65504.0f, 65504.0f)); }

std::vector<float> ReadHead(KvDtype dtype, const uint8_t* head, int head_dim) {
  std::vector<float> x(static_cast<size_t>(head_dim));
  if (IsQuantized(dtype)) {
    DequantizeKvHead(dtype, head, head_dim, x.data());
  } else if (dtype == KvDtype::kF32) {
    std::memcpy(x.data(), head, x.size() * sizeof(float));
  } else {
    const auto* halves = reinterpret_cast<const uint16_t*>(head);
    std::transform(halves, halves + head_dim, x.begin(), HalfToFloat);
  }
  return x;
}

void WriteHead(KvDtype dtype, const float* x, int head_dim, uint8_t* head) {
  if (IsQuantized(dtype)) {
    QuantizeKvHead(dtype, x, head_dim, head);
  } else if (dtype == KvDtype::kF32) {
    std::memcpy(head, x, static_cast<size_t>(head_dim) * sizeof(float));
  } else {
    std::transform(x, x + head_dim, reinterpret_cast<uint16_t*>(head), SaturatedHalf);
  }
}

void AttendOne(const AttentionArgs& args, const AttentionQuery& query, const float* sink) {
  const PagedKv& kv = args.kv;
  const int first = args.window > 0 ? std::max(0, query.position - args.window + 1) : 0;
  const auto key = [&](int token) {
    return ReadHead(
        KeyDtype(kv.dtype),
        kv.Key(args.blocks[token / kv.block_tokens], args.kv_head, token % kv.block_tokens),
        kv.head_dim);
  };
  const auto value = [&](int token) {
    return ReadHead(
        kv.dtype,
        kv.Value(args.blocks[token / kv.block_tokens], args.kv_head, token % kv.block_tokens),
        kv.head_dim);
  };
  std::vector<double> weights;
  double largest = sink != nullptr ? static_cast<double>(*sink) : -INFINITY;
  for (int token = first; token <= query.position; ++token) {
    double score = 0;
    const std::vector<float> k = key(token);
    for (size_t i = 0; i < k.size(); ++i) score += static_cast<double>(query.q[i]) * k[i];
    score *= args.scale;
    if (args.softcap > 0) score = args.softcap * std::tanh(score / args.softcap);
    largest = std::max(largest, score);
    weights.push_back(score);
  }
  double total = sink != nullptr ? std::exp(static_cast<double>(*sink) - largest) : 0;
  for (double& w : weights) total += w = std::exp(w - largest);
  std::vector<double> out(static_cast<size_t>(kv.head_dim));
  for (int token = first; token <= query.position; ++token) {
    const double w = weights[static_cast<size_t>(token - first)] / total;
    const std::vector<float> v = value(token);
    for (size_t i = 0; i < v.size(); ++i) out[i] += w * v[i];
  }
  for (int i = 0; i < kv.head_dim; ++i)
    query.out[i] = static_cast<float>(out[static_cast<size_t>(i)]);
}

}  // namespace

void Attention(const AttentionArgs& args, const AttentionQuery* queries, int count,
               const float* sinks) {
  for (int i = 0; i < count; ++i) {
    AttendOne(args, queries[i], sinks == nullptr ? nullptr : sinks + i);
  }
}

void AppendKv(const PagedKv& kv, int32_t block, int kv_head, int slot, const float* k,
              const float* v) {
  WriteHead(KeyDtype(kv.dtype), k, kv.head_dim, kv.Key(block, kv_head, slot));
  WriteHead(kv.dtype, v, kv.head_dim, kv.Value(block, kv_head, slot));
}

}  // namespace quern::kernels::ref
