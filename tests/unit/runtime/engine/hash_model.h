#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <span>
#include <vector>

#include "runtime/model/model.h"
#include "runtime/tokenizer/tokenizer.h"

namespace quern {

// A model whose next token is a function of the sequence's own context, read back through the KV
// blocks that the batch gave it: one wrong, shared or stale block changes what it says. Checks the
// invariants of every batch. With a window, it has a second layer that sees so many tokens only:
// the last ones of the context are read from there, and a batch must keep what it sees and no more.
class HashModel : public Model {
 public:
  static constexpr int32_t kVocabSize = 300;  // more than ByteTokenizer has, as padded models do
  static constexpr int32_t kContext = 2048;
  static constexpr int64_t kKvBytesPerToken = 64;
  static constexpr int32_t kLayers = 6;

  // The likeliest token after `context`.
  using Next = std::function<TokenId(std::span<const TokenId> context)>;
  static TokenId HashNext(std::span<const TokenId> context);

  explicit HashModel(Next next = HashNext, int32_t window = 0);

  const ModelInfo& info() const override { return info_; }
  void SetKvDtype(KvDtype dtype) override {  // int8, for one
    info_.kv_dtype = dtype;
    info_.kv_bytes_per_token = kKvBytesPerToken / 2;
    info_.kv_window_bytes_per_token /= 2;
  }
  Status AllocateKv(const KvLayout& layout) override;
  Status Forward(const ForwardBatch& batch, std::span<float> logits) override;
  Status ReadLogits(std::span<const int32_t> rows, std::span<float> logits) override;
  // [the token's position, its id, hash of its context as a float]
  Status ReadHidden(std::span<const int32_t> rows, std::span<float> hidden) override;
  static constexpr int32_t kWidth = 3;

  // Set before the engine starts. Called first in Forward; an error is returned from there.
  std::function<Status(const ForwardBatch&)> on_forward;
  // Contexts that contain this token get NaN as one of their logits.
  TokenId poison = -1;
  // What the engine adds to the vocabulary's noise for the likeliest: 100 makes any draw greedy.
  float confidence = 4.0f;

  int64_t forwards() const { return forwards_; }

 private:
  struct Row {
    std::vector<int32_t> blocks;  // of its sequence
    int32_t position;
  };

  void CheckBatch(const ForwardBatch& batch) const;
  void CheckBlocks(const ForwardBatch& batch, bool windows) const;
  void CheckWindow(const ForwardBatch::Sequence& sequence) const;
  size_t SlotOf(std::span<const int32_t> blocks, int32_t position) const;
  void WriteLogits(std::span<const TokenId> context, std::span<float> row) const;
  static void DropUnwanted(const ForwardBatch& batch, std::span<float> logits);
  // What the KV cache holds for the row of the step at hand, its own token last.
  std::vector<TokenId> ContextOf(int32_t row) const;

  Next next_;
  ModelInfo info_;
  KvLayout layout_;
  // Of a chunk that went through the first layers: it is to go on where and as it was.
  struct Held {
    std::vector<TokenId> tokens;
    std::vector<int32_t> blocks;
    int32_t context_tokens = 0;
    int32_t layers = 0;
  };
  // Whether the K and V of the batch's last sequence are complete after it.
  bool Complete(const ForwardBatch& batch);

  std::vector<Row> rows_;  // of the step at hand
  Held held_;
  // [num_blocks * block_tokens]: the "K and V" of a token is its id.
  std::vector<TokenId> slots_, window_slots_;
  std::atomic<int64_t> forwards_{0};
};

// Holds threads at a point until it is opened.
class Gate {
 public:
  void Open() {
    const std::lock_guard lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }
  void Pass() {  // waits until open
    std::unique_lock lock(mutex_);
    ++waiting_;
    changed_.notify_all();
    changed_.wait(lock, [this] { return open_; });
    --waiting_;
  }
  // Waits until a thread stands at the gate; false after 30 s.
  bool AwaitArrival() {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(30), [this] { return waiting_ > 0; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool open_ = false;
  int waiting_ = 0;
};

}  // namespace quern
