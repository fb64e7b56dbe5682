#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "runtime/engine/engine.h"
#include "tests/unit/runtime/engine/byte_tokenizer.h"
#include "tests/unit/runtime/engine/hash_model.h"
#include "tests/unit/runtime/engine/inbox.h"

// What tests of the engine with its thread share.
namespace quern {

// Moves by hand from any thread, and counts how often it is read.
class AtomicClock : public Clock {
 public:
  SteadyTime Now() const override {
    ++reads_;
    return SteadyTime(std::chrono::nanoseconds(now_.load()));
  }
  std::chrono::system_clock::time_point WallNow() const override { return {}; }
  void Advance(std::chrono::nanoseconds by) { now_ += by.count(); }
  int64_t reads() const { return reads_; }

 private:
  std::atomic<int64_t> now_{0};
  mutable std::atomic<int64_t> reads_{0};
};

template <typename Condition>
bool Eventually(Condition condition) {
  const auto deadline = std::chrono::steady_clock::now() + kDeadline;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::yield();
  }
  return true;
}

class EngineCoreTest : public testing::Test {
 protected:
  static constexpr int32_t kBlocks = 64;

  // `model_` may be prepared before; afterwards it belongs to the engine.
  void Start(EngineOptions options = {}, EngineObserver* observer = nullptr) {
    if (options.kv_memory_bytes == 0) {
      options.kv_memory_bytes = kBlocks * options.kv_block_tokens * HashModel::kKvBytesPerToken;
    }
    auto engine = EngineCore::Start(std::move(model_), tokenizer_, options, observer, clock_);
    ASSERT_TRUE(engine.ok()) << engine.error().message;
    engine_ = std::move(*engine);
  }

  static GenerationRequest Endless(TokenId first) {
    return {
        .prompt = {first}, .sampling = {.temperature = 0}, .max_tokens = 900, .ignore_eos = true};
  }

  ByteTokenizer tokenizer_;
  AtomicClock clock_;
  Gate gate_;
  std::unique_ptr<HashModel> model_ = std::make_unique<HashModel>();
  HashModel* model_view_ = model_.get();
  std::unique_ptr<EngineCore> engine_;
};

}  // namespace quern
