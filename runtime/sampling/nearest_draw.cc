#include "runtime/sampling/nearest_draw.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <limits>

#include "runtime/sampling/chunk_draw.h"
#include "runtime/sampling/philox.h"

namespace quern {
namespace {

constexpr size_t kPassChunks = 64;
// Of the whole weight: more than the sums of two passes differ by in rounding.
constexpr double kRounding = 1e-5;

}  // namespace

void NearestDraw::MeasureAboutMax(const Distribution& of) {
  chunk_sum_.resize(NumScanChunks(of.logits.size()));
  scan_.ChunkSumExp(of.logits, of.max, of.inverse_temperature, chunk_sum_);
  SumThroughChunks(chunk_sum_, weight_through_);
  centre_ = of.max;
}

void NearestDraw::MeasureAboutMean(const Distribution& of) {
  chunk_sum_.resize(NumScanChunks(of.logits.size()));
  chunk_moment_.resize(chunk_sum_.size());
  scan_.ChunkMoments(of.logits, of.max, of.inverse_temperature, chunk_sum_, chunk_moment_);
  SumThroughChunks(chunk_sum_, weight_through_);
  centre_ = static_cast<float>(of.max + SumOfChunks(chunk_moment_) / weight_through_.back());
}

std::optional<int32_t> NearestDraw::Draw(const Distribution& of, double share, uint64_t seed,
                                         uint64_t position) {
  const double total = weight_through_.back();
  Rank refused{std::numeric_limits<float>::infinity(), std::numeric_limits<int32_t>::max()};
  for (uint32_t draw = 0; draw < kMostDraws; ++draw) {
    const double target = UniformAt(seed, position, draw) * total;
    const int32_t id =
        DrawByChunks(scan_, of.logits, weight_through_, of.max, of.inverse_temperature, target);
    const Rank rank{std::abs(of.logits[static_cast<size_t>(id)] - centre_), id};
    if (!(rank < refused)) continue;  // what comes after a refused one is, too
    if (Keeps(of, rank, share * total)) return id;
    refused = rank;
  }
  return std::nullopt;
}

bool NearestDraw::Keeps(const Distribution& of, const Rank& rank, double mass) {
  // As near and of a lower id comes before. Not a denormal: a processor may take it for 0.
  const float beyond =
      std::max(std::numeric_limits<float>::min(),
               std::nextafter(rank.distance, std::numeric_limits<float>::infinity()));
  const double total = weight_through_.back();
  const double margin = kRounding * total;
  const size_t own = static_cast<size_t>(rank.id) / kScanChunk;
  double nearer = SumBeforeInOwnChunk(of, rank);
  for (size_t chunk = 0; chunk < chunk_sum_.size();) {
    const size_t end = std::min(chunk + kPassChunks, chunk_sum_.size());
    nearer += SumNear(of, chunk, std::min(end, own), beyond);
    nearer += SumNear(of, std::max(chunk, own + 1), end, rank.distance);
    chunk = end;
    const double rest = total - weight_through_[chunk - 1];
    if (nearer + rest + margin < mass) return true;
    if (nearer - margin > mass) return false;
  }
  return nearer < mass;
}

double NearestDraw::SumNear(const Distribution& of, size_t begin, size_t end, float reach) {
  if (begin >= end) return 0;
  const size_t first = begin * kScanChunk;
  const size_t count = std::min(end * kScanChunk, of.logits.size()) - first;
  near_.resize(end - begin);
  scan_.ChunkSumExpNear(of.logits.subspan(first, count), of.chunk_max.subspan(begin, end - begin),
                        of.max, of.inverse_temperature, centre_, reach, near_);
  return SumOfChunks(near_);
}

double NearestDraw::SumBeforeInOwnChunk(const Distribution& of, const Rank& rank) {
  const size_t first = static_cast<size_t>(rank.id) / kScanChunk * kScanChunk;
  const auto logits = of.logits.subspan(first, std::min(kScanChunk, of.logits.size() - first));
  std::array<float, kScanChunk> weights;
  scan_.Exp(logits, of.max, of.inverse_temperature, std::span(weights).first(logits.size()));
  double sum = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    const Rank other{std::abs(logits[i] - centre_), static_cast<int32_t>(first + i)};
    if (other < rank) sum += weights[i];
  }
  return sum;
}

void NearestDraw::Collect(const Distribution& of, double share, Candidates* kept) {
  const double mass = share * weight_through_.back();
  // Nearly always enough lie within e^6; else every token is taken.
  constexpr float kDepth = 6;
  const float distance = kDepth / of.inverse_temperature;
  for (const float threshold : {centre_ - distance, -std::numeric_limits<float>::infinity()}) {
    kept->Clear();
    kept->Collect(of.logits, of.chunk_max, threshold);
    kept->Weigh(scan_, of.max, of.inverse_temperature);
    if (kept->WeightWithin(centre_, distance) >= mass) break;
  }
  kept->KeepNearest(centre_, mass);
}

}  // namespace quern
