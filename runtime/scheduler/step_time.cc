#include "runtime/scheduler/step_time.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <cmath>
#include <cstddef>

#include "runtime/scheduler/scheduler.h"

namespace quern {
namespace {

// A bucket is a power of two of decodes and one of prefill tokens: up to 4,096 and 1,048,576.
constexpr size_t kDecodeBuckets = 14;
constexpr size_t kPrefillBuckets = 22;
// A bucket's mean follows its last some steps.
constexpr int64_t kMemory = 32;
// A step that took so many times its bucket's mean was held up by something else.
constexpr double kOutlier = 3;
constexpr double kErrorMemory = 64;  // steps
// Columns are scaled to about 1, so that one pivot bound serves all.
constexpr double kScales[] = {1, 1.0 / 32, 1.0 / 512, 1.0 / 65536, 1.0 / 4096};

// 0 is alone in the first; what is less than 1 is as 1.
size_t Log2Bucket(double value, size_t buckets) {
  const auto whole = value > 0 ? static_cast<uint64_t>(std::max(value, 1.0)) : 0;
  return std::min(static_cast<size_t>(std::bit_width(whole)), buckets - 1);
}

// Seconds that prompts may add to a step with the decodes alone.
double AllowedSeconds(const StepTimeCoefficients& times, const PrefillPressure& pressure,
                      double slowdown) {
  const double alone = times.Predict({.decode_sequences = pressure.decoding,
                                      .attended_tokens = pressure.decode_context,
                                      .loaded_tokens = pressure.decode_context});
  double share = (slowdown - 1) * kMeanOfExcess;
  if (pressure.prefilling > pressure.decoding) {
    const double ratio = static_cast<double>(pressure.prefilling) / pressure.decoding;
    share = std::max(share, ratio * ratio);
  }
  return share * alone;
}

// Tokens of a chunk behind `context` tokens that take so long: p of them cost p *
// per_prefill_token, load context + p and attend to p * (context + p / 2), a quadratic in p.
double TokensWithin(const StepTimeCoefficients& times, double context, double seconds,
                    double most) {
  const double allowed = std::max(0.0, seconds - times.per_loaded_token * context);
  const double linear =
      times.per_prefill_token + times.per_attended_token * context + times.per_loaded_token;
  const double square = times.per_attended_token / 2;
  // The root in the form that loses nothing where `square` is next to nothing.
  const double divisor = linear + std::sqrt(linear * linear + 4 * square * allowed);
  return divisor > 0 ? 2 * allowed / divisor : most;
}

template <size_t N>
struct NormalEquations {
  std::array<std::array<double, N>, N> a{};
  std::array<double, N> b{};
};

// Solves for the terms in `active` (a bit each), the others being 0. False where they cannot be
// told apart.
template <size_t N>
bool Solve(const NormalEquations<N>& full, unsigned active, std::array<double, N>& x) {
  std::array<size_t, N> index{};
  size_t n = 0;
  for (size_t i = 0; i < N; ++i) {
    if (active >> i & 1) index[n++] = i;
  }
  std::array<std::array<double, N + 1>, N> m{};
  for (size_t r = 0; r < n; ++r) {
    for (size_t c = 0; c < n; ++c) m[r][c] = full.a[index[r]][index[c]];
    m[r][n] = full.b[index[r]];
  }
  // Cholesky's pivots without the square roots; the matrix is symmetric and has no negative ones.
  for (size_t k = 0; k < n; ++k) {
    if (!(m[k][k] > 1e-7 * full.a[index[k]][index[k]])) return false;
    for (size_t r = k + 1; r < n; ++r) {
      const double factor = m[r][k] / m[k][k];
      for (size_t c = k; c <= n; ++c) m[r][c] -= factor * m[k][c];
    }
  }
  x.fill(0);
  for (size_t k = n; k-- > 0;) {
    double value = m[k][n];
    for (size_t c = k + 1; c < n; ++c) value -= m[k][c] * x[index[c]];
    x[index[k]] = value / m[k][k];
  }
  return true;
}

// The best non-negative solution: of five terms, every choice of those that are not 0 is tried.
template <size_t N>
std::array<double, N> SolveNonNegative(const NormalEquations<N>& equations) {
  std::array<double, N> best{};
  double best_gain = 0;
  for (unsigned active = 1; active < (1u << N); ++active) {
    std::array<double, N> x{};
    if (!Solve(equations, active, x)) continue;
    if (std::any_of(x.begin(), x.end(), [](double v) { return !(v >= 0); })) continue;
    // By how much the squared error is less than that of all zeros. Not x b alone, which it is at
    // an exact optimum: that would flatter what rounding has spoilt.
    double gain = 0;
    for (size_t i = 0; i < N; ++i) {
      gain += 2 * x[i] * equations.b[i];
      for (size_t j = 0; j < N; ++j) gain -= x[i] * equations.a[i][j] * x[j];
    }
    if (gain > best_gain * (1 + 1e-9)) {
      best_gain = gain;
      best = x;
    }
  }
  return best;
}

}  // namespace

double StepTimeCoefficients::Predict(const StepShape& shape) const {
  return base + per_decode_sequence * shape.decode_sequences +
         per_prefill_token * shape.prefill_tokens +
         per_attended_token * static_cast<double>(shape.attended_tokens) +
         per_loaded_token * static_cast<double>(shape.loaded_tokens);
}

StepTimeModel::Terms StepTimeModel::TermsOf(const StepShape& shape) {
  return {1, static_cast<double>(shape.decode_sequences) * kScales[1],
          static_cast<double>(shape.prefill_tokens) * kScales[2],
          static_cast<double>(shape.attended_tokens) * kScales[3],
          static_cast<double>(shape.loaded_tokens) * kScales[4]};
}

StepTimeModel::Bucket& StepTimeModel::BucketOf(const StepShape& shape) {
  if (buckets_.empty()) buckets_.resize(kDecodeBuckets * kPrefillBuckets);
  return buckets_[Log2Bucket(shape.decode_sequences, kDecodeBuckets) * kPrefillBuckets +
                  Log2Bucket(shape.prefill_tokens, kPrefillBuckets)];
}

void StepTimeModel::Observe(const StepShape& shape, double seconds) {
  if (!(seconds > 0)) return;
  if (ready()) {
    const double error = std::abs(fit_.Predict(shape) - seconds) / seconds;
    error_ratio_ += (error - error_ratio_) / kErrorMemory;
  }
  ++(shape.prefill_tokens > 0 ? prefill_steps_ : decode_steps_);
  Bucket& bucket = BucketOf(shape);
  if (bucket.count >= kLeastSteps) seconds = std::min(seconds, kOutlier * bucket.seconds);
  bucket.count = std::min(bucket.count + 1, kMemory);
  const double weight = 1.0 / static_cast<double>(bucket.count);
  const Terms terms = TermsOf(shape);
  for (int i = 0; i < kTerms; ++i) {
    const auto at = static_cast<size_t>(i);
    bucket.terms[at] += (terms[at] - bucket.terms[at]) * weight;
  }
  bucket.seconds += (seconds - bucket.seconds) * weight;
  Fit();
}

void StepTimeModel::Fit() {
  NormalEquations<kTerms> equations;
  for (const Bucket& bucket : buckets_) {
    if (bucket.count == 0) continue;
    const double weight = static_cast<double>(bucket.count) / (bucket.seconds * bucket.seconds);
    for (size_t r = 0; r < kTerms; ++r) {
      for (size_t c = 0; c < kTerms; ++c) {
        equations.a[r][c] += weight * bucket.terms[r] * bucket.terms[c];
      }
      equations.b[r] += weight * bucket.terms[r] * bucket.seconds;
    }
  }
  const Terms x = SolveNonNegative(equations);
  fit_ = {.base = x[0] * kScales[0],
          .per_decode_sequence = x[1] * kScales[1],
          .per_prefill_token = x[2] * kScales[2],
          .per_attended_token = x[3] * kScales[3],
          .per_loaded_token = x[4] * kScales[4]};
}

PrefillPressure PressureOf(const SchedulerState& state, const SchedulerLimits& limits) {
  PrefillPressure pressure;
  if (state.held != nullptr) pressure.prefill_context = state.held->cached_tokens;
  for (const Sequence* sequence : state.running) {
    if (sequence->decoding()) {
      ++pressure.decoding;
      pressure.decode_context += sequence->total_tokens;
    } else {
      if (pressure.prefilling == 0 && state.held == nullptr) {
        pressure.prefill_context = sequence->cached_tokens;
      }
      ++pressure.prefilling;
    }
  }
  const auto places = limits.max_sequences - static_cast<int32_t>(state.running.size());
  pressure.prefilling +=
      std::clamp(static_cast<int32_t>(state.waiting.size()), 0, std::max(0, places));
  return pressure;
}

int32_t PrefillBudget(const StepTimeCoefficients& times, const PrefillPressure& pressure,
                      double slowdown, int32_t least, int32_t most) {
  assert(least >= 1 && slowdown >= 1);
  if (pressure.decoding <= 0 || most <= least) return most;
  const double tokens = TokensWithin(times, static_cast<double>(pressure.prefill_context),
                                     AllowedSeconds(times, pressure, slowdown), most);
  return static_cast<int32_t>(std::clamp<double>(tokens, least, most));
}

LayeredChunk LayeredChunkFor(const StepTimeCoefficients& times, const PrefillPressure& pressure,
                             double slowdown, const LayeredBounds& bounds) {
  if (pressure.decoding <= 0) return {};
  if (bounds.ordinary_tokens >= kLayeredTokens && !bounds.goes_on) return {};
  const auto context = static_cast<double>(pressure.prefill_context);
  const double allowed = AllowedSeconds(times, pressure, slowdown);
  const double per_token = times.per_prefill_token + times.per_attended_token * context;
  const double load = times.per_loaded_token * context;
  const double whole = load + kLayeredTokens * per_token;
  if (!(allowed > 0) || !(per_token > 0)) return {};
  // As many steps as kLayeredTokens take; then as many tokens as fill these.
  const double steps = std::clamp<double>(std::ceil(whole / allowed), 1, bounds.layers);
  LayeredChunk chunk;
  chunk.layers = static_cast<int32_t>(std::ceil(bounds.layers / steps));
  const int32_t parts = (bounds.layers + chunk.layers - 1) / chunk.layers;
  const double tokens =
      TokensWithin(times, context, allowed * bounds.layers / chunk.layers, bounds.most);
  chunk.tokens = static_cast<int32_t>(
      std::min<double>(std::max<double>(tokens, bounds.least * parts), bounds.most));
  chunk.load_tokens = static_cast<int32_t>(std::min(load / per_token, 1e6));
  // Where both go on by the least, a layered one costs less.
  constexpr double kGain = 1.05;
  const bool better = bounds.ordinary_tokens <= bounds.least
                          ? chunk.tokens >= bounds.least * parts
                          : chunk.tokens > kGain * bounds.ordinary_tokens * parts;
  return better || bounds.goes_on ? chunk : LayeredChunk{};
}

}  // namespace quern
