#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "runtime/base/clock.h"
#include "runtime/base/result.h"
#include "runtime/constraints/constraint.h"
#include "runtime/model/model.h"
#include "runtime/sampling/sampling_params.h"
#include "runtime/tokenizer/tokenizer.h"

namespace quern {

using RequestId = uint64_t;

enum class FinishReason { kStop, kLength, kCancelled, kError };

struct GenerationRequest {
  std::vector<TokenId> prompt;  // at least one token
  SamplingParams sampling;
  int32_t max_tokens = 16;  // at least 1; prompt + max_tokens must fit the context
  std::vector<std::string>
      stop;  // generation ends before the first of them; they are not part of the text
  bool ignore_eos = false;
  // What the answer must look like, or null; at its start and nobody else's. Its vocabulary is the
  // tokenizer's. When it is fulfilled the request ends with kStop, whatever ignore_eos says.
  std::shared_ptr<Constraint> constraint;
};

// What a request produced since the last delta.
struct GenerationDelta {
  std::string text;  // valid UTF-8; text that could be the start of a stop string is held back
  std::vector<TokenId> tokens;         // may be non-empty while text is empty
  std::optional<FinishReason> finish;  // set on the last delta, exactly once
  std::string error;                   // with kError
  int32_t prompt_tokens = 0;           // totals so far
  int32_t completion_tokens = 0;
};

// Called on the engine's thread, in order, never after the delta that carries `finish`. Must return
// at once and must not throw: hand the delta to another thread's queue.
using DeltaSink = std::function<void(GenerationDelta)>;

struct StepStats {
  double seconds = 0;  // forward + sampling
  int32_t prefill_tokens = 0;
  int32_t decode_tokens = 0;
  int32_t sequences = 0;
};

// A snapshot for gauges. Cheap; any thread.
struct EngineStats {
  int32_t running = 0;
  int32_t waiting = 0;
  int32_t kv_blocks_used = 0;
  int32_t kv_blocks_total = 0;
  int32_t kv_block_tokens = 0;
  double tokens_per_second = 0;      // generated, over the last 10 s
  uint64_t prompt_tokens_total = 0;  // prefilled
  uint64_t generated_tokens_total = 0;
  // Sequences that lost their place to earlier ones because the KV cache was full, and their tokens
  // that were cached and must be computed again.
  uint64_t preemptions_total = 0;
  uint64_t preempted_tokens_total = 0;
};

// Told what happens, on the engine's thread; must return at once.
class EngineObserver {
 public:
  virtual ~EngineObserver() = default;
  virtual void OnStep(const StepStats& stats) = 0;
  virtual void OnFirstToken(Seconds since_submit, Seconds queued) = 0;
  virtual void OnInterToken(Seconds gap) = 0;
  virtual void OnFinished(FinishReason reason, Seconds since_submit, int32_t prompt_tokens,
                          int32_t completion_tokens) = 0;
};

struct EngineOptions {
  int32_t max_sequences = 32;      // running at once
  int32_t max_waiting = 256;       // beyond that Submit refuses
  int32_t max_batch_tokens = 512;  // tokens of one step, decodes first, then prefill chunks
  int32_t max_context_tokens = 0;  // 0: the model's, at most what the KV cache holds
  int64_t kv_memory_bytes = 0;     // 0: chosen from free memory (cgroup limit), said in the log
  int32_t kv_block_tokens = 16;
};

// The step loop: Schedule -> Forward -> Sample -> publish, on one thread of its own. All members
// thread-safe.
class EngineCore {
 public:
  static Result<std::unique_ptr<EngineCore>> Start(std::unique_ptr<Model> model,
                                                   const Tokenizer& tokenizer,
                                                   const EngineOptions& options,
                                                   EngineObserver* observer,
                                                   const Clock& clock = RealClock());
  virtual ~EngineCore() = default;  // cancels what is left and joins

  // kInvalidArgument: the prompt is empty, a token id is outside the vocabulary, or prompt +
  // max_tokens exceed the context (says by how much). kResourceExhausted: the waiting queue is
  // full. kUnavailable: draining.
  virtual Result<RequestId> Submit(GenerationRequest request, DeltaSink sink) = 0;
  // Ends the request within one step with FinishReason::kCancelled. Unknown or finished ids are
  // ignored.
  virtual void Cancel(RequestId id) = 0;

  virtual EngineStats Stats() const = 0;
  virtual int32_t max_context_tokens() const = 0;

  // No new requests; returns when all have finished (true) or the time is over (false; those left
  // were cancelled).
  virtual bool Drain(std::chrono::milliseconds timeout) = 0;
  // Time since work that was waiting last made progress; zero when idle. For liveness.
  virtual Seconds StalledFor() const = 0;
};

}  // namespace quern
