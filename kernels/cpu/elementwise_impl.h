#pragma once

#include <cmath>
#include <cstring>

#include "quern/kernels/elementwise.h"
#include "quern/kernels/gated_activation.h"
#include "quern/kernels/hadamard.h"
#include "quern/kernels/quantize_activations.h"
#include "quern/kernels/rms_norm.h"
#include "quern/kernels/rope.h"

// Ops that touch each element once, over one `Simd` (included before this file).
namespace quern::kernels {
namespace {

// e^x with a relative error below 2^-22 for x in [-87, 88], and clamped outside: range reduction by
// ln 2 in two parts (Cody & Waite) and a polynomial of degree 6 (Cephes expf's coefficients).
inline Simd::F Exp(Simd::F x) {
  x = Simd::Min(Simd::Max(x, Simd::Set(-87.0f)), Simd::Set(88.0f));
  const Simd::F n = Simd::Round(Simd::Mul(x, Simd::Set(1.44269504088896341f)));
  Simd::F r = Simd::Fma(n, Simd::Set(-0.693359375f), x);
  r = Simd::Fma(n, Simd::Set(2.12194440e-4f), r);
  Simd::F p = Simd::Set(1.9875691500e-4f);
  p = Simd::Fma(p, r, Simd::Set(1.3981999507e-3f));
  p = Simd::Fma(p, r, Simd::Set(8.3334519073e-3f));
  p = Simd::Fma(p, r, Simd::Set(4.1665795894e-2f));
  p = Simd::Fma(p, r, Simd::Set(1.6666665459e-1f));
  p = Simd::Fma(p, r, Simd::Set(5.0000001201e-1f));
  p = Simd::Fma(p, Simd::Mul(r, r), Simd::Add(r, Simd::Set(1.0f)));
  return Simd::Mul(p, Simd::PowerOfTwo(n));
}

inline Simd::F Sigmoid(Simd::F x) {
  const Simd::F one = Simd::Set(1.0f);
  return Simd::Div(one, Simd::Add(one, Exp(Simd::Sub(Simd::Set(0), x))));
}

inline Simd::F Tanh(Simd::F x) {
  const Simd::F one = Simd::Set(1.0f);
  const Simd::F twice = Sigmoid(Simd::Add(x, x));
  return Simd::Sub(Simd::Add(twice, twice), one);
}

// y[i] = op(x[i], y[i]) over n elements; the tail goes through a padded vector.
template <typename Op>
inline void ForEach(const float* x, int64_t n, float* y, Op op) {
  int64_t i = 0;
  for (; i + Simd::kLanes <= n; i += Simd::kLanes) {
    Simd::StoreF(y + i, op(Simd::LoadF(x + i), Simd::LoadF(y + i)));
  }
  if (i == n) return;
  float tail_x[Simd::kLanes] = {};
  float tail_y[Simd::kLanes] = {};
  for (int64_t t = 0; i + t < n; ++t) {
    tail_x[t] = x[i + t];
    tail_y[t] = y[i + t];
  }
  Simd::StoreF(tail_y, op(Simd::LoadF(tail_x), Simd::LoadF(tail_y)));
  for (int64_t t = 0; i + t < n; ++t) y[i + t] = tail_y[t];
}

void Add(const float* x, int64_t n, float* y) {
  ForEach(x, n, y, [](Simd::F a, Simd::F b) { return Simd::Add(a, b); });
}

void Softcap(float cap, int64_t n, float* y) {
  const Simd::F scale = Simd::Set(cap);
  const Simd::F inverse = Simd::Set(1.0f / cap);
  ForEach(y, n, y,
          [=](Simd::F, Simd::F b) { return Simd::Mul(scale, Tanh(Simd::Mul(b, inverse))); });
}

void GatedActivation(Gate kind, const float* up, int64_t n, float* gate) {
  if (kind == Gate::kSilu) {
    ForEach(up, n, gate,
            [](Simd::F u, Simd::F g) { return Simd::Mul(Simd::Mul(g, Sigmoid(g)), u); });
    return;
  }
  if (kind == Gate::kSiluClamped) {
    const Simd::F limit = Simd::Set(kGateLimit);
    const Simd::F negative = Simd::Set(-kGateLimit);
    const Simd::F one = Simd::Set(1.0f);
    ForEach(up, n, gate, [=](Simd::F u, Simd::F g) {
      const Simd::F kept = Simd::Min(g, limit);
      const Simd::F factor = Simd::Add(Simd::Max(Simd::Min(u, limit), negative), one);
      return Simd::Mul(Simd::Mul(kept, Sigmoid(Simd::Mul(Simd::Set(kGateAlpha), kept))), factor);
    });
    return;
  }
  // 0.5 (1 + tanh z) = sigmoid(2 z), which loses no digits where z is very negative.
  const Simd::F linear = Simd::Set(2 * 0.79788456080286535588f);
  const Simd::F cubic = Simd::Set(2 * 0.79788456080286535588f * 0.044715f);
  ForEach(up, n, gate, [=](Simd::F u, Simd::F g) {
    const Simd::F z = Simd::Mul(g, Simd::Fma(Simd::Mul(cubic, g), g, linear));
    return Simd::Mul(Simd::Mul(g, Sigmoid(z)), u);
  });
}

void RmsNorm(const float* x, const float* weight, float epsilon, int64_t n, float* y) {
  Simd::F squares = Simd::Set(0);
  int64_t i = 0;
  for (; i + Simd::kLanes <= n; i += Simd::kLanes) {
    const Simd::F v = Simd::LoadF(x + i);
    squares = Simd::Fma(v, v, squares);
  }
  float sum = Simd::Sum(squares);
  for (; i < n; ++i) sum += x[i] * x[i];
  const float inverse = 1.0f / std::sqrt(sum / static_cast<float>(n) + epsilon);
  const Simd::F scale = Simd::Set(inverse);
  for (i = 0; i + Simd::kLanes <= n; i += Simd::kLanes) {
    const Simd::F v = Simd::Mul(Simd::LoadF(x + i), scale);
    Simd::StoreF(y + i, Simd::Mul(v, Simd::LoadF(weight + i)));
  }
  for (; i < n; ++i) y[i] = x[i] * inverse * weight[i];
}

void RotateAdjacent(const float* cosines, const float* sines, int dims, float* x) {
  int i = 0;
  for (; i + Simd::kLanes <= dims; i += Simd::kLanes) {
    const Simd::F v = Simd::LoadF(x + i);
    const Simd::F turned = Simd::Mul(Simd::SwapLanes<1>(v), Simd::LoadDoubled(sines + i / 2));
    Simd::StoreF(x + i, Simd::AddSub(Simd::Mul(v, Simd::LoadDoubled(cosines + i / 2)), turned));
  }
  for (; i < dims; i += 2) {
    const float a = x[i];
    const float b = x[i + 1];
    x[i] = a * cosines[i / 2] - b * sines[i / 2];
    x[i + 1] = a * sines[i / 2] + b * cosines[i / 2];
  }
}

void RotateHalves(const float* cosines, const float* sines, int dims, float* x) {
  const int half = dims / 2;
  int i = 0;
  for (; i + Simd::kLanes <= half; i += Simd::kLanes) {
    const Simd::F a = Simd::LoadF(x + i);
    const Simd::F b = Simd::LoadF(x + half + i);
    const Simd::F c = Simd::LoadF(cosines + i);
    const Simd::F s = Simd::LoadF(sines + i);
    Simd::StoreF(x + i, Simd::Sub(Simd::Mul(a, c), Simd::Mul(b, s)));
    Simd::StoreF(x + half + i, Simd::Fma(a, s, Simd::Mul(b, c)));
  }
  for (; i < half; ++i) {
    const float a = x[i];
    const float b = x[half + i];
    x[i] = a * cosines[i] - b * sines[i];
    x[half + i] = a * sines[i] + b * cosines[i];
  }
}

void Rope(RopePairs pairs, const float* cosines, const float* sines, int dims, int heads,
          int head_dim, float* x) {
  for (int head = 0; head < heads; ++head, x += head_dim) {
    if (pairs == RopePairs::kAdjacent) {
      RotateAdjacent(cosines, sines, dims, x);
    } else {
      RotateHalves(cosines, sines, dims, x);
    }
  }
}

// Sums and differences of lanes that are kDistance apart, the sum in the lower one; then those of
// twice the distance, up to the width of a vector.
template <int kDistance>
inline Simd::F ButterfliesWithin(Simd::F a) {
  float signs[Simd::kLanes];
  for (int i = 0; i < Simd::kLanes; ++i) signs[i] = (i & kDistance) == 0 ? 1.0f : -1.0f;
  a = Simd::Fma(a, Simd::LoadF(signs), Simd::SwapLanes<kDistance>(a));
  if constexpr (2 * kDistance < Simd::kLanes) return ButterfliesWithin<2 * kDistance>(a);
  return a;
}

// The fast Walsh-Hadamard transform of one block.
inline void HadamardOfBlock(int n, float* x) {
  const float factor = 1.0f / std::sqrt(static_cast<float>(n));
  int distance = 1;
  if (n % Simd::kLanes == 0) {
    const Simd::F scale = Simd::Set(factor);
    for (int i = 0; i < n; i += Simd::kLanes) {
      Simd::StoreF(x + i, ButterfliesWithin<1>(Simd::Mul(scale, Simd::LoadF(x + i))));
    }
    distance = Simd::kLanes;
  } else {
    for (int i = 0; i < n; ++i) x[i] *= factor;
  }
  for (; distance < n; distance *= 2) {
    const int step = distance < Simd::kLanes ? 1 : Simd::kLanes;
    for (int begin = 0; begin < n; begin += 2 * distance) {
      for (int i = begin; i < begin + distance; i += step) {
        if (step == 1) {
          const float a = x[i];
          const float b = x[i + distance];
          x[i] = a + b;
          x[i + distance] = a - b;
          continue;
        }
        const Simd::F a = Simd::LoadF(x + i);
        const Simd::F b = Simd::LoadF(x + i + distance);
        Simd::StoreF(x + i, Simd::Add(a, b));
        Simd::StoreF(x + i + distance, Simd::Sub(a, b));
      }
    }
  }
}

void Hadamard(int n, float* x) {
  const int block = HadamardBlock(n);
  for (int i = 0; i < n; i += block) HadamardOfBlock(block, x + i);
}

// One group of 32: q to `out`, its scale returned, the sum of q in *sum. Values all below 1e-30
// count as zero: the inverse of their scale would overflow. A group that holds an infinity or a
// NaN, which integers cannot carry on, gets NaN as its scale, so that what is computed from it says
// so.
inline float QuantizeGroup(const float* x, int16_t* out, int32_t* sum) {
  Simd::F largest = Simd::Set(0);
  Simd::F zero = Simd::Set(0);  // NaN where a value is no number
  for (int i = 0; i < 32; i += Simd::kLanes) {
    const Simd::F v = Simd::LoadF(x + i);
    largest = Simd::Max(largest, Simd::Abs(v));
    zero = Simd::Fma(v, Simd::Set(0), zero);
  }
  if (Simd::Sum(zero) != 0) {
    for (int i = 0; i < 32; ++i) out[i] = 0;
    *sum = 0;
    return NAN;
  }
  const float limit = Simd::MaxOf(largest);
  const float inverse = limit < 1e-30f ? 0.0f : 32767.0f / limit;
  const Simd::F factor = Simd::Set(inverse);
  Simd::I total = Simd::Zero();
  for (int i = 0; i < 32; i += Simd::kLanes) {
    const Simd::I q = Simd::ToInt(Simd::Mul(Simd::LoadF(x + i), factor));
    total = Simd::Add32(total, q);
    Simd::StoreInt16(out + i, q);
  }
  *sum = Simd::SumInt(total);
  return limit < 1e-30f ? 0.0f : limit / 32767.0f;
}

void QuantizeActivations(const float* x, int64_t stride, int64_t bundle_start, int64_t group_begin,
                         int64_t group_end, const QuantizedActivations& out) {
  const int64_t n = BundleRows(bundle_start, out.rows);
  const int64_t scales = bundle_start * (out.cols / 32);
  for (int64_t g = group_begin; g < group_end; ++g) {
    int16_t rows[8][32];
    for (int64_t i = 0; i < n; ++i) {
      int32_t sum;
      const float scale = QuantizeGroup(x + (bundle_start + i) * stride + 32 * g, rows[i], &sum);
      const int64_t at = scales + g * n + i;
      out.scale[at] = scale;
      out.sum[at] = scale * static_cast<float>(sum);
      out.neg_sum[at] = -sum;
    }
    int16_t* q = out.q + bundle_start * out.cols + 32 * g * n;
    for (int64_t pair = 0; pair < 16; ++pair) {
      for (int64_t i = 0; i < n; ++i, q += 2) std::memcpy(q, rows[i] + 2 * pair, 4);
    }
  }
}

}  // namespace
}  // namespace quern::kernels
