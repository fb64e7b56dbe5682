#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <vector>

#include "runtime/engine/engine.h"

namespace quern {

// Of whatever a test waits for: much longer than it takes, on the emulated device, too.
inline constexpr std::chrono::seconds kDeadline{120};

// Collects one request's deltas; waits for its end.
class Inbox {
 public:
  DeltaSink Sink() {
    return [this](GenerationDelta delta) {
      const std::lock_guard lock(mutex_);
      EXPECT_FALSE(finish_.has_value()) << "a delta after the last";
      tokens_.insert(tokens_.end(), delta.tokens.begin(), delta.tokens.end());
      logprobs_.insert(logprobs_.end(), delta.logprobs.begin(), delta.logprobs.end());
      finish_ = delta.finish;
      error_ = delta.error;
      changed_.notify_all();
    };
  }
  std::optional<FinishReason> AwaitEnd() {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, kDeadline, [this] { return finish_.has_value(); });
    return finish_;
  }
  // Until `count` tokens have come, or its end.
  bool AwaitTokens(size_t count) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, kDeadline,
                             [&] { return tokens_.size() >= count || finish_.has_value(); });
  }
  std::vector<TokenId> tokens() {
    const std::lock_guard lock(mutex_);
    return tokens_;
  }
  std::vector<GeneratedLogprobs> logprobs() {
    const std::lock_guard lock(mutex_);
    return logprobs_;
  }
  std::optional<FinishReason> finish() {
    const std::lock_guard lock(mutex_);
    return finish_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<TokenId> tokens_;
  std::vector<GeneratedLogprobs> logprobs_;
  std::optional<FinishReason> finish_;
  std::string error_;
};

}  // namespace quern
