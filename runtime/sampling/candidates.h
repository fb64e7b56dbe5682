#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "runtime/sampling/logit_scan.h"

namespace quern {

// The tokens that are still in the draw, in order of their ids: parallel arrays of ids, logits and
// weights. Tokens rank by logit, and by id among equals (the lower first), so that every cut is
// exact and the same each time. Buffers are kept between uses. Not thread-safe.
class Candidates {
 public:
  void Clear();
  // Appends every token whose logit is at least `threshold`; `chunk_max` as of LogitScan::ChunkMax.
  void Collect(std::span<const float> logits, std::span<const float> chunk_max, float threshold);
  // A logit that the `k` greatest all reach, k at least 1: the k-th greatest chunk maximum, as k
  // chunks hold a logit of at least that; -infinity where there are fewer chunks.
  float ReachedByTopK(std::span<const float> chunk_max, size_t k);
  // Weights each: exp((logit - max) * inverse_temperature). Before all below but KeepTopK.
  void Weigh(const LogitScan& scan, float max, float inverse_temperature);

  // Keeps the `k` that rank first; k at least 1. O(size) on average.
  void KeepTopK(size_t k);
  // Keeps the fewest that rank first and whose weights sum to at least `mass`; all, if all together
  // do not.
  void KeepTopP(double mass);
  // Keeps the fewest whose logits are nearest to `logit` and whose weights sum to at least `mass`;
  // all, if all together do not. Of two equally near ones, the lower id first.
  void KeepNearest(float logit, double mass);

  double TotalWeight() const;
  double WeightWithin(float logit, float distance) const;
  // Of the logits, by weight; at least one weight is not 0.
  double MeanLogit() const;
  // The id at which the running sum of weights, by id, first exceeds u * TotalWeight(); u in [0,
  // 1).
  int32_t Pick(double u) const;

  size_t size() const { return ids_.size(); }
  std::span<const int32_t> ids() const { return ids_; }

 private:
  struct Ranked {
    float logit;  // or what else they are ranked by, the greatest first
    int32_t id;
    float weight;
  };

  // A type and not a function, so that it is compiled into what selects with it.
  struct RanksBefore {
    bool operator()(const Ranked& a, const Ranked& b) const {
      return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
    }
  };
  // Fills ranked_ with candidates among which is the last to keep: the first by rank, such that its
  // and all earlier ones' amounts reach `target`; or the very last if they do not. Returns the
  // amount that ranks before all of ranked_. Large sets are first split into buckets by logit, of
  // which only one is left.
  // `key(logit)` is what tokens are ranked by, the greatest first.
  template <typename Amount, typename Key>
  double FillRanked(double target, const Amount& amount, const Key& key);
  // The place in ranked_ of the first by rank whose and all earlier ones' weights, and `before`,
  // reach `mass`; of the last if they do not. Orders ranked_ as far as it must.
  size_t SelectByWeight(double before, double mass);
  // Drops what ranks after `last`.
  template <typename Key>
  void KeepUpTo(const Ranked& last, const Key& key);

  std::vector<int32_t> ids_;
  std::vector<float> logits_;
  std::vector<float> weights_;  // as long as ids_ once weighed, else empty
  std::vector<double> buckets_;
  std::vector<Ranked> ranked_;     // scratch of the cuts
  std::vector<float> top_maxima_;  // scratch of ReachedByTopK
};

}  // namespace quern
