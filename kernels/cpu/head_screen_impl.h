#pragma once

#include <algorithm>
#include <limits>

#include "kernels/cpu/matmul_impl.h"
#include "quern/kernels/head_screen.h"

// The screen of an output head over one `Simd`.
namespace quern::kernels {
namespace {

// A row of activations in its bundle of n rows.
struct RowOfBundle {
  int64_t start;  // the bundle's first row
  int n;
  const int16_t* q;    // its first pair; the next is 2n on
  const float* scale;  // its first group's; the next is n on
};

RowOfBundle FindRow(const QuantizedActivations& x, int64_t row) {
  const int64_t start = BundleStartOf(row, x.rows);
  return {start, BundleRows(start, x.rows), x.q + start * x.cols + 2 * (row - start),
          x.scale + start * (x.cols / 32) + (row - start)};
}

// What a column that the matrix lacks counts as.
constexpr float kNoColumn = -std::numeric_limits<float>::infinity();

Simd::F LoadColumns(const float* y, int64_t valid) {
  if (valid >= Simd::kLanes) return Simd::LoadF(y);
  float lanes[Simd::kLanes];
  for (int i = 0; i < Simd::kLanes; ++i) lanes[i] = i < valid ? y[i] : kNoColumn;
  return Simd::LoadF(lanes);
}

void StoreColumns(float* y, int64_t valid, Simd::F values) {
  if (valid >= Simd::kLanes) return Simd::StoreF(y, values);
  float lanes[Simd::kLanes];
  Simd::StoreF(lanes, values);
  for (int64_t i = 0; i < valid; ++i) y[i] = lanes[i];
}

// Four column pairs of a group, its V-th vector: of the upper halves.
template <int V>
QUERN_KERNEL_INLINE Simd::I DotUpper(const uint8_t* high, const int16_t* q, int n, Simd::I dot) {
  const Simd::I u = Simd::Load(high + V * 4 * Simd::kLanes);
  const int16_t* at = q + 4 * V * 2 * n;
  dot = Simd::DotAdd16(dot, Simd::Mask16(u, 0xf), Simd::Broadcast32(at));
  dot = Simd::DotAdd16(dot, Simd::Mask16(Simd::template ShiftRight16<4>(u), 0xf),
                       Simd::Broadcast32(at + 2 * n));
  dot = Simd::DotAdd16(dot, Simd::Mask16(Simd::template ShiftRight16<8>(u), 0xf),
                       Simd::Broadcast32(at + 4 * n));
  return Simd::DotAdd16(dot, Simd::template ShiftRight16<12>(u), Simd::Broadcast32(at + 6 * n));
}

// The same of the lower halves, which lie the other way round in each byte.
template <int V>
QUERN_KERNEL_INLINE Simd::I DotLower(const uint8_t* low, const int16_t* q, int n, Simd::I dot) {
  const Simd::I l = Simd::Load(low + V * 4 * Simd::kLanes);
  const int16_t* at = q + 4 * V * 2 * n;
  dot = Simd::DotAdd16(dot, Simd::Mask16(l, 0xf), Simd::Broadcast32(at + 2 * n));
  dot = Simd::DotAdd16(dot, Simd::Mask16(Simd::template ShiftRight16<4>(l), 0xf),
                       Simd::Broadcast32(at));
  dot = Simd::DotAdd16(dot, Simd::Mask16(Simd::template ShiftRight16<8>(l), 0xf),
                       Simd::Broadcast32(at + 6 * n));
  return Simd::DotAdd16(dot, Simd::template ShiftRight16<12>(l), Simd::Broadcast32(at + 4 * n));
}

void Screen(const ScreenArgs& args, int64_t tile_begin, int64_t tile_end) {
  constexpr int kLanes = Simd::kLanes;
  const PackedMatrix& w = *args.weight;
  const int64_t groups = w.cols / 32;
  const RowOfBundle x = FindRow(*args.quantized, args.row);
  for (int64_t tile = tile_begin; tile < tile_end; ++tile) {
    const uint8_t* scales = w.data + w.high_offset(tile);
    const uint8_t* high = scales + groups * 2 * kLanes;
    const uint8_t* first_part = scales;
    Simd::F bound = Simd::Set(0);
    Simd::F half_range = Simd::Set(0);
    for (int64_t g = 0; g < groups; ++g) {
      PrefetchAhead<18 * kLanes>(first_part + g * 18 * kLanes);
      const int16_t* q = x.q + 32 * g * x.n;
      // Two sums, as each waits for itself.
      Simd::I dot = DotUpper<0>(high, q, x.n, Simd::Zero());
      Simd::I other = DotUpper<1>(high, q, x.n, Simd::Zero());
      dot = DotUpper<2>(high, q, x.n, dot);
      other = DotUpper<3>(high, q, x.n, other);
      const Simd::I sixteenfold = Simd::template ShiftLeft32<4>(Simd::Add32(dot, other));
      const Simd::I greatest =
          Simd::Add32(sixteenfold, Simd::Broadcast32(args.bounds.greatest + g));
      const Simd::F d = Simd::LoadHalf(scales);
      bound = Simd::Fma(d, Simd::Mul(Simd::ToFloat(greatest), Simd::Set(x.scale[g * x.n])), bound);
      half_range = Simd::Fma(d, Simd::Set(args.bounds.half_range[g]), half_range);
      scales += 2 * kLanes;
      high += 16 * kLanes;
    }
    const int64_t column = tile * kLanes;
    StoreColumns(args.y + column, w.rows - column, bound);
    args.estimate[tile] = Simd::MaxOf(Simd::Sub(bound, half_range));
  }
}

// The whole product of a tile, of the one row.
void MultiplyRow(const ScreenArgs& args, const RowOfBundle& x, int64_t tile) {
  float whole[8 * Simd::kLanes];
  const MatMulArgs product{args.weight, args.quantized, nullptr, 0, 0, nullptr, 0};
  MultiplyBundleOf<WeightType::kQ8_0>(x.n, product, tile, x.start, whole, Simd::kLanes);
  const int64_t column = tile * Simd::kLanes;
  StoreColumns(args.y + column, args.weight->rows - column,
               Simd::LoadF(whole + (args.row - x.start) * Simd::kLanes));
  args.estimate[tile] = kTileDone;
}

// Bounds of a tile's columns with the lower halves of group g read.
Simd::F RefineTile(const ScreenArgs& args, const RowOfBundle& x, int64_t tile, int64_t g,
                   Simd::F bound) {
  constexpr int kLanes = Simd::kLanes;
  const PackedMatrix& w = *args.weight;
  const uint8_t* scales = w.data + w.high_offset(tile) + g * 2 * kLanes;
  const uint8_t* low = w.data + w.low_offset(tile) + g * 16 * kLanes;
  const int16_t* q = x.q + 32 * g * x.n;
  // Four sums: what is next hangs on when they are there.
  const Simd::I first =
      Simd::Add32(DotLower<0>(low, q, x.n, Simd::Zero()), DotLower<1>(low, q, x.n, Simd::Zero()));
  const Simd::I last =
      Simd::Add32(DotLower<2>(low, q, x.n, Simd::Zero()), DotLower<3>(low, q, x.n, Simd::Zero()));
  const int32_t least = -args.bounds.low_greatest[g];
  const Simd::I change =  // never above 0
      Simd::Add32(Simd::Add32(first, last), Simd::Broadcast32(&least));
  return Simd::Fma(Simd::LoadHalf(scales),
                   Simd::Mul(Simd::ToFloat(change), Simd::Set(x.scale[g * x.n])), bound);
}

void Prefetch(const PackedMatrix& w, int64_t tile, int64_t g) {
  const uint8_t* low = w.data + w.low_offset(tile) + g * 16 * Simd::kLanes;
  for (int line = 0; line < 16 * Simd::kLanes; line += 64) __builtin_prefetch(low + line);
  __builtin_prefetch(w.data + w.high_offset(tile) + g * 2 * Simd::kLanes);
}

int64_t FinishAll(const RefineArgs& args, const RowOfBundle& x, int64_t tile_begin,
                  int64_t tile_end) {
  for (int64_t tile = tile_begin; tile < tile_end; ++tile) MultiplyRow(args.screen, x, tile);
  const PackedMatrix& w = *args.screen.weight;
  return (tile_end - tile_begin) * (w.high_tile_bytes() + w.low_tile_bytes());
}

// Tiles that are refined together, a group of all before the next; and how many of them ahead what
// a tile will read is asked for.
constexpr int64_t kRefinedTogether = 256;
constexpr int64_t kTilesAhead = 12;

// Tiles in the course of their refinement.
struct RefinedTiles {
  int64_t count = 0;
  int64_t tiles[kRefinedTogether];
  float bounds[kRefinedTogether * Simd::kLanes];
};

// Lists the tiles with a bound that reaches the threshold, and drops all columns for now.
void ListTiles(const RefineArgs& args, int64_t tile_begin, int64_t tile_end, RefinedTiles* list) {
  const PackedMatrix& w = *args.screen.weight;
  for (int64_t tile = tile_begin; tile < tile_end; ++tile) {
    if (args.screen.estimate[tile] == kTileDone) continue;
    const int64_t column = tile * Simd::kLanes;
    float* y = args.screen.y + column;
    const int64_t valid = w.rows - column;
    const Simd::F bound = LoadColumns(y, valid);
    StoreColumns(y, valid, Simd::Set(kNotAmongGreatest));
    list->tiles[list->count] = tile;
    Simd::StoreF(list->bounds + list->count * Simd::kLanes, bound);
    list->count += Simd::MaxOf(bound) >= args.threshold ? 1 : 0;
  }
}

int64_t RefineSome(const RefineArgs& args, const RowOfBundle& x, int64_t tile_begin,
                   int64_t tile_end) {
  const ScreenArgs& screen = args.screen;
  const PackedMatrix& w = *screen.weight;
  const int64_t groups = w.cols / 32;
  const float least = args.threshold - args.margin;
  RefinedTiles list;
  ListTiles(args, tile_begin, tile_end, &list);
  int64_t bytes = 0;
  for (int64_t i = 0; i < groups && list.count > 0; ++i) {
    const int32_t group = args.order[i];
    bytes += list.count * 18 * Simd::kLanes;
    for (int64_t j = 0; j < std::min(list.count, kTilesAhead); ++j) {
      Prefetch(w, list.tiles[j], group);
    }
    // No branch on what comes out: it is hard to foretell, and late to be known.
    int64_t kept = 0;
    for (int64_t j = 0; j < list.count; ++j) {
      if (j + kTilesAhead < list.count) Prefetch(w, list.tiles[j + kTilesAhead], group);
      const int64_t tile = list.tiles[j];
      const Simd::F bound =
          RefineTile(screen, x, tile, group, Simd::LoadF(list.bounds + j * Simd::kLanes));
      list.tiles[kept] = tile;
      Simd::StoreF(list.bounds + kept * Simd::kLanes, bound);
      kept += Simd::MaxOf(bound) >= least ? 1 : 0;
    }
    list.count = kept;
  }
  for (int64_t j = 0; j < list.count; ++j) MultiplyRow(screen, x, list.tiles[j]);
  return bytes + list.count * (w.high_tile_bytes() + w.low_tile_bytes());
}

int64_t Refine(const RefineArgs& args, int64_t tile_begin, int64_t tile_end) {
  const RowOfBundle x = FindRow(*args.screen.quantized, args.screen.row);
  if (args.threshold == kNoColumn) return FinishAll(args, x, tile_begin, tile_end);
  int64_t bytes = 0;
  for (int64_t tile = tile_begin; tile < tile_end; tile += kRefinedTogether) {
    const int64_t end = std::min(tile_end, tile + kRefinedTogether);
    bytes += RefineSome(args, x, tile, end);
  }
  return bytes;
}

}  // namespace
}  // namespace quern::kernels
