#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "runtime/sampling/candidates.h"
#include "runtime/sampling/logit_scan.h"

namespace quern {

// A draw from the fewest tokens that hold a share of the whole weight (top-p), where these are so
// many that a list of them would cost more than the passes over the vocabulary. From a sample of
// the logits it estimates between which two the cut lies; one pass sums what is above, and only
// what is between is listed and ranked. The cut is the exact one: an estimate that missed it is
// noticed. Depends on the logits alone. Keeps its buffers; not thread-safe.
class SpreadNucleus {
 public:
  // Vocabularies below this are not worth an estimate.
  static constexpr size_t kLeastLogits = 8192;

  explicit SpreadNucleus(const LogitScan& scan) : scan_(scan) {}

  // What the draw is from: `max` is the greatest of `logits`, which are finite and at least
  // kLeastLogits; weights are exp((logit - max) * inverse_temperature).
  struct Distribution {
    std::span<const float> logits;
    float max;
    float inverse_temperature;
    // The tokens from this logit on are known to weigh `head_weight`; infinity and 0: none are.
    float head;
    double head_weight;
  };

  // Takes the sample; before the others, with the same argument. Returns the estimated weight of
  // all tokens below the head.
  double Sample(const Distribution& of);
  struct Drawn {
    // nullopt if the cut is in the head, or the estimate failed, as it does where all are equal.
    std::optional<int32_t> id;
    double total_weight = 0;  // of all tokens; 0: not summed yet
  };
  // The id at which the running sum of the kept tokens' weights, by id, first exceeds `u` times
  // their sum; u in [0, 1).
  Drawn Draw(const Distribution& of, double share, double u);

 private:
  struct Range {
    float low, high;
  };

  struct Sums {
    double all, above;
  };
  // The sums by chunk, and what they add up to.
  Sums Sum(std::span<const float> logits, const Distribution& of, float low, float high);
  // Leaves what is below the head and has any weight, and weighs it.
  void DropHeadOfSample(const Distribution& of);
  // Where the cut is, give or take `deviations` standard deviations.
  std::optional<Range> Estimate(const Distribution& of, double share, double deviations);
  Drawn DrawWithin(const Distribution& of, double share, double u, Range range);
  int32_t Pick(const Distribution& of, double target, float high) const;

  struct Bucket {
    double weight, square;  // sums over its part of the sample
  };

  LogitScan scan_;
  Candidates near_;            // the kept ones of those between the bounds
  std::vector<float> sample_;  // logits
  std::vector<float> sample_weights_;
  std::vector<Bucket> buckets_;
  std::vector<float> all_, above_;  // by chunk
  std::vector<uint8_t> near_groups_;
};

}  // namespace quern
