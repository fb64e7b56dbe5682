#pragma once

#include <utility>

#include "quern/kernels/matmul.h"
#include "quern/kernels/packed_layout.h"

// The packed matmul over one `Simd` (included before this file). One tile of kLanes output columns
// times a bundle of N rows: weights are unpacked once into 16-bit lanes and used for all N rows; a
// group of 32 is summed exactly in 32-bit integers and scaled once. The largest sum is 32 * 128 *
// 32767 < 2^27.
namespace quern::kernels {
namespace {

constexpr int64_t kRowsPerPass =
    128;  // rows whose activations stay in the L2 cache while all tiles pass by

template <int N>
struct BundleView {
  const int16_t* q;
  const float* scale;
  const float* sum;
  const int32_t* neg_sum;
};

// Column pair S of a group, as stored (Q6_K: less 32), in 16-bit lanes.
template <WeightType kType, int S>
QUERN_KERNEL_INLINE Simd::I PairOfColumns(const uint8_t* low, const uint8_t* high) {
  constexpr PackedLayout kLayout = LayoutOf(kType);
  constexpr int kVector = 4 * Simd::kLanes;
  if constexpr (kLayout.low == 32) return Simd::LoadBytes(low + S * 2 * Simd::kLanes);
  Simd::I w = Simd::Load(low + S / 4 * kVector);
  if constexpr (S % 4 != 0) w = Simd::template ShiftRight16<4 * (S % 4)>(w);
  if constexpr (S % 4 != 3) w = Simd::Mask16(w, 0xf);
  if constexpr (kLayout.high_width > 0) {
    constexpr int kPerVector = 16 / kLayout.high_width;
    constexpr int kShift = 4 - kLayout.high_width * (S % kPerVector);
    Simd::I bits = Simd::Load(high + S / kPerVector * kVector);
    if constexpr (kShift > 0) bits = Simd::template ShiftLeft16<kShift>(bits);
    if constexpr (kShift < 0) bits = Simd::template ShiftRight16<-kShift>(bits);
    w = Simd::Or(w, Simd::Mask16(bits, kLayout.high_width == 1 ? 0x10 : 0x30));
  }
  if constexpr (kType == WeightType::kQ6_K) w = Simd::Sub16(w, 32);
  return w;
}

template <WeightType kType, int N, int S>
QUERN_KERNEL_INLINE void DotPair(const uint8_t* low, const uint8_t* high, const int16_t* q,
                                 Simd::I (&dots)[N]) {
  const Simd::I w = PairOfColumns<kType, S>(low, high);
  for (int n = 0; n < N; ++n) {
    dots[n] = Simd::DotAdd16(dots[n], w, Simd::Broadcast32(q + (S * N + n) * 2));
  }
}

template <WeightType kType, int N, int kFirst, int... kSteps>
QUERN_KERNEL_INLINE void DotPairs(const uint8_t* low, const uint8_t* high, const int16_t* q,
                                  Simd::I (&dots)[N], std::integer_sequence<int, kSteps...>) {
  (DotPair<kType, N, kFirst + kSteps>(low, high, q, dots), ...);
}

// Scale of each row of the tile for one group, and its minimum where the type has one.
struct GroupScales {
  Simd::F scale;
  Simd::F second;  // Q6_K: of columns 16..31; types with a minimum: the minimum
};

template <WeightType kType>
QUERN_KERNEL_INLINE GroupScales LoadScales(const uint8_t* head, const uint8_t* group) {
  constexpr int kL = Simd::kLanes;
  if constexpr (kType == WeightType::kQ6_K) {
    const Simd::F d = Simd::LoadHalf(head);
    return {Simd::Mul(d, Simd::LoadSigned8(group)), Simd::Mul(d, Simd::LoadSigned8(group + kL))};
  } else if constexpr (kType == WeightType::kQ4_K || kType == WeightType::kQ5_K) {
    const Simd::F minus_dmin = Simd::Sub(Simd::Set(0), Simd::LoadHalf(head + 2 * kL));
    return {Simd::Mul(Simd::LoadHalf(head), Simd::LoadUnsigned8(group)),
            Simd::Mul(minus_dmin, Simd::LoadUnsigned8(group + kL))};
  } else if constexpr (kType == WeightType::kQ4_1 || kType == WeightType::kQ5_1) {
    return {Simd::LoadHalf(group), Simd::LoadHalf(group + 2 * kL)};
  } else {
    return {Simd::LoadHalf(group), Simd::Set(0)};
  }
}

// How far ahead of where weights are read they are asked for. Processors' own prefetching follows a
// stream of lines late or, where scales and halves of weights in planes lie apart, not at all.
constexpr int kPrefetchBytes = 8192;

template <int kBytes>
QUERN_KERNEL_INLINE void PrefetchAhead(const uint8_t* p) {
  for (int line = 0; line < kBytes; line += 64) __builtin_prefetch(p + kPrefetchBytes + line);
}

template <WeightType kType, int N>
QUERN_KERNEL_INLINE void MultiplyGroup(const uint8_t* head, const uint8_t* group,
                                       const BundleView<N>& x, Simd::F (&acc)[N]) {
  constexpr PackedLayout kLayout = LayoutOf(kType);
  constexpr bool kTwoScales = kType == WeightType::kQ6_K;
  constexpr bool kHasMin = !kTwoScales && (kLayout.scales == 4 || kLayout.head == 4);
  constexpr bool kHasOffset = kLayout.offset != 0 && !kTwoScales;
  const uint8_t* low = group + kLayout.scales * Simd::kLanes;
  const uint8_t* high = low + kLayout.low * Simd::kLanes;
  const GroupScales scales = LoadScales<kType>(head, group);

  Simd::I dots[N];
  for (int n = 0; n < N; ++n) {
    dots[n] = Simd::Zero();
    // (q - offset) x = q x + offset * -(sum of x), exactly.
    if constexpr (kHasOffset) {
      dots[n] = Simd::template ShiftLeft32 < kLayout.offset == 8
                    ? 3
                    : 4 > (Simd::Broadcast32(x.neg_sum + n));
    }
  }
  DotPairs<kType, N, 0>(low, high, x.q, dots, std::make_integer_sequence<int, 8>());
  if constexpr (kTwoScales) {
    for (int n = 0; n < N; ++n) {
      const Simd::F dot = Simd::Mul(Simd::ToFloat(dots[n]), Simd::Set(x.scale[n]));
      acc[n] = Simd::Fma(scales.scale, dot, acc[n]);
      dots[n] = Simd::Zero();
    }
  }
  DotPairs<kType, N, 8>(low, high, x.q, dots, std::make_integer_sequence<int, 8>());
  for (int n = 0; n < N; ++n) {
    const Simd::F dot = Simd::Mul(Simd::ToFloat(dots[n]), Simd::Set(x.scale[n]));
    acc[n] = Simd::Fma(kTwoScales ? scales.second : scales.scale, dot, acc[n]);
    if constexpr (kHasMin) acc[n] = Simd::Fma(scales.second, Simd::Set(x.sum[n]), acc[n]);
  }
}

template <WeightType kType, int N>
void MultiplyTile(const uint8_t* tile, int64_t cols, BundleView<N> x, float* y, int64_t y_stride) {
  constexpr PackedLayout kLayout = LayoutOf(kType);
  Simd::F acc[N];
  for (int n = 0; n < N; ++n) acc[n] = Simd::Set(0);
  for (int64_t k = 0; k < cols; k += 32 * kLayout.groups) {
    const uint8_t* head = tile;
    tile += kLayout.head * Simd::kLanes;
    for (int g = 0; g < kLayout.groups; ++g) {
      PrefetchAhead<GroupBytes(kType) * Simd::kLanes>(tile);
      MultiplyGroup<kType, N>(head, tile, x, acc);
      tile += GroupBytes(kType) * Simd::kLanes;
      x.q += 32 * N;
      x.scale += N;
      x.sum += N;
      x.neg_sum += N;
    }
  }
  for (int n = 0; n < N; ++n) Simd::StoreF(y + n * y_stride, acc[n]);
}

// Four column pairs of a group in planes, from its v-th vectors: each q + 128 in 16-bit lanes.
struct FourPairs {
  Simd::I w[4];
};
QUERN_KERNEL_INLINE FourPairs JoinPlanes(const uint8_t* high, const uint8_t* low, int v) {
  const Simd::I u = Simd::Load(high + v * 4 * Simd::kLanes);
  const Simd::I l = Simd::Load(low + v * 4 * Simd::kLanes);
  // Two at a time, in bytes.
  const Simd::I even =
      Simd::JoinNibbles(Simd::template ShiftLeft16<4>(u), Simd::template ShiftRight16<4>(l));
  const Simd::I odd = Simd::JoinNibbles(u, l);
  return {{Simd::Mask16(even, 0xff), Simd::Mask16(odd, 0xff), Simd::template ShiftRight16<8>(even),
           Simd::template ShiftRight16<8>(odd)}};
}

// Adds the products of a group in planes to the sums, which begin with -128 times the activations'.
template <int N>
QUERN_KERNEL_INLINE void DotPlanes(const uint8_t* high, const uint8_t* low, const int16_t* q,
                                   Simd::I (&dots)[N]) {
  // With 16 registers, the sums of many rows leave none to join in.
  constexpr bool kThroughMemory = N >= 4 && Simd::kLanes == 8;
  if constexpr (kThroughMemory) {
    Simd::I pairs[16];
    for (int v = 0; v < 4; ++v) {
      const FourPairs four = JoinPlanes(high, low, v);
      for (int i = 0; i < 4; ++i) pairs[4 * v + i] = four.w[i];
    }
    asm volatile("" : : "r"(pairs) : "memory");  // else GCC keeps some in registers, and sums not
    for (int s = 0; s < 16; ++s) {
      for (int n = 0; n < N; ++n) {
        dots[n] = Simd::DotAdd16(dots[n], pairs[s], Simd::Broadcast32(q + (s * N + n) * 2));
      }
    }
  } else {
    for (int v = 0; v < 4; ++v) {
      const FourPairs four = JoinPlanes(high, low, v);
      for (int i = 0; i < 4; ++i) {
        for (int n = 0; n < N; ++n) {
          dots[n] =
              Simd::DotAdd16(dots[n], four.w[i], Simd::Broadcast32(q + ((4 * v + i) * N + n) * 2));
        }
      }
    }
  }
}

// Of a Q8_0 tile in planes: the same bits as MultiplyTile gives of one that is not.
template <int N>
void MultiplyPlanesTile(const uint8_t* scales, const uint8_t* low, int64_t cols, BundleView<N> x,
                        float* y, int64_t y_stride) {
  constexpr int kGroup = 16 * Simd::kLanes;
  const int64_t groups = cols / 32;
  const uint8_t* high = scales + groups * 2 * Simd::kLanes;
  const uint8_t* first_part = scales;  // scales and upper halves, one after the other
  Simd::F acc[N];
  for (int n = 0; n < N; ++n) acc[n] = Simd::Set(0);
  for (int64_t g = 0; g < groups; ++g) {
    PrefetchAhead<18 * Simd::kLanes>(first_part + g * 18 * Simd::kLanes);
    PrefetchAhead<kGroup>(low);
    Simd::I dots[N];
    for (int n = 0; n < N; ++n) {
      dots[n] = Simd::template ShiftLeft32<7>(Simd::Broadcast32(x.neg_sum + n));
    }
    DotPlanes<N>(high, low, x.q, dots);
    const Simd::F scale = Simd::LoadHalf(scales);
    for (int n = 0; n < N; ++n) {
      const Simd::F dot = Simd::Mul(Simd::ToFloat(dots[n]), Simd::Set(x.scale[n]));
      acc[n] = Simd::Fma(scale, dot, acc[n]);
    }
    scales += 2 * Simd::kLanes;
    high += kGroup;
    low += kGroup;
    x.q += 32 * N;
    x.scale += N;
    x.neg_sum += N;
  }
  for (int n = 0; n < N; ++n) Simd::StoreF(y + n * y_stride, acc[n]);
}

template <WeightType kType>
QUERN_KERNEL_INLINE Simd::F LoadFloatWeights(const uint8_t* p) {
  if constexpr (kType == WeightType::kF32) return Simd::LoadF(reinterpret_cast<const float*>(p));
  if constexpr (kType == WeightType::kF16) return Simd::LoadHalf(p);
  return Simd::LoadBf16(p);
}

// Float weights times float activations. One sum whatever N is: a row must have the same bits in
// every batch.
template <WeightType kType, int N>
void MultiplyFloatTile(const uint8_t* tile, int64_t cols, const float* x, int64_t x_stride,
                       float* y, int64_t y_stride) {
  constexpr int kStep = (kType == WeightType::kF32 ? 4 : 2) * Simd::kLanes;
  Simd::F acc[N];
  for (int n = 0; n < N; ++n) acc[n] = Simd::Set(0);
  for (int64_t k = 0; k < cols; ++k, tile += kStep) {
    const Simd::F w = LoadFloatWeights<kType>(tile);
    for (int n = 0; n < N; ++n) acc[n] = Simd::Fma(w, Simd::Set(x[n * x_stride + k]), acc[n]);
  }
  for (int n = 0; n < N; ++n) Simd::StoreF(y + n * y_stride, acc[n]);
}

template <int N>
BundleView<N> BundleAt(const QuantizedActivations& x, int64_t row) {
  const int64_t group = row * (x.cols / 32);
  return {x.q + row * x.cols, x.scale + group, x.sum + group, x.neg_sum + group};
}

template <WeightType kType, int N>
void MultiplyBundle(const MatMulArgs& args, int64_t tile, int64_t row, float* y, int64_t y_stride) {
  const PackedMatrix& w = *args.weight;
  if constexpr (kType == WeightType::kQ8_0) {
    if (w.planes) {
      return MultiplyPlanesTile<N>(w.data + w.high_offset(tile), w.data + w.low_offset(tile),
                                   w.cols, BundleAt<N>(*args.quantized, row), y, y_stride);
    }
  }
  const uint8_t* data = w.data + tile * PackedTileBytes(kType, Simd::kLanes, w.cols);
  if constexpr (IsFloatType(kType)) {
    MultiplyFloatTile<kType, N>(data, w.cols, args.x + row * args.x_stride, args.x_stride, y,
                                y_stride);
  } else {
    MultiplyTile<kType, N>(data, w.cols, BundleAt<N>(*args.quantized, row), y, y_stride);
  }
}

template <WeightType kType>
void MultiplyBundleOf(int n, const MatMulArgs& args, int64_t tile, int64_t row, float* y,
                      int64_t y_stride) {
  switch (n) {
    case 8:
      return MultiplyBundle<kType, 8>(args, tile, row, y, y_stride);
    case 4:
      return MultiplyBundle<kType, 4>(args, tile, row, y, y_stride);
    case 2:
      return MultiplyBundle<kType, 2>(args, tile, row, y, y_stride);
    default:
      return MultiplyBundle<kType, 1>(args, tile, row, y, y_stride);
  }
}

template <WeightType kType>
void MatMulOf(const MatMulArgs& args, int64_t tile_begin, int64_t tile_end) {
  const PackedMatrix& weight = *args.weight;
  for (int64_t pass = 0; pass < args.rows; pass += kRowsPerPass) {
    const int64_t pass_end = pass + kRowsPerPass < args.rows ? pass + kRowsPerPass : args.rows;
    for (int64_t tile = tile_begin; tile < tile_end; ++tile) {
      const int64_t column = tile * Simd::kLanes;
      const int64_t valid = weight.rows - column;
      for (int64_t row = pass; row < pass_end;) {
        const int n = BundleRows(row, args.rows);
        float* y = args.y + row * args.y_stride + column;
        if (valid >= Simd::kLanes) {
          MultiplyBundleOf<kType>(n, args, tile, row, y, args.y_stride);
        } else {
          float whole[8 * Simd::kLanes];
          MultiplyBundleOf<kType>(n, args, tile, row, whole, Simd::kLanes);
          for (int i = 0; i < n; ++i) {
            for (int64_t c = 0; c < valid; ++c)
              y[i * args.y_stride + c] = whole[i * Simd::kLanes + c];
          }
        }
        row += n;
      }
    }
  }
}

void MatMul(const MatMulArgs& args, int64_t tile_begin, int64_t tile_end) {
  switch (args.weight->type) {
    case WeightType::kF32:
      return MatMulOf<WeightType::kF32>(args, tile_begin, tile_end);
    case WeightType::kF16:
      return MatMulOf<WeightType::kF16>(args, tile_begin, tile_end);
    case WeightType::kBF16:
      return MatMulOf<WeightType::kBF16>(args, tile_begin, tile_end);
    case WeightType::kQ4_0:
      return MatMulOf<WeightType::kQ4_0>(args, tile_begin, tile_end);
    case WeightType::kQ4_1:
      return MatMulOf<WeightType::kQ4_1>(args, tile_begin, tile_end);
    case WeightType::kQ5_0:
      return MatMulOf<WeightType::kQ5_0>(args, tile_begin, tile_end);
    case WeightType::kQ5_1:
      return MatMulOf<WeightType::kQ5_1>(args, tile_begin, tile_end);
    case WeightType::kQ8_0:
      return MatMulOf<WeightType::kQ8_0>(args, tile_begin, tile_end);
    case WeightType::kQ4_K:
      return MatMulOf<WeightType::kQ4_K>(args, tile_begin, tile_end);
    case WeightType::kQ5_K:
      return MatMulOf<WeightType::kQ5_K>(args, tile_begin, tile_end);
    case WeightType::kQ6_K:
      return MatMulOf<WeightType::kQ6_K>(args, tile_begin, tile_end);
  }
}

}  // namespace
}  // namespace quern::kernels
