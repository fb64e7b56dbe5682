#pragma once

#include <cmath>

#include "kernels/cpu/elementwise_impl.h"
#include "quern/kernels/attention.h"
#include "quern/kernels/numeric_types.h"

// Paged attention over one `Simd` (included before this file).
namespace quern::kernels {
namespace {

inline void HalvesToFloats(const uint16_t* x, int64_t n, float* y) {
  int64_t i = 0;
  for (; i + Simd::kLanes <= n; i += Simd::kLanes) Simd::StoreF(y + i, Simd::LoadHalf(x + i));
  for (; i < n; ++i) y[i] = HalfToFloat(x[i]);
}

// `n` elements of the cache from `offset` on as floats: in place, or converted into `scratch`.
inline const float* KvFloats(KvDtype dtype, const void* cache, int64_t offset, int64_t n,
                             float* scratch) {
  if (dtype == KvDtype::kF32) return static_cast<const float*>(cache) + offset;
  HalvesToFloats(static_cast<const uint16_t*>(cache) + offset, n, scratch);
  return scratch;
}

// scores[t] = q . k[t] of `count` keys, four at a time so that their sums hide each other's
// latency.
inline void ScoreKeys(const float* q, const float* k, int dim, int count, float* scores) {
  const int whole = dim / Simd::kLanes * Simd::kLanes;
  for (int t = 0; t < count; t += 4) {
    const int last = count - 1;
    const float* k0 = k + static_cast<int64_t>(t) * dim;
    const float* k1 = k + static_cast<int64_t>(t + 1 < last ? t + 1 : last) * dim;
    const float* k2 = k + static_cast<int64_t>(t + 2 < last ? t + 2 : last) * dim;
    const float* k3 = k + static_cast<int64_t>(t + 3 < last ? t + 3 : last) * dim;
    Simd::F s0 = Simd::Set(0), s1 = s0, s2 = s0, s3 = s0;
    for (int i = 0; i < whole; i += Simd::kLanes) {
      const Simd::F v = Simd::LoadF(q + i);
      s0 = Simd::Fma(v, Simd::LoadF(k0 + i), s0);
      s1 = Simd::Fma(v, Simd::LoadF(k1 + i), s1);
      s2 = Simd::Fma(v, Simd::LoadF(k2 + i), s2);
      s3 = Simd::Fma(v, Simd::LoadF(k3 + i), s3);
    }
    float sums[4] = {Simd::Sum(s0), Simd::Sum(s1), Simd::Sum(s2), Simd::Sum(s3)};
    for (int i = whole; i < dim; ++i) {
      sums[0] += q[i] * k0[i];
      sums[1] += q[i] * k1[i];
      sums[2] += q[i] * k2[i];
      sums[3] += q[i] * k3[i];
    }
    for (int j = 0; j < 4 && t + j < count; ++j) scores[t + j] = sums[j];
  }
}

// out = out * keep + sum over t of weights[t] * v[t].
inline void AccumulateValues(const float* weights, const float* v, int dim, int count, float keep,
                             float* out) {
  constexpr int kStep = 4 * Simd::kLanes;
  const Simd::F factor = Simd::Set(keep);
  int i = 0;
  for (; i + kStep <= dim; i += kStep) {
    Simd::F a0 = Simd::Mul(factor, Simd::LoadF(out + i));
    Simd::F a1 = Simd::Mul(factor, Simd::LoadF(out + i + Simd::kLanes));
    Simd::F a2 = Simd::Mul(factor, Simd::LoadF(out + i + 2 * Simd::kLanes));
    Simd::F a3 = Simd::Mul(factor, Simd::LoadF(out + i + 3 * Simd::kLanes));
    for (int t = 0; t < count; ++t) {
      const Simd::F w = Simd::Set(weights[t]);
      const float* row = v + static_cast<int64_t>(t) * dim + i;
      a0 = Simd::Fma(w, Simd::LoadF(row), a0);
      a1 = Simd::Fma(w, Simd::LoadF(row + Simd::kLanes), a1);
      a2 = Simd::Fma(w, Simd::LoadF(row + 2 * Simd::kLanes), a2);
      a3 = Simd::Fma(w, Simd::LoadF(row + 3 * Simd::kLanes), a3);
    }
    Simd::StoreF(out + i, a0);
    Simd::StoreF(out + i + Simd::kLanes, a1);
    Simd::StoreF(out + i + 2 * Simd::kLanes, a2);
    Simd::StoreF(out + i + 3 * Simd::kLanes, a3);
  }
  for (; i < dim; ++i) {
    float sum = keep * out[i];
    for (int t = 0; t < count; ++t) sum += weights[t] * v[static_cast<int64_t>(t) * dim + i];
    out[i] = sum;
  }
}

struct RunningSoftmax {
  float largest;
  float total;
};

// Folds `count` keys and values (count <= kAttentionSlots) into one query's running result.
inline void AttendSlots(const AttentionArgs& args, const AttentionQuery& query, const float* k,
                        const float* v, int count, RunningSoftmax* state) {
  static_assert(kAttentionSlots % Simd::kLanes == 0);
  const int dim = args.kv.head_dim;
  float scores[kAttentionSlots];
  for (float& score : scores) score = -INFINITY;
  ScoreKeys(query.q, k, dim, count, scores);
  for (int t = 0; t < count; ++t) scores[t] *= args.scale;
  if (args.softcap > 0) Softcap(args.softcap, count, scores);

  Simd::F largest = Simd::Set(state->largest);
  for (int t = 0; t < kAttentionSlots; t += Simd::kLanes) {
    largest = Simd::Max(largest, Simd::LoadF(scores + t));
  }
  const float new_largest = Simd::MaxOf(largest);
  // Slots beyond `count` hold -infinity: Exp clamps it to 1.6e-38, and they are not read below.
  for (int t = 0; t < kAttentionSlots; t += Simd::kLanes) {
    Simd::StoreF(scores + t, Exp(Simd::Sub(Simd::LoadF(scores + t), Simd::Set(new_largest))));
  }
  float sum = 0;
  for (int t = 0; t < count; ++t) sum += scores[t];
  const float keep = state->total == 0 ? 0.0f : std::exp(state->largest - new_largest);
  AccumulateValues(scores, v, dim, count, keep, query.out);
  state->largest = new_largest;
  state->total = state->total * keep + sum;
}

void Attention(const AttentionArgs& args, const AttentionQuery* queries, int count,
               float* scratch) {
  const PagedKv& kv = args.kv;
  const int dim = kv.head_dim;
  RunningSoftmax states[kAttentionMaxQueries];
  int32_t first = INT32_MAX;
  int32_t last = 0;
  auto first_seen = [&](const AttentionQuery& query) {
    const int32_t start = query.position - args.window + 1;
    return args.window > 0 && start > 0 ? start : 0;
  };
  for (int i = 0; i < count; ++i) {
    states[i] = {-INFINITY, 0};
    for (int d = 0; d < dim; ++d) queries[i].out[d] = 0;
    first = first_seen(queries[i]) < first ? first_seen(queries[i]) : first;
    last = queries[i].position > last ? queries[i].position : last;
  }
  // From a block's start, so that a query's tokens are always cut into the same runs, whoever
  // shares the call: the same sums in the same order give the same bits.
  for (int32_t token = first - first % kv.block_tokens; token <= last;) {
    // As many slots as lie together in this block.
    const int slot = token % kv.block_tokens;
    int32_t run = kv.block_tokens - slot;
    if (run > kAttentionSlots) run = kAttentionSlots;
    if (run > last - token + 1) run = last - token + 1;
    const int64_t offset = kv.Offset(args.blocks[token / kv.block_tokens], args.kv_head, slot);
    const int64_t elements = static_cast<int64_t>(run) * dim;
    const float* keys = KvFloats(kv.dtype, kv.k, offset, elements, scratch);
    const float* values =
        KvFloats(kv.dtype, kv.v, offset, elements, scratch + int64_t{kAttentionSlots} * dim);
    for (int i = 0; i < count; ++i) {
      const int32_t begin = first_seen(queries[i]) > token ? first_seen(queries[i]) - token : 0;
      const int32_t end =
          queries[i].position - token + 1 < run ? queries[i].position - token + 1 : run;
      if (begin >= end) continue;
      AttendSlots(args, queries[i], keys + static_cast<int64_t>(begin) * dim,
                  values + static_cast<int64_t>(begin) * dim, end - begin, &states[i]);
    }
    token += run;
  }
  for (int i = 0; i < count; ++i) {
    const float inverse = 1.0f / states[i].total;
    for (int d = 0; d < dim; ++d) queries[i].out[d] *= inverse;
  }
}

inline void FloatsToHalves(const float* x, int64_t n, uint16_t* y) {
  const Simd::F limit = Simd::Set(65504.0f);
  const Simd::F minus_limit = Simd::Set(-65504.0f);
  int64_t i = 0;
  for (; i + Simd::kLanes <= n; i += Simd::kLanes) {
    Simd::StoreHalf(y + i, Simd::Max(Simd::Min(Simd::LoadF(x + i), limit), minus_limit));
  }
  for (; i < n; ++i) {
    const float capped = x[i] > 65504.0f ? 65504.0f : x[i];
    y[i] = FloatToHalf(capped < -65504.0f ? -65504.0f : capped);
  }
}

inline void StoreKv(KvDtype dtype, const float* x, int64_t n, void* cache, int64_t offset) {
  if (dtype == KvDtype::kF32) {
    float* y = static_cast<float*>(cache) + offset;
    for (int64_t i = 0; i < n; ++i) y[i] = x[i];
    return;
  }
  FloatsToHalves(x, n, static_cast<uint16_t*>(cache) + offset);
}

void AppendKv(const PagedKv& kv, int32_t block, int kv_head, int slot, const float* k,
              const float* v) {
  const int64_t offset = kv.Offset(block, kv_head, slot);
  StoreKv(kv.dtype, k, kv.head_dim, kv.k, offset);
  StoreKv(kv.dtype, v, kv.head_dim, kv.v, offset);
}

}  // namespace
}  // namespace quern::kernels
