#pragma once

#include <functional>
#include <utility>

#include "runtime/engine/engine.h"
#include "runtime/http/limits.h"
#include "runtime/metrics/runtime_metrics.h"

namespace quern::server {

// What the engine tells, into the metrics.
class MetricsEngineObserver : public EngineObserver {
 public:
  // `on_lost` may be called more than once, on the engine's thread.
  explicit MetricsEngineObserver(RuntimeMetrics& metrics,
                                 std::function<void(const Error&)> on_lost = nullptr)
      : metrics_(metrics), on_lost_(std::move(on_lost)) {}

  void OnModelLost(const Error& error) override {
    if (on_lost_) on_lost_(error);
  }

  void OnStep(const StepStats& stats) override {
    metrics_.ObserveStep(stats.seconds, stats.sequences,
                         stats.prefill_tokens + stats.decode_tokens);
  }
  void OnFirstToken(Seconds since_submit, Seconds queued) override {
    metrics_.ObserveFirstToken(since_submit.count(), queued.count());
  }
  void OnInterToken(Seconds gap) override { metrics_.ObserveInterToken(gap.count()); }
  void OnFinished(const FinishedStats& stats) override {
    metrics_.CountFinished({.how = As(stats.reason),
                            .since_submit = stats.since_submit.count(),
                            .prompt_tokens = stats.prompt_tokens,
                            .computed_tokens = stats.computed_tokens,
                            .generation_tokens = stats.completion_tokens,
                            .max_tokens = stats.max_tokens,
                            .prefill = stats.prefill.count(),
                            .decode = stats.decode.count(),
                            .corrupted = stats.corrupted});
  }

  void OnKvBlocks(const BlockHistory& history) override {
    for (const auto& evicted : history.evictions) {
      metrics_.ObserveBlockEvicted(evicted.lifetime, evicted.idle);
    }
    for (const double gap : history.reuse_gaps) metrics_.ObserveBlockReused(gap);
  }

  static FinishedAs As(FinishReason reason) {
    switch (reason) {
      case FinishReason::kStop:
        return FinishedAs::kStop;
      case FinishReason::kLength:
        return FinishedAs::kLength;
      case FinishReason::kCancelled:
        return FinishedAs::kCancelled;
      case FinishReason::kFormat:
        return FinishedAs::kFormat;
      case FinishReason::kError:
        return FinishedAs::kError;
    }
    return FinishedAs::kError;
  }

 private:
  RuntimeMetrics& metrics_;
  const std::function<void(const Error&)> on_lost_;
};

// What the HTTP side tells, into the metrics.
class MetricsHttpObserver : public http::HttpObserver {
 public:
  explicit MetricsHttpObserver(RuntimeMetrics& metrics) : metrics_(metrics) {}

  void OnLimit(http::HttpLimit limit) override {
    metrics_.CountRejected(http::HttpLimitName(limit));
  }
  void OnRequest(std::string_view handler, int status) override {
    metrics_.CountHttpRequest(handler, status);
  }

 private:
  RuntimeMetrics& metrics_;
};

}  // namespace quern::server
