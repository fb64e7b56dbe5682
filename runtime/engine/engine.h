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
#include "runtime/kv_cache/block_history.h"
#include "runtime/model/model.h"
#include "runtime/sampling/logprobs.h"
#include "runtime/sampling/sampling_params.h"
#include "runtime/scheduler/step_time.h"
#include "runtime/tokenizer/tokenizer.h"

namespace quern {

using RequestId = uint64_t;

// kFormat: nothing may follow that fits the format which the request asked for, or finding it out
// takes too much work. kError: a fault of ours.
enum class FinishReason { kStop, kLength, kCancelled, kFormat, kError };

// Who a request is for, as its API key says.
struct Tenant {
  std::string name;          // root of the prefix cache's chains, label of metrics; "" without keys
  double weight = 1;         // its share of the tokens beside others that wait; > 0
  int32_t max_requests = 0;  // running and waiting at once; 0: as many as there is room left for
  int32_t priority = 0;      // class: a lower number is served before a higher one (vLLM's sense)
};

struct GenerationRequest {
  std::vector<TokenId> prompt;  // at least one token
  SamplingParams sampling;
  // Prompt + max_tokens must fit the context. 0: nothing is generated; when the prompt has run, the
  // request ends with kLength.
  int32_t max_tokens = 16;
  std::vector<std::string>
      stop;  // generation ends before the first of them; they are not part of the text
  bool ignore_eos = false;
  std::shared_ptr<const Tenant> tenant;  // null: the nameless one
  int32_t priority = 0;  // added to the tenant's; at least 0: a request can only step back
  // Only requests of one tenant with the same one share cached prefixes: who does not know it
  // cannot tell from the time to the first token what others have asked (vLLM's cache_salt).
  std::string cache_salt;
  // Until so many tokens are generated none that ends the generation is sampled (unless ignore_eos:
  // then they are tokens like others) and no stop string is looked for. 0 to max_tokens.
  int32_t min_tokens = 0;
  // What the answer must look like, or null; at its start and nobody else's. Its vocabulary is the
  // tokenizer's. When it is fulfilled the request ends with kStop, whatever ignore_eos says.
  std::shared_ptr<Constraint> constraint;
  // Log-probabilities with every token, and of how many of the likeliest beside it: 0 to
  // kMaxTopLogprobs. Absent: none at all.
  std::optional<int32_t> top_logprobs;
  // The same of the prompt's tokens, which are all computed then: none comes from the prefix cache.
  std::optional<int32_t> prompt_logprobs;
  // Wants the prompt's hidden states as one vector. The mean is computed as prompt_logprobs are.
  std::optional<Pooling> pooling;
};

inline constexpr int32_t kMaxTopLogprobs = 20;  // as OpenAI

// Of one generated token, and of the likeliest at its place: of the model's own distribution,
// before temperature, penalties, biases and cuts.
struct GeneratedLogprobs {
  TokenLogprob token;
  std::vector<TokenLogprob> top;  // the likeliest first
  int32_t text_offset = 0;        // characters (code points) of text before this token's
  bool predicted = true;          // false: the first token of a prompt, which has none of these
};

// What a request produced since the last delta.
struct GenerationDelta {
  std::string text;  // valid UTF-8; text that could be the start of a stop string is held back
  std::vector<TokenId> tokens;  // may be non-empty while text is empty
  // Of tokens whose text is given out, in order, with their text or after it: not of the token that
  // ends a generation, nor of those that a stop string cuts off altogether.
  std::vector<GeneratedLogprobs> logprobs;
  // Of the prompt's tokens, in order, before anything is generated; text_offset stays 0.
  std::vector<GeneratedLogprobs> prompt_logprobs;
  std::vector<float> embedding;  // [width], once, where `pooling` was asked for; not normalised
  std::optional<FinishReason> finish;  // set on the last delta, exactly once
  std::string error;                   // with kError
  int32_t prompt_tokens = 0;           // totals so far
  int32_t completion_tokens = 0;
  int32_t cached_tokens = 0;  // of the prompt: found in the prefix cache, not computed
};

// Called on the engine's thread, in order, never after the delta that carries `finish`. Must return
// at once and must not throw: hand the delta to another thread's queue.
using DeltaSink = std::function<void(GenerationDelta)>;

struct StepStats {
  double seconds = 0;          // scheduling, forward and sampling
  double forward_seconds = 0;  // of them; 0 where it failed
  double prefill_tokens = 0;   // of a chunk that went through some of the layers: as much less
  int32_t decode_tokens = 0;
  int32_t sequences = 0;
};

// A snapshot for gauges. Cheap; any thread.
struct EngineStats {
  int32_t running = 0;
  int32_t waiting = 0;
  int32_t kv_blocks_used = 0;   // with owners; what is merely kept in the prefix cache is free
  int32_t kv_blocks_total = 0;  // 0 while asleep
  int32_t kv_block_tokens = 0;
  // Blocks of the layers that see only their last tokens; all 0 where these have none of their own.
  // They never limit anything: for tests and for who looks into memory.
  int32_t kv_window_blocks_used = 0;
  int32_t kv_window_blocks_total = 0;
  KvDtype kv_dtype = KvDtype::kF16;
  double tokens_per_second = 0;  // generated, over the last 10 s
  // Of prompts, each counted once: computed or found in the prefix cache.
  uint64_t prompt_tokens_total = 0;
  uint64_t prompt_tokens_cached_total = 0;  // of them: found in the prefix cache
  uint64_t generated_tokens_total = 0;
  // Sequences that lost their place, because the KV cache was full or to a tenant that had less
  // than its fair share; and their tokens that were cached and had to be computed again.
  uint64_t preemptions_kv_full_total = 0;
  uint64_t preemptions_fairness_total = 0;
  uint64_t preempted_tokens_total = 0;
  StepTimeCoefficients step_times;   // as fitted to the steps so far
  double step_time_error_ratio = 0;  // of their predictions
  bool asleep = false;
  // Prompt tokens that were looked up in the prefix cache, once each, and those found there.
  uint64_t prefix_queries_total = 0;
  uint64_t prefix_hits_total = 0;
};

// Of a request that ended.
struct FinishedStats {
  FinishReason reason = FinishReason::kStop;
  Seconds since_submit{0};
  int32_t prompt_tokens = 0;
  int32_t completion_tokens = 0;
  int32_t cached_tokens = 0;    // of the prompt: found in the prefix cache
  int32_t computed_tokens = 0;  // of the prompt, each once; 0: no step has run it
  int32_t max_tokens = 0;       // that were asked for
  // From its first step to its first token, and from that to its last one, preemptions included;
  // both only with completion_tokens.
  Seconds prefill{0};
  Seconds decode{0};
  bool corrupted = false;                // with kError: a logit was NaN or infinite
  std::shared_ptr<const Tenant> tenant;  // null: the nameless one
};

// Told what happens, on the engine's thread; must return at once.
class EngineObserver {
 public:
  virtual ~EngineObserver() = default;
  virtual void OnStep(const StepStats& stats) = 0;
  // The model can compute nothing any more: this request and all that come get the error.
  virtual void OnModelLost(const Error& /*error*/) {}
  virtual void OnFirstToken(Seconds since_submit, Seconds queued) = 0;
  virtual void OnInterToken(Seconds gap) = 0;
  virtual void OnFinished(const FinishedStats& stats) = 0;
  // Of the blocks that see all tokens, since the last step.
  virtual void OnKvBlocks(const BlockHistory& /*history*/) {}
};

struct EngineOptions {
  int32_t max_sequences = 32;      // running at once
  int32_t max_waiting = 256;       // beyond that Submit refuses
  int32_t max_batch_tokens = 512;  // tokens of one step, decodes first, then prefill chunks
  // While sequences stream, a step takes at most so many times as long for the sake of prompts as
  // without them, or more where more requests wait for their prompts than stream; 0: no bound.
  double max_decode_slowdown = 2;
  int32_t max_context_tokens = 0;  // 0: the model's, at most what the KV cache holds
  // Where kv_memory_bytes alone bounds the context, it must hold so many tokens, or the model's
  // context if that is shorter: nearly every request would be refused.
  int32_t least_context_tokens = 1;
  int64_t kv_memory_bytes = 0;  // 0: chosen from free memory (cgroup limit), said in the log
  int32_t kv_block_tokens = 16;
  // Takes an int8 KV cache instead of the model's own dtype where that one does not hold the
  // context (max_context_tokens or the model's); said in the log.
  bool int8_kv_if_short = false;
  bool prefix_cache = true;  // prompts that begin alike share the KV of what they have in common
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
  // full. kPermissionDenied: max_requests of its tenant run or wait, which may pass.
  // kUnavailable: draining or asleep.
  virtual Result<RequestId> Submit(GenerationRequest request, DeltaSink sink) = 0;
  // Ends the request within one step with FinishReason::kCancelled. Unknown or finished ids are
  // ignored.
  virtual void Cancel(RequestId id) = 0;

  virtual EngineStats Stats() const = 0;
  virtual int32_t max_context_tokens() const = 0;
  virtual int32_t embedding_width() const = 0;
  virtual std::optional<Pooling> pooling() const = 0;  // that the model's embeddings are made for
  // Requests that may run and wait at once: of this tenant, or of all where there are no tenants
  // (null). Of a tenant without a limit of its own: when it is the only one, half; it may have as
  // many as there is room left for, so that those that flood never shut the others out.
  virtual int32_t max_requests(const Tenant* tenant) const = 0;

  // No new requests; returns when all have finished (true) or the time is over (false; those left
  // were cancelled).
  virtual bool Drain(std::chrono::milliseconds timeout) = 0;

  // Gives weights and KV cache back: takes no new requests, waits until those that it has are done,
  // at most `timeout`, and lets the model go. Asleep already: nothing to do. kDeadlineExceeded:
  // they were not done in time; it is awake and goes on. kUnavailable: draining.
  // Sleep and Wake: one at a time.
  virtual Status Sleep(std::chrono::milliseconds timeout) = 0;
  // Goes on with `model`, without a KV cache, which must be what it had before (kConflict says what
  // differs). Awake already: lets it go. The errors of Model::AllocateKv; it sleeps on then.
  virtual Status Wake(std::unique_ptr<Model> model) = 0;

  // Time since work that was waiting last made progress; zero when idle. For liveness.
  virtual Seconds StalledFor() const = 0;
};

}  // namespace quern
