#include "runtime/sampling/typical_draw.h"

#include <algorithm>
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

void TypicalDraw::Measure(const Distribution& of) {
  chunk_sum_.resize(NumScanChunks(of.logits.size()));
  chunk_moment_.resize(chunk_sum_.size());
  scan_.ChunkMoments(of.logits, of.max, of.inverse_temperature, chunk_sum_, chunk_moment_);
  total_ = 0;
  double moment = 0;
  for (size_t chunk = 0; chunk < chunk_sum_.size(); ++chunk) {
    total_ += chunk_sum_[chunk];
    moment += chunk_moment_[chunk];
  }
  mean_ = static_cast<float>(of.max + moment / total_);
}

std::optional<int32_t> TypicalDraw::Draw(const Distribution& of, double share, uint64_t seed,
                                         uint64_t position) {
  const double mass = share * total_;
  float refused = std::numeric_limits<float>::infinity();  // from this distance on
  for (uint32_t draw = 0; draw < kMostDraws; ++draw) {
    const double u = UniformAt(seed, position, draw);
    const int32_t id =
        DrawByChunks(scan_, of.logits, chunk_sum_, of.max, of.inverse_temperature, u * total_);
    const float distance = std::abs(of.logits[static_cast<size_t>(id)] - mean_);
    if (distance > refused) continue;
    if (Keeps(of, id, distance, mass)) return id;
    refused = distance;
  }
  return std::nullopt;
}

bool TypicalDraw::Keeps(const Distribution& of, int32_t id, float distance, double mass) {
  // As near and of a lower id comes before.
  const float beyond = std::nextafter(distance, std::numeric_limits<float>::infinity());
  const double margin = kRounding * total_;
  double nearer = 0, rest = total_;
  for (size_t chunk = 0; chunk < chunk_sum_.size();) {
    const size_t end = std::min(chunk + kPassChunks, chunk_sum_.size());
    const size_t first = chunk * kScanChunk;
    const size_t last = std::min(end * kScanChunk, of.logits.size());
    const size_t split = std::clamp(static_cast<size_t>(id), first, last);
    nearer += SumNear(of, first, split, beyond) + SumNear(of, split, last, distance);
    for (; chunk < end; ++chunk) rest -= chunk_sum_[chunk];
    if (nearer + rest + margin < mass) return true;
    if (nearer - margin > mass) return false;
  }
  return nearer < mass;
}

double TypicalDraw::SumNear(const Distribution& of, size_t begin, size_t end, float reach) {
  const auto logits = of.logits.subspan(begin, end - begin);
  near_.resize(NumScanChunks(logits.size()));
  scan_.ChunkSumExpNear(logits, of.max, of.inverse_temperature, mean_, reach, near_);
  double sum = 0;
  for (const float part : near_) sum += part;
  return sum;
}

void TypicalDraw::Collect(const Distribution& of, double share, Candidates* kept) {
  const double mass = share * total_;
  // Nearly always enough lie within e^6 of the mean; else every token is taken.
  constexpr float kDepth = 6;
  const float distance = kDepth / of.inverse_temperature;
  for (const float threshold : {mean_ - distance, -std::numeric_limits<float>::infinity()}) {
    kept->Clear();
    kept->Collect(of.logits, of.chunk_max, threshold);
    kept->Weigh(scan_, of.max, of.inverse_temperature);
    if (kept->WeightWithin(mean_, distance) >= mass) break;
  }
  kept->KeepNearest(mean_, mass);
}

}  // namespace quern
