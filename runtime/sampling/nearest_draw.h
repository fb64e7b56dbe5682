#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "runtime/sampling/candidates.h"
#include "runtime/sampling/logit_scan.h"

namespace quern {

// Draws from a whole vocabulary's tokens whose logits are nearest to some logit: from as few as
// hold a share of the weight. Of equally near tokens the lower id comes first. Keeps its buffers;
// not thread-safe.
//
// Nucleus sampling (top_p) is that about the greatest logit. Locally typical sampling (Meister et
// al., TACL 2023) is that about the mean: with p = exp(x) / Z and x the logit by the temperature, a
// token's surprise -ln p is ln Z - x and its expectation ln Z - E[x], so that they differ by
// |x - E[x]|.
class NearestDraw {
 public:
  explicit NearestDraw(const LogitScan& scan) : scan_(scan) {}

  // What is drawn from: `max` is the greatest of `logits`, which are finite; weights are
  // exp((logit - max) * inverse_temperature). `chunk_max` as of LogitScan::ChunkMax. The same for
  // all calls after a Measure.
  struct Distribution {
    std::span<const float> logits;
    std::span<const float> chunk_max;
    float max;
    float inverse_temperature;
  };

  // Sums the weights; before the others. What is kept is what is nearest to the greatest logit, or
  // to their mean by weight.
  void MeasureAboutMax(const Distribution& of);
  void MeasureAboutMean(const Distribution& of);
  // Draws by rejection: a token of the whole vocabulary, taken if what comes before it weighs less
  // than the share. Nothing is listed, and the pass which tells ends when the answer is certain.
  // nullopt when `kMostDraws` were refused, which is likely for small shares alone.
  std::optional<int32_t> Draw(const Distribution& of, double share, uint64_t seed,
                              uint64_t position);
  // The kept tokens themselves into `kept`, weighed.
  void Collect(const Distribution& of, double share, Candidates* kept);

  static constexpr uint32_t kMostDraws = 256;  // each is a fraction of a microsecond

 private:
  // Where a token comes among the others.
  struct Rank {
    float distance;  // of its logit
    int32_t id;

    bool operator<(const Rank& other) const {
      return distance < other.distance || (distance == other.distance && id < other.id);
    }
  };
  // Whether the tokens that come before this one weigh less than `mass`.
  bool Keeps(const Distribution& of, const Rank& rank, double mass);
  // The weight of what is less than `reach` away in the chunks [begin, end).
  double SumNear(const Distribution& of, size_t begin, size_t end, float reach);
  // That of what comes before the token in its own chunk.
  double SumBeforeInOwnChunk(const Distribution& of, const Rank& rank);

  LogitScan scan_;
  std::vector<float> chunk_sum_, chunk_moment_, near_;
  std::vector<double> weight_through_;  // of each chunk and all before it; the last is the total
  float centre_ = 0;                    // logit
};

}  // namespace quern
