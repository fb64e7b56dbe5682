#pragma once

#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "runtime/engine/engine.h"
#include "runtime/tokenizer/chat_template.h"
#include "runtime/tokenizer/tokenizer.h"

namespace quern::server {

// One token per byte, and 256 as BOS: what a request becomes can be read off in tests.
class ByteTokenizer : public Tokenizer {
 public:
  Result<std::vector<TokenId>> Encode(std::string_view text, EncodeOptions options) const override {
    if (before_encode) before_encode();
    if (text == "too hard") return MakeError(ErrorCode::kResourceExhausted, "matching took long");
    std::vector<TokenId> tokens;
    if (options.add_special) tokens.push_back(256);
    for (const char c : text) tokens.push_back(static_cast<unsigned char>(c));
    return tokens;
  }
  std::string TokenBytes(TokenId id, bool render_special) const override {
    if (id >= 0 && id < 256) return std::string(1, static_cast<char>(id));
    return id == 256 && render_special ? "<s>" : "";
  }
  std::string Decode(std::span<const TokenId> ids, bool render_special) const override {
    std::string text;
    for (const TokenId id : ids) text += TokenBytes(id, render_special);
    return text;
  }
  int vocab_size() const override { return 257; }
  std::optional<TokenId> bos() const override { return 256; }
  bool adds_bos() const override { return true; }
  bool IsEndOfGeneration(TokenId) const override { return false; }
  bool IsControl(TokenId id) const override { return id == 256; }

  std::function<void()> before_encode;  // set before serving begins
};

// "[user]hello[assistant]"
class BracketTemplate : public ChatTemplate {
 public:
  bool KnowsToolCalls(bool) const override { return false; }
  Result<std::string> Render(const TemplateInput& input) const override {
    std::string text;
    for (const auto& message : input.messages) {
      if (message["content"] == "raise") {
        return MakeError(ErrorCode::kInvalidArgument, "roles must alternate");
      }
      if (message["content"] == "endless") {
        return MakeError(ErrorCode::kResourceExhausted, "rendering takes more than 9 steps");
      }
      text +=
          "[" + message["role"].get<std::string>() + "]" + message["content"].get<std::string>();
    }
    return input.add_generation_prompt ? text + "[assistant]" : text;
  }
};

// An engine whose every delta the test sends by hand. Thread-safe.
class ScriptedEngine : public EngineCore {
 public:
  Result<RequestId> Submit(GenerationRequest request, DeltaSink sink) override {
    std::lock_guard lock(mutex_);
    if (requests_.size() >= capacity_) {
      return MakeError(ErrorCode::kResourceExhausted, "the waiting queue is full (scripted)");
    }
    if (request.tenant && request.tenant->max_requests > 0 &&
        std::ssize(sinks_) >= request.tenant->max_requests) {
      return MakeError(ErrorCode::kPermissionDenied, "the tenant is at its limit (scripted)");
    }
    const RequestId id = requests_.size() + 1;
    requests_[id] = std::move(request);
    sinks_[id] = std::move(sink);
    changed_.notify_all();
    return id;
  }
  void Cancel(RequestId id) override {
    std::lock_guard lock(mutex_);
    if (sinks_.count(id) > 0) cancelled_[id] = true;
    changed_.notify_all();
  }
  EngineStats Stats() const override {
    std::lock_guard lock(mutex_);
    EngineStats stats;
    stats.running = static_cast<int32_t>(sinks_.size());
    stats.kv_blocks_total = 64;
    stats.kv_block_tokens = 16;
    return stats;
  }
  int32_t max_context_tokens() const override { return 1000; }
  int32_t embedding_width() const override { return 3; }
  std::optional<Pooling> pooling() const override { return pooling_; }
  void SetPooling(std::optional<Pooling> pooling) { pooling_ = pooling; }  // before any request
  int32_t max_requests(const Tenant* tenant) const override {
    return tenant != nullptr && tenant->max_requests > 0 ? tenant->max_requests : 200;
  }
  bool Drain(std::chrono::milliseconds) override { return true; }
  Status Sleep(std::chrono::milliseconds) override {
    std::lock_guard lock(mutex_);
    if (busy_) return MakeError(ErrorCode::kDeadlineExceeded, "one is not done (scripted)");
    return {};
  }
  Status Wake(std::unique_ptr<Model>) override { return {}; }
  Seconds StalledFor() const override {
    std::lock_guard lock(mutex_);
    return stalled_;
  }

  // The test's side.
  std::optional<GenerationRequest> WaitForRequest(RequestId id) {
    std::unique_lock lock(mutex_);
    if (!changed_.wait_for(lock, std::chrono::seconds(20),
                           [&] { return requests_.count(id) > 0; })) {
      return std::nullopt;
    }
    return requests_[id];
  }
  bool WaitForCancel(RequestId id) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(20), [&] { return cancelled_[id]; });
  }
  void Emit(RequestId id, const std::string& text, std::optional<FinishReason> finish = {},
            const std::string& error = {}, std::vector<GeneratedLogprobs> logprobs = {}) {
    GenerationDelta delta;
    delta.text = text;
    delta.finish = finish;
    delta.error = error;
    delta.logprobs = std::move(logprobs);
    Emit(id, std::move(delta), 1);
  }
  // `generated`: tokens that `delta` stands for. Fills in the figures.
  void Emit(RequestId id, GenerationDelta delta, int32_t generated) {
    DeltaSink sink;
    {
      std::lock_guard lock(mutex_);
      sink = sinks_[id];
      delta.completion_tokens = tokens_[id] += generated;
      delta.prompt_tokens = static_cast<int32_t>(requests_[id].prompt.size());
      delta.cached_tokens = delta.prompt_tokens - 1;
      if (delta.finish) sinks_.erase(id);
    }
    sink(std::move(delta));
  }
  size_t num_requests() const {
    std::lock_guard lock(mutex_);
    return requests_.size();
  }
  void SetCapacity(size_t requests) {
    std::lock_guard lock(mutex_);
    capacity_ = requests;
  }
  // Sleep() finds requests that are not done.
  void SetBusy(bool busy) {
    std::lock_guard lock(mutex_);
    busy_ = busy;
  }
  void SetStalled(Seconds time) {
    std::lock_guard lock(mutex_);
    stalled_ = time;
  }

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::map<RequestId, GenerationRequest> requests_;
  std::map<RequestId, DeltaSink> sinks_;
  std::map<RequestId, bool> cancelled_;
  std::map<RequestId, int32_t> tokens_;
  size_t capacity_ = 1000;
  Seconds stalled_{0};
  bool busy_ = false;
  std::optional<Pooling> pooling_ = Pooling::kLast;
};

}  // namespace quern::server
