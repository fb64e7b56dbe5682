#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>

#include "runtime/engine/engine.h"
#include "runtime/server/logprob_json.h"
#include "runtime/server/structured_output.h"
#include "runtime/tokenizer/chat_template.h"
#include "runtime/tokenizer/tokenizer.h"

namespace quern::server {

// Everything that answers requests for one model. Members are destroyed from the last to the first:
// the engine before the tokenizer that it uses.
struct LoadedModel {
  std::string served_name;
  int64_t created = 0;  // seconds since 1970, for /v1/models
  ModelInfo info;       // for /v1/models; its kv_dtype is what the engine's KV cache has
  std::unique_ptr<Tokenizer> tokenizer;
  int64_t longest_token_bytes = 512;  // at least that of any text that one token stands for
  TokenSizes token_sizes;             // of what the vocabulary's tokens come to in an answer
  std::unique_ptr<ChatTemplate> chat_template;  // null where the model has none ...
  std::string no_chat_reason;                   // ... and why
  mutable LazyConstraints constraints;          // for answers that are held to a format
  std::unique_ptr<EngineCore> engine;
};

// Where the server is in its life: loading, ready, sleeping, draining. Thread-safe. The model, once
// there, stays until this is destroyed, with or without its weights; whatever still uses it must
// have ended by then.
class ServingState {
 public:
  enum class Phase { kLoading, kReady, kSleeping, kDraining };
  struct View {
    Phase phase;
    std::string reason;        // why it is not ready, for people
    const LoadedModel* model;  // null while loading
  };

  // What is being loaded, for /health/ready: "weights".
  void SetLoading(std::string what) {
    std::lock_guard lock(mutex_);
    reason_ = std::move(what);
  }
  // Does not undo a draining that began while the model was loading.
  void SetReady(std::unique_ptr<LoadedModel> model) {
    std::lock_guard lock(mutex_);
    model_ = std::move(model);
    if (phase_ != Phase::kLoading) return;
    phase_ = Phase::kReady;
    reason_.clear();
  }
  // Ready -> sleeping; whether it was ready.
  bool SetSleeping() {
    std::lock_guard lock(mutex_);
    if (phase_ != Phase::kReady) return false;
    phase_ = Phase::kSleeping;
    reason_ = "the model sleeps: POST /wake_up on the administrative port wakes it";
    return true;
  }
  // Undoes that, unless it is draining by now.
  void SetAwake() {
    std::lock_guard lock(mutex_);
    if (phase_ != Phase::kSleeping) return;
    phase_ = Phase::kReady;
    reason_.clear();
  }
  void SetDraining() {
    std::lock_guard lock(mutex_);
    phase_ = Phase::kDraining;
    reason_ = "the server is shutting down: it finishes what it has and takes nothing new";
  }
  View Get() const {
    std::lock_guard lock(mutex_);
    return View{phase_, reason_, model_.get()};
  }

 private:
  mutable std::mutex mutex_;
  Phase phase_ = Phase::kLoading;
  std::string reason_ = "starting";
  std::unique_ptr<LoadedModel> model_;
};

}  // namespace quern::server
