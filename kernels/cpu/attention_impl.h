#pragma once

#include <cmath>
#include <cstring>

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

// `rows` heads of `dim` elements in groups of 32, in order: padding is overwritten by the next.
inline void Int8ToFloats(const uint8_t* groups, int rows, int dim, float* y) {
  for (int row = 0; row < rows; ++row, y += dim) {
    for (int i = 0; i < dim; i += kKvGroup, groups += KvGroupBytes(KvDtype::kInt8)) {
      const Simd::F scale = Simd::Set(Simd::Half(groups));
      for (int j = 0; j < kKvGroup; j += Simd::kLanes) {
        Simd::StoreF(y + i + j, Simd::Mul(scale, Simd::LoadSigned8(groups + 2 + j)));
      }
    }
  }
}

inline void Int4ToFloats(const uint8_t* groups, int rows, int dim, float* y) {
  for (int row = 0; row < rows; ++row, y += dim) {
    for (int i = 0; i < dim; i += kKvGroup, groups += KvGroupBytes(KvDtype::kInt4)) {
      Simd::StoreLookedUp(groups + 2, kInt4Levels, Simd::Set(Simd::Half(groups)), y + i);
    }
  }
}

// `rows` heads of the cache, which lie one behind the other, as floats: in place, or converted into
// `scratch`, of which up to a group behind them may be written.
inline const float* KvFloats(KvDtype dtype, const uint8_t* heads, int rows, int dim,
                             float* scratch) {
  switch (dtype) {
    case KvDtype::kF32:
      return reinterpret_cast<const float*>(heads);
    case KvDtype::kF16:
      HalvesToFloats(reinterpret_cast<const uint16_t*>(heads), int64_t{rows} * dim, scratch);
      break;
    case KvDtype::kInt8:
      Int8ToFloats(heads, rows, dim, scratch);
      break;
    case KvDtype::kInt4:
      Int4ToFloats(heads, rows, dim, scratch);
      break;
  }
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
    const int32_t block = args.blocks[token / kv.block_tokens];
    const float* keys =
        KvFloats(KeyDtype(kv.dtype), kv.Key(block, args.kv_head, slot), run, dim, scratch);
    const float* values =  // after the keys, whose padding lies here
        KvFloats(kv.dtype, kv.Value(block, args.kv_head, slot), run, dim,
                 scratch + int64_t{kAttentionSlots} * dim);
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

inline void StoreKv(KvDtype dtype, const float* x, int dim, uint8_t* head) {
  if (IsQuantized(dtype)) {
    QuantizeKvHead(dtype, x, dim, head);
  } else if (dtype == KvDtype::kF32) {
    std::memcpy(head, x, static_cast<size_t>(dim) * sizeof(float));
  } else {
    FloatsToHalves(x, dim, reinterpret_cast<uint16_t*>(head));
  }
}

void AppendKv(const PagedKv& kv, int32_t block, int kv_head, int slot, const float* k,
              const float* v) {
  StoreKv(KeyDtype(kv.dtype), k, kv.head_dim, kv.Key(block, kv_head, slot));
  StoreKv(kv.dtype, v, kv.head_dim, kv.Value(block, kv_head, slot));
}

}  // namespace
}  // namespace quern::kernels
