#include "runtime/serve_bench_run.h"

#include <algorithm>
#include <set>
#include <utility>

#include "runtime/base/percentile.h"

namespace quern {
namespace {

// `values` must not be empty; sorts them.
double Percentile(std::vector<double>& values, double part) {
  std::sort(values.begin(), values.end());
  return PercentileOfSorted<double>(values, part);
}

}  // namespace

BenchRun::BenchRun(size_t sequences, size_t tokens)
    : tokens_(tokens), times_(sequences), unfinished_(sequences) {
  for (auto& times : times_) times.reserve(tokens);
}

void BenchRun::Push(size_t sequence, const GenerationDelta& delta, SteadyTime now) {
  std::lock_guard lock(mutex_);
  times_[sequence].insert(times_[sequence].end(), delta.tokens.size(), now);
  if (!delta.finish) return;
  if (*delta.finish != FinishReason::kLength && error_.empty()) {
    error_ = delta.error.empty() ? "it ended early" : delta.error;
  }
  if (--unfinished_ == 0) ended_.notify_all();
}

bool BenchRun::WaitFor(std::chrono::milliseconds patience) {
  std::unique_lock lock(mutex_);
  return ended_.wait_for(lock, patience, [this] { return unfinished_ == 0; });
}

size_t BenchRun::generated() const {
  std::lock_guard lock(mutex_);
  size_t tokens = 0;
  for (const auto& times : times_) tokens += times.size();
  return tokens;
}

Result<TokenTimes> BenchRun::TakeTimes() {
  std::lock_guard lock(mutex_);
  if (!error_.empty()) return MakeError(ErrorCode::kInternal, "a request failed: {}", error_);
  for (const auto& times : times_) {
    if (times.size() == tokens_) continue;
    return MakeError(ErrorCode::kInternal, "a request gave {} tokens instead of {}", times.size(),
                     tokens_);
  }
  return std::move(times_);
}

BenchFigures FiguresOf(SteadyTime start, const TokenTimes& times, int32_t prompt,
                       double cpu_seconds) {
  SteadyTime last_first = start, end = start;
  std::vector<double> ttft, itl;
  size_t generated = 0;
  for (const auto& sequence : times) {
    last_first = std::max(last_first, sequence.front());
    end = std::max(end, sequence.back());
    generated += sequence.size();
    ttft.push_back(Seconds(sequence.front() - start).count());
    for (size_t i = 1; i < sequence.size(); ++i) {
      itl.push_back(Seconds(sequence[i] - sequence[i - 1]).count());
    }
  }
  size_t decoded = 0;
  std::set<SteadyTime> decode_steps;
  for (const auto& sequence : times) {
    const auto after = std::upper_bound(sequence.begin(), sequence.end(), last_first);
    decoded += static_cast<size_t>(sequence.end() - after);
    decode_steps.insert(after, sequence.end());
  }
  const double prompts = static_cast<double>(times.size()) * prompt;
  return {.prefill = prompts / Seconds(last_first - start).count(),
          .decode = static_cast<double>(decoded) / Seconds(end - last_first).count(),
          .decode_batch = static_cast<double>(decoded) / static_cast<double>(decode_steps.size()),
          .total = (prompts + static_cast<double>(generated)) / Seconds(end - start).count(),
          .total_per_cpu = (prompts + static_cast<double>(generated)) / cpu_seconds,
          .ttft_p50 = Percentile(ttft, 0.5),
          .ttft_p95 = Percentile(ttft, 0.95),
          .itl_p50 = Percentile(itl, 0.5),
          .itl_p95 = Percentile(itl, 0.95)};
}

BenchFigures Medians(const std::vector<BenchFigures>& runs) {
  BenchFigures medians;
  for (double BenchFigures::*figure :
       {&BenchFigures::prefill, &BenchFigures::decode, &BenchFigures::decode_batch,
        &BenchFigures::total, &BenchFigures::total_per_cpu, &BenchFigures::decode_overhead,
        &BenchFigures::ttft_p50, &BenchFigures::ttft_p95, &BenchFigures::itl_p50,
        &BenchFigures::itl_p95}) {
    std::vector<double> values;
    for (const BenchFigures& run : runs) values.push_back(run.*figure);
    medians.*figure = Percentile(values, 0.5);
  }
  return medians;
}

}  // namespace quern
