#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "runtime/sampling/candidates.h"
#include "runtime/sampling/logit_scan.h"

namespace quern {

// Locally typical sampling (Meister et al., TACL 2023) of a whole vocabulary: of the tokens whose
// surprise -ln p is nearest to its expectation H, as many as hold a share of the weight. With
// p = exp(x) / Z and x the logit by the temperature, surprise is ln Z - x and H is ln Z - E[x], so
// that the distance |surprise - H| is |x - E[x]|. Of equally near tokens the lower ids are kept.
// Keeps its buffers; not thread-safe.
class TypicalDraw {
 public:
  explicit TypicalDraw(const LogitScan& scan) : scan_(scan) {}

  // What is drawn from: `max` is the greatest of `logits`, which are finite; weights are
  // exp((logit - max) * inverse_temperature). `chunk_max` as of LogitScan::ChunkMax.
  struct Distribution {
    std::span<const float> logits;
    std::span<const float> chunk_max;
    float max;
    float inverse_temperature;
  };

  // Sums weights and logits; before the others, with the same argument.
  void Measure(const Distribution& of);
  // Draws by rejection: a token of the whole vocabulary, taken if what is nearer weighs less than
  // the share. Nothing is listed, and the pass which tells ends when the answer is certain. nullopt
  // when `kMostDraws` were refused, which is likely for small shares alone.
  std::optional<int32_t> Draw(const Distribution& of, double share, uint64_t seed,
                              uint64_t position);
  // The kept tokens themselves into `kept`, weighed.
  void Collect(const Distribution& of, double share, Candidates* kept);

  static constexpr uint32_t kMostDraws = 32;

 private:
  // Whether the tokens that come before `id`, which is so far from the mean, weigh less than
  // `mass`.
  bool Keeps(const Distribution& of, int32_t id, float distance, double mass);
  // The weight of the tokens [begin, end) whose logits are less than `reach` from the mean.
  double SumNear(const Distribution& of, size_t begin, size_t end, float reach);

  LogitScan scan_;
  std::vector<float> chunk_sum_, chunk_moment_, near_;
  double total_ = 0;
  float mean_ = 0;  // logit
};

}  // namespace quern
