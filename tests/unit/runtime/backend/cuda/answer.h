#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "runtime/engine/engine.h"

namespace quern::testing {

inline constexpr std::chrono::seconds kAnswerDeadline{120};

// What an engine gives one request. Must outlive it.
class Answer {
 public:
  DeltaSink Sink() {
    return [this](GenerationDelta delta) {
      const std::lock_guard lock(mutex_);
      EXPECT_FALSE(finish_.has_value()) << "a delta after the last";
      tokens_.insert(tokens_.end(), delta.tokens.begin(), delta.tokens.end());
      logprobs_.insert(logprobs_.end(), delta.logprobs.begin(), delta.logprobs.end());
      finish_ = delta.finish;
      changed_.notify_all();
    };
  }
  // Absent: it has not ended in time.
  std::optional<FinishReason> AwaitEnd() {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, kAnswerDeadline, [this] { return finish_.has_value(); });
    return finish_;
  }
  // Until `count` tokens have come, or its end.
  bool AwaitTokens(size_t count) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, kAnswerDeadline,
                             [&] { return tokens_.size() >= count || finish_.has_value(); });
  }
  // After its end.
  const std::vector<TokenId>& tokens() const { return tokens_; }
  const std::vector<GeneratedLogprobs>& logprobs() const { return logprobs_; }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<TokenId> tokens_;
  std::vector<GeneratedLogprobs> logprobs_;
  std::optional<FinishReason> finish_;
};

}  // namespace quern::testing
