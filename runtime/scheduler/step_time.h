#pragma once

#include <array>
#include <cstdint>
#include <vector>

namespace quern {

struct SchedulerLimits;
struct SchedulerState;

// What a step computes, as far as its time depends on it.
struct StepShape {
  int32_t decode_sequences = 0;
  // Of a chunk that goes through some of the layers only: as much less, here and below.
  double prefill_tokens = 0;
  // Tokens that the step's tokens look back at, their own included, summed over them.
  int64_t attended_tokens = 0;
  // Tokens that are loaded for that: each sequence's once, however many of its tokens look back.
  int64_t loaded_tokens = 0;
};

// Seconds that each part of a step takes; none is negative.
struct StepTimeCoefficients {
  double base = 0;  // of any step: the weights are read once
  double per_decode_sequence = 0;
  double per_prefill_token = 0;
  double per_attended_token = 0;
  double per_loaded_token = 0;

  double Predict(const StepShape& shape) const;
};

// Learns how long steps take from those that ran: a non-negative least-squares fit of five
// coefficients to the relative error. Steps are kept as running means in buckets of like shape, so
// that what was learned of one shape stays known while only others run (forgetting goes by use, not
// by time), and a burst of equal steps does not outweigh the rest. Pure: times are passed in.
// O(number of buckets), at most some hundred, per step. Not thread-safe.
class StepTimeModel {
 public:
  // `seconds` not above 0 (a clock that stood still) are ignored.
  void Observe(const StepShape& shape, double seconds);

  // Whether enough different steps ran to tell prefill from decode.
  bool ready() const { return decode_steps_ >= kLeastSteps && prefill_steps_ >= kLeastSteps; }
  // The fit to everything observed so far; all 0 before the first step.
  const StepTimeCoefficients& fit() const { return fit_; }
  // Mean of |predicted - observed| / observed over recent steps, each predicted before it was
  // learned from. 0 until ready().
  double error_ratio() const { return error_ratio_; }

 private:
  static constexpr int kTerms = 5;
  static constexpr int kLeastSteps = 4;
  using Terms = std::array<double, kTerms>;

  struct Bucket {
    Terms terms{};  // mean
    double seconds = 0;
    int64_t count = 0;
  };

  static Terms TermsOf(const StepShape& shape);
  Bucket& BucketOf(const StepShape& shape);
  void Fit();

  std::vector<Bucket> buckets_;
  StepTimeCoefficients fit_;
  int64_t decode_steps_ = 0;   // without prefill tokens
  int64_t prefill_steps_ = 0;  // with some
  double error_ratio_ = 0;
};

// What a prompt that is being read may cost those that stream.
struct PrefillPressure {
  int32_t decoding = 0;         // sequences that stream
  int32_t prefilling = 0;       // sequences whose prompts are read, or would be if places allowed
  int64_t decode_context = 0;   // tokens in the caches of those that stream
  int64_t prefill_context = 0;  // tokens in the cache of the prompt that is next
};

PrefillPressure PressureOf(const SchedulerState& state, const SchedulerLimits& limits);

// What is fitted is how long steps take in the mean; for nearly all of them to keep within a bound,
// the mean must be below it: of what a step may take longer, it takes so much.
inline constexpr double kMeanOfExcess = 0.95;

// Prefill tokens that a step may have: so many that it takes at most `slowdown` times as long as
// with the decodes alone, in the mean kMeanOfExcess of what that is more. Where more requests wait
// for their prompts than stream, these may add up to the square of the one over the other times
// what the decodes take, for then the batch is filled sooner, which serves all. Between `least` (a
// prompt always advances) and `most`, which is the answer too when nothing streams.
int32_t PrefillBudget(const StepTimeCoefficients& times, const PrefillPressure& pressure,
                      double slowdown, int32_t least, int32_t most);

// A chunk that goes through `layers` of the layers in each step (SchedulerLimits::layered_tokens).
struct LayeredChunk {
  int32_t tokens = 0;  // 0: ordinary chunks bring a prompt as far
  int32_t layers = 0;
  int32_t load_tokens = 0;
};

struct LayeredBounds {
  int32_t ordinary_tokens;  // what PrefillBudget gave
  int32_t least, most;      // tokens a step, as there; tokens of a chunk
  int32_t layers;           // of the model: taken to cost the same
  bool goes_on = false;     // one is on its way: to be told of even where none would begin
};

// By PrefillBudget's bound, a chunk of some kLayeredTokens, with which a step's part fills what the
// step may take longer. None where ordinary chunks are nearly as good: their contexts are short, or
// they are large.
inline constexpr int32_t kLayeredTokens = 64;
LayeredChunk LayeredChunkFor(const StepTimeCoefficients& times, const PrefillPressure& pressure,
                             double slowdown, const LayeredBounds& bounds);

}  // namespace quern
