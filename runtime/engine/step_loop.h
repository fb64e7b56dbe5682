#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "runtime/engine/active_request.h"
#include "runtime/engine/batch_builder.h"
#include "runtime/engine/engine.h"
#include "runtime/engine/mask_worker.h"
#include "runtime/engine/prompt_reader.h"
#include "runtime/engine/token_picker.h"
#include "runtime/scheduler/scheduler.h"
#include "runtime/scheduler/step_time.h"

namespace quern {

// What the engine does in one step, without its thread: schedule, forward, sample, and collect what
// each request produced. Everything here runs on one thread; nothing blocks but Model::Forward.
//
// What Step and Cancel produce is kept until Deliver: figures can be published first, so that who
// sees a request end also sees its blocks free.
class StepLoop {
 public:
  // `model` has its KV cache of `layout`; `observer` may be null. All outlive the loop.
  StepLoop(Model& model, const Tokenizer& tokenizer, const EngineOptions& options,
           const KvLayout& layout, EngineObserver* observer, const Clock& clock);
  ~StepLoop();

  // The model goes, or one of the same kind comes, with its KV cache of the same layout. Only when
  // nothing is there to work on; in between there must be nothing.
  void Detach();
  void Attach(Model& model);

  // Takes a request that was checked (CheckRequest) and that fits the KV cache alone. Ids ascend.
  void Add(std::unique_ptr<ActiveRequest> request);
  // Ends it with kCancelled. Unknown ids are ignored.
  void Cancel(RequestId id);
  void CancelAll();

  bool HasWork() const { return !requests_.empty(); }
  // One step over what Schedule() picks. Only when HasWork.
  void Step();
  // Calls the sinks, and appends the ids of requests that ended to `ended`.
  void Deliver(std::vector<RequestId>& ended);

  // The counters and gauges of EngineStats, but for tokens_per_second.
  EngineStats Stats() const;

 private:
  struct Delivery {
    ActiveRequest* request;
    GenerationDelta delta;
  };

  SchedulerLimits LimitsNow() const;
  // Takes the last token of those whose mask is late out of `step`: it runs again.
  Status RunForward(SchedulerOutput& step);
  // The next token of the step's sequence `i`, which is number `row` of those that sample.
  Result<PickedToken> Pick(ActiveRequest& request, size_t i, size_t row);
  void BeginMasks(const SchedulerOutput& step);
  // What the request, number `i` of the step, wants to know of its prompt. False: it ended.
  bool ReadPrompt(ActiveRequest& request, const SchedulerOutput& step, size_t i);
  void SampleStep(const SchedulerOutput& step);
  void Accept(ActiveRequest& request, PickedToken picked, SteadyTime now);
  void ObserveToken(ActiveRequest& request, SteadyTime now);
  void CountPrefill(ActiveRequest& request);
  // Frees its blocks and queues its last delta.
  void End(ActiveRequest& request, GenerationDelta delta);
  void ObserveEnd(const ActiveRequest& request, FinishReason reason);
  void Fail(ActiveRequest& request, const Error& error, FinishReason reason);
  void FailAll();
  GenerationDelta EmptyDelta(const ActiveRequest& request) const;
  void CheckIntegrity() const;

  Model* model_;  // null while detached
  const size_t vocab_size_;
  const Tokenizer& tokenizer_;
  const SchedulerLimits limits_;
  const double max_decode_slowdown_;
  const bool prefix_cache_;
  EngineObserver* const observer_;
  const Clock& clock_;

  SchedulerState state_;
  StepTimeModel step_times_;
  BatchBuilder batch_builder_;
  TokenPicker picker_;
  PromptReader prompt_reader_;
  std::vector<float> logits_;   // [max_sequences, vocab_size]
  std::vector<int32_t> drawn_;  // by the model
  MaskWorker masks_;            // by sequence that samples
  std::vector<std::shared_ptr<MaskJob>> row_masks_;

  std::unordered_map<RequestId, std::unique_ptr<ActiveRequest>> requests_;
  double prompt_seconds_ = 0;                  // of the step at hand, for ReadPrompt
  std::vector<ActiveRequest*> step_requests_;  // owners of the sequences of the step at hand
  std::vector<Delivery> deliveries_;
  std::vector<std::unique_ptr<ActiveRequest>> ended_;  // alive until their last delta is delivered

  uint64_t prompt_tokens_total_ = 0;
  uint64_t prompt_tokens_cached_total_ = 0;
  uint64_t generated_tokens_total_ = 0;
  uint64_t preemptions_kv_full_total_ = 0;
  uint64_t preemptions_fairness_total_ = 0;
  uint64_t preempted_tokens_total_ = 0;
  uint64_t prefix_queries_total_ = 0;
  uint64_t prefix_hits_total_ = 0;
};

}  // namespace quern
