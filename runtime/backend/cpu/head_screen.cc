#include "runtime/backend/cpu/head_screen.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>

namespace quern {
namespace {

// Tiles of which all rows' bounds are taken before the next ones': they stay in the L2 cache.
constexpr int64_t kTilesAtOnce = 16;
// Promising tiles that are computed beyond those that are needed: a better threshold for little.
constexpr int64_t kMoreTiles = 7;

// Four ranges a thread.
int64_t Grain(int64_t tiles, const ThreadPool& pool) {
  return (tiles + 4 * pool.threads() - 1) / (4 * pool.threads());
}

}  // namespace

std::vector<float> GreatestScales(const kernels::PackedMatrix& matrix, ThreadPool& pool) {
  const auto groups = static_cast<size_t>(matrix.cols / 32);
  const auto threads = static_cast<size_t>(pool.threads());
  std::vector<float> greatest(groups * threads, 0.0f);
  std::atomic<bool> fits = true;
  pool.ParallelFor(matrix.tiles(), Grain(matrix.tiles(), pool),
                   [&](int64_t begin, int64_t end, int thread) {
                     float* own = greatest.data() + groups * static_cast<size_t>(thread);
                     if (!kernels::RaiseGreatestScales(matrix, matrix.data, begin, end, own))
                       fits = false;
                   });
  if (!fits) return {};
  for (size_t i = groups; i < greatest.size(); ++i) {
    greatest[i % groups] = std::max(greatest[i % groups], greatest[i]);
  }
  greatest.resize(groups);
  return greatest;
}

bool HeadScreen::Takes(const CpuMatrix& head, int64_t rows, std::span<const int32_t> ranks) {
  return rows > 0 && rows <= kMostRows && std::ssize(ranks) == rows &&
         !head.greatest_scales().empty() && std::ranges::all_of(ranks, [&](int32_t rank) {
           return rank > 0 && rank <= kMostRank && rank < head.rows();
         });
}

bool HeadScreen::Prepare(const CpuMatrix& head, const kernels::QuantizedActivations& x, int64_t at,
                         int32_t rank, float* y) {
  const auto groups = static_cast<size_t>(x.cols / 32);
  Row& row = rows_[static_cast<size_t>(at)];
  row.rank = rank;
  row.greatest.resize(groups);
  row.low_greatest.resize(groups);
  row.half_range.resize(groups);
  row.estimates.resize(static_cast<size_t>(head.packed().tiles()));
  row.order.resize(groups);
  const kernels::LowHalfBounds bounds{row.greatest.data(), row.low_greatest.data(),
                                      row.half_range.data()};
  kernels::BoundLowHalves(x, at, bounds);
  row.args = {&head.packed(), &x, at, bounds, y, row.estimates.data()};

  if (!kernels::ScreenMargin(bounds, head.greatest_scales().data(), x.cols / 32, &row.margin)) {
    return false;
  }
  // What a group's lower halves may take off a bound.
  std::vector<float> range(groups);
  for (size_t g = 0; g < groups; ++g) range[g] = head.greatest_scales()[g] * row.half_range[g];
  std::iota(row.order.begin(), row.order.end(), 0);
  std::ranges::sort(row.order, [&](int32_t a, int32_t b) {
    return range[static_cast<size_t>(a)] > range[static_cast<size_t>(b)];
  });
  return true;
}

bool HeadScreen::Run(const CpuMatrix& head, const kernels::QuantizedActivations& x,
                     std::span<const int32_t> ranks, ThreadPool& pool, float* logits) {
  if (paused_ > 0) {
    --paused_;
    return false;
  }
  const auto count = static_cast<size_t>(x.rows);
  if (rows_.size() < count) rows_.resize(count);
  for (size_t i = 0; i < count; ++i) {
    const auto row = static_cast<int64_t>(i);
    if (!Prepare(head, x, row, ranks[i], logits + row * head.rows())) return false;
  }
  const int64_t tiles = head.packed().tiles();
  pool.ParallelFor(tiles, Grain(tiles, pool), [&](int64_t begin, int64_t end, int) {
    for (int64_t first = begin; first < end; first += kTilesAtOnce) {
      const int64_t last = std::min(end, first + kTilesAtOnce);
      for (size_t i = 0; i < count; ++i) kernels_.screen(rows_[i].args, first, last);
    }
  });
  int64_t refined_bytes = 0;
  for (size_t i = 0; i < count; ++i) {
    const float threshold = FindThreshold(rows_[i], pool, &refined_bytes);
    refined_bytes += Refine(rows_[i], threshold, tiles, pool);
  }
  Account(head, x.rows, refined_bytes);
  return true;
}

void HeadScreen::Account(const CpuMatrix& head, int64_t rows, int64_t refined_bytes) {
  const int64_t high_bytes = head.packed().tiles() * head.packed().high_tile_bytes();
  reads_.rows += rows;
  reads_.whole_bytes += head.bytes();
  reads_.bytes += high_bytes + refined_bytes;
  const bool worth_it = high_bytes + kScatteredCost * refined_bytes <= head.bytes();
  if (worth_it || head.bytes() < kLargeHeadBytes) {
    pause_ = 0;
    return;
  }
  paused_ = pause_ = std::clamp(2 * pause_, 1, kLongestPause);
}

float HeadScreen::FindThreshold(Row& row, ThreadPool& pool, int64_t* bytes) {
  const kernels::PackedMatrix& w = *row.args.weight;
  const int64_t count = std::min(w.tiles(), row.rank + kMoreTiles);
  promising_.resize(static_cast<size_t>(w.tiles()));
  std::iota(promising_.begin(), promising_.end(), 0);
  std::nth_element(promising_.begin(), promising_.begin() + (count - 1), promising_.end(),
                   [&](int64_t a, int64_t b) {
                     return row.estimates[static_cast<size_t>(a)] >
                            row.estimates[static_cast<size_t>(b)];
                   });
  const kernels::RefineArgs all{row.args, row.order.data(), -std::numeric_limits<float>::infinity(),
                                0};
  pool.ParallelFor(count, 8, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t tile = promising_[static_cast<size_t>(i)];
      kernels_.refine(all, tile, tile + 1);
    }
  });
  *bytes += count * (w.high_tile_bytes() + w.low_tile_bytes());
  found_.clear();
  for (int64_t i = 0; i < count; ++i) {
    const int64_t column = promising_[static_cast<size_t>(i)] * w.lanes;
    found_.insert(found_.end(), row.args.y + column,
                  row.args.y + std::min(column + w.lanes, w.rows));
  }
  // As many columns as tiles at least, or all there are.
  std::nth_element(found_.begin(), found_.begin() + (row.rank - 1), found_.end(), std::greater<>());
  return found_[static_cast<size_t>(row.rank - 1)];
}

int64_t HeadScreen::Refine(const Row& row, float threshold, int64_t tiles, ThreadPool& pool) {
  const kernels::RefineArgs args{row.args, row.order.data(), threshold, row.margin};
  std::atomic<int64_t> bytes = 0;
  pool.ParallelFor(tiles, Grain(tiles, pool), [&](int64_t begin, int64_t end, int) {
    bytes += kernels_.refine(args, begin, end);
  });
  return bytes;
}

}  // namespace quern
