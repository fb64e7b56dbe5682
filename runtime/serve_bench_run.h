#pragma once

#include <condition_variable>
#include <mutex>
#include <string>
#include <vector>

#include "runtime/engine/engine.h"

// What `quern-serve bench` measures: when the tokens of a batch come, and figures of that.
namespace quern {

// When the engine's last step ended. On the engine's thread only, where sinks run, too: all tokens
// of a step have the same time, so that none of them counts as later than another.
class StepClock : public EngineObserver {
 public:
  void OnStep(const StepStats& stats) override {
    step_end_ = RealClock().Now();
    if (stats.prefill_tokens > 0) return;
    decode_seconds_ += stats.seconds;
    decode_forward_seconds_ += stats.forward_seconds;
  }
  void OnFirstToken(Seconds /*since_submit*/, Seconds /*queued*/) override {}
  void OnInterToken(Seconds /*gap*/) override {}
  void OnFinished(const FinishedStats& /*stats*/) override {}
  SteadyTime step_end() const { return step_end_; }
  // Of the steps that only decode, since the last Restart: the part of their time that is not the
  // forward pass's. While the engine has no work; 0 where there was no such step.
  double OverheadShare() const {
    return decode_seconds_ > 0 ? 1 - decode_forward_seconds_ / decode_seconds_ : 0;
  }
  void Restart() { decode_seconds_ = decode_forward_seconds_ = 0; }

 private:
  SteadyTime step_end_;
  double decode_seconds_ = 0;
  double decode_forward_seconds_ = 0;
};

// The times of each sequence's tokens, in order.
using TokenTimes = std::vector<std::vector<SteadyTime>>;

// Collects the tokens of one batch, by when they came. Thread-safe.
class BenchRun {
 public:
  // `tokens` are expected of each of `sequences`.
  BenchRun(size_t sequences, size_t tokens);

  void Push(size_t sequence, const GenerationDelta& delta, SteadyTime now);
  // True when all sequences have ended.
  bool WaitFor(std::chrono::milliseconds patience);
  size_t generated() const;
  // Once, after WaitFor said that all have ended. kInternal where one failed or ended early.
  Result<TokenTimes> TakeTimes();

 private:
  mutable std::mutex mutex_;
  std::condition_variable ended_;
  const size_t tokens_;
  TokenTimes times_;
  size_t unfinished_;
  std::string error_;
};

// Of one run, or medians over several. Rates in tokens a second, times in seconds. prefill: prompt
// tokens until the last sequence's first token; decode: tokens after that moment over the time from
// it to the end; decode_batch: those tokens by the steps that made them; total: prompt and
// generated tokens over the whole time; total_per_cpu: over the processors' time, of all threads,
// which others on the machine disturb less; decode_overhead: the part of decoding steps that is not
// the forward pass (scheduling, sampling, text).
struct BenchFigures {
  double prefill = 0, decode = 0, decode_batch = 0, total = 0, total_per_cpu = 0;
  double decode_overhead = 0;
  double ttft_p50 = 0, ttft_p95 = 0, itl_p50 = 0, itl_p95 = 0;
};

// Of sequences with prompts of `prompt` tokens that were submitted at `start` and took
// `cpu_seconds` of processors' time; at least one, and at least two tokens of each. Percentiles are
// linear between the two nearest ranks.
BenchFigures FiguresOf(SteadyTime start, const TokenTimes& times, int32_t prompt,
                       double cpu_seconds);

// Of each figure for itself; `runs` are at least one.
BenchFigures Medians(const std::vector<BenchFigures>& runs);

}  // namespace quern
