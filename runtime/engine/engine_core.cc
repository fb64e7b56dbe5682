#include <spdlog/spdlog.h>

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <unordered_map>
#include <utility>

#include "runtime/engine/active_request.h"
#include "runtime/engine/engine.h"
#include "runtime/engine/memory_plan.h"
#include "runtime/engine/process_memory.h"
#include "runtime/engine/request_check.h"
#include "runtime/engine/step_loop.h"
#include "runtime/engine/token_rate.h"

namespace quern {
namespace {

// After Drain has cancelled what was left: how long it waits for the step at hand to end.
constexpr std::chrono::seconds kDrainGrace{5};

// The step loop on its own thread, and the mailbox before it. The mutex guards the mailbox and the
// published figures, for moments only: never during a forward pass, a sink or the observer.
class ThreadedEngine : public EngineCore {
 public:
  ThreadedEngine(std::unique_ptr<Model> model, const Tokenizer& tokenizer,
                 const EngineOptions& options, const MemoryPlan& plan, EngineObserver* observer,
                 const Clock& clock)
      : model_(std::move(model)),
        tokenizer_(tokenizer),
        max_live_(static_cast<size_t>(options.max_sequences) +
                  static_cast<size_t>(options.max_waiting)),
        context_tokens_(plan.context_tokens),
        clock_(clock),
        loop_(*model_, tokenizer, options, plan.layout, observer, clock),
        published_(loop_.Stats()),
        rate_(clock.Now()),
        last_progress_(clock.Now()),
        seeds_(std::random_device{}()),
        thread_([this] { Run(); }) {}

  ~ThreadedEngine() override {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    wake_.notify_one();
    thread_.join();
  }

  Result<RequestId> Submit(GenerationRequest request, DeltaSink sink) override;
  void Cancel(RequestId id) override;
  EngineStats Stats() const override;
  bool Drain(std::chrono::milliseconds timeout) override;
  Seconds StalledFor() const override;

  int32_t max_context_tokens() const override { return context_tokens_; }
  int32_t max_requests(const Tenant* tenant) const override {
    const auto all = static_cast<int32_t>(max_live_);
    if (tenant == nullptr) return all;
    return tenant->max_requests > 0 ? std::min(tenant->max_requests, all) : std::max(1, all / 2);
  }

 private:
  void Run();
  bool TakeMail();  // waits for something to do; false when the engine is to stop
  void Publish();
  void Retire();
  struct Live {
    bool cancel_requested = false;
    std::string tenant;
  };
  void RequestCancel(RequestId id, Live& live);  // with mutex_ held

  const std::unique_ptr<Model> model_;
  const Tokenizer& tokenizer_;
  const size_t max_live_;  // requests between Submit and their last delta
  const int32_t context_tokens_;
  const Clock& clock_;

  // The engine thread's own.
  StepLoop loop_;
  std::vector<std::unique_ptr<ActiveRequest>> arrivals_;
  std::vector<RequestId> cancellations_;
  std::vector<RequestId> ended_;
  uint64_t generated_published_ = 0;

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable all_ended_;
  std::vector<std::unique_ptr<ActiveRequest>> mail_;
  std::vector<RequestId> cancel_mail_;  // each live id at most once
  std::unordered_map<RequestId, Live> live_;
  std::unordered_map<std::string, int32_t> live_of_tenant_;  // none is 0
  RequestId next_id_ = 1;
  bool draining_ = false;
  bool stopping_ = false;
  EngineStats published_;
  mutable TokenRate rate_;
  SteadyTime last_progress_;
  std::mt19937_64 seeds_;  // for requests that name no seed

  std::thread thread_;  // last: it uses all of the above
};

Result<RequestId> ThreadedEngine::Submit(GenerationRequest request, DeltaSink sink) {
  QUERN_TRY(CheckRequest(request, model_->info().vocab_size, context_tokens_));
  auto active = std::make_unique<ActiveRequest>(std::move(request), std::move(sink), tokenizer_);
  active->submitted = clock_.Now();
  RequestId id = 0;
  {
    const std::lock_guard lock(mutex_);
    if (draining_ || stopping_) {
      return MakeError(ErrorCode::kUnavailable, "the engine is shutting down; try another replica");
    }
    if (live_.size() >= max_live_) {
      return MakeError(ErrorCode::kResourceExhausted,
                       "{} requests are running or waiting, which is the limit; try again later",
                       live_.size());
    }
    const std::string& tenant = active->sequence.tenant;
    if (const auto it = live_of_tenant_.find(tenant);
        active->tenant && it != live_of_tenant_.end() &&
        it->second >= max_requests(active->tenant.get())) {
      return MakeError(ErrorCode::kPermissionDenied,
                       "{} requests of '{}' are running or waiting, which is its limit; try again "
                       "when one has ended",
                       it->second, tenant);
    }
    if (live_.empty()) last_progress_ = active->submitted;
    id = active->id = next_id_++;
    active->seed = active->sampling.seed ? *active->sampling.seed : seeds_();
    live_.emplace(id, Live{.tenant = tenant});
    ++live_of_tenant_[tenant];
    mail_.push_back(std::move(active));
  }
  wake_.notify_one();
  return id;
}

void ThreadedEngine::Cancel(RequestId id) {
  {
    const std::lock_guard lock(mutex_);
    const auto it = live_.find(id);
    if (it == live_.end()) return;
    RequestCancel(id, it->second);
  }
  wake_.notify_one();
}

void ThreadedEngine::RequestCancel(RequestId id, Live& live) {
  if (live.cancel_requested) return;
  live.cancel_requested = true;
  cancel_mail_.push_back(id);
}

EngineStats ThreadedEngine::Stats() const {
  const SteadyTime now = clock_.Now();
  const std::lock_guard lock(mutex_);
  EngineStats stats = published_;
  stats.waiting += static_cast<int32_t>(mail_.size());
  stats.tokens_per_second = rate_.PerSecond(now);
  stats.kv_dtype = model_->info().kv_dtype;
  stats.kv_bytes_per_token = model_->info().kv_bytes_per_token;
  return stats;
}

Seconds ThreadedEngine::StalledFor() const {
  const SteadyTime now = clock_.Now();
  const std::lock_guard lock(mutex_);
  if (live_.empty() || now < last_progress_) return Seconds(0);
  return now - last_progress_;
}

bool ThreadedEngine::Drain(std::chrono::milliseconds timeout) {
  const auto all_ended = [this] { return live_.empty(); };
  size_t left = 0;
  {
    std::unique_lock lock(mutex_);
    draining_ = true;
    if (all_ended_.wait_for(lock, timeout, all_ended)) return true;
    left = live_.size();
    for (auto& [id, live] : live_) RequestCancel(id, live);
  }
  wake_.notify_one();
  spdlog::warn("{} requests did not end within the drain timeout of {} ms and are cancelled", left,
               timeout.count());
  std::unique_lock lock(mutex_);
  all_ended_.wait_for(lock, kDrainGrace, all_ended);
  return false;
}

void ThreadedEngine::Run() {
  while (TakeMail()) {
    for (auto& request : arrivals_) loop_.Add(std::move(request));
    arrivals_.clear();
    for (const RequestId id : cancellations_) loop_.Cancel(id);
    cancellations_.clear();
    if (loop_.HasWork()) loop_.Step();
    Publish();
    loop_.Deliver(ended_);
    Retire();
  }
  for (auto& request : arrivals_) loop_.Add(std::move(request));
  arrivals_.clear();
  loop_.CancelAll();
  Publish();
  loop_.Deliver(ended_);
  Retire();
}

bool ThreadedEngine::TakeMail() {
  std::unique_lock lock(mutex_);
  wake_.wait(lock, [this] {
    return stopping_ || !mail_.empty() || !cancel_mail_.empty() || loop_.HasWork();
  });
  std::swap(mail_, arrivals_);
  std::swap(cancel_mail_, cancellations_);
  // Until the next Publish these wait here and not in the mailbox.
  published_.waiting += static_cast<int32_t>(arrivals_.size());
  return !stopping_;
}

void ThreadedEngine::Publish() {
  const EngineStats stats = loop_.Stats();
  const SteadyTime now = clock_.Now();
  const std::lock_guard lock(mutex_);
  published_ = stats;
  rate_.Add(now, static_cast<int64_t>(stats.generated_tokens_total - generated_published_));
  generated_published_ = stats.generated_tokens_total;
  last_progress_ = now;
}

void ThreadedEngine::Retire() {
  if (ended_.empty()) return;
  bool none_left = false;
  {
    const std::lock_guard lock(mutex_);
    for (const RequestId id : ended_) {
      const auto live = live_.extract(id);
      const auto of_tenant = live_of_tenant_.find(live.mapped().tenant);
      if (--of_tenant->second == 0) live_of_tenant_.erase(of_tenant);
    }
    none_left = live_.empty();
  }
  ended_.clear();
  if (none_left) all_ended_.notify_all();
}

Status CheckTokenizer(const Tokenizer& tokenizer, const ModelInfo& model) {
  // A model may have more rows than its tokenizer has tokens (padding), never fewer.
  if (tokenizer.vocab_size() <= model.vocab_size) return {};
  return MakeError(ErrorCode::kInvalidArgument,
                   "the tokenizer has {} tokens but the model only {}: they do not belong together",
                   tokenizer.vocab_size(), model.vocab_size);
}

void ChooseKvDtype(const EngineOptions& options, const ProcessMemory& memory, Model* model) {
  const char* own = KvDtypeName(model->info().kv_dtype);
  const std::string shortage = WhyContextDoesNotFit(model->info(), options, memory);
  if (shortage.empty()) {
    spdlog::info("KV cache in {}: the context fits", own);
    return;
  }
  model->SetKvDtype(KvDtype::kInt8);
  spdlog::info("KV cache in int8 rather than {}: {}", own, shortage);
}

}  // namespace

Result<std::unique_ptr<EngineCore>> EngineCore::Start(std::unique_ptr<Model> model,
                                                      const Tokenizer& tokenizer,
                                                      const EngineOptions& options,
                                                      EngineObserver* observer,
                                                      const Clock& clock) {
  QUERN_TRY(CheckTokenizer(tokenizer, model->info()));
  const ProcessMemory memory = ReadProcessMemory();
  if (options.int8_kv_if_short) ChooseKvDtype(options, memory, model.get());
  QUERN_ASSIGN(const MemoryPlan plan, PlanMemory(model->info(), options, memory));
  spdlog::info("memory: {}; the KV cache stores {}", plan.Describe(memory),
               KvDtypeName(model->info().kv_dtype));
  if (plan.context_tokens < model->info().context_tokens && options.max_context_tokens == 0) {
    spdlog::warn("the context is {} tokens instead of the model's {}: the KV cache holds no more",
                 plan.context_tokens, model->info().context_tokens);
  }
  QUERN_TRY(model->AllocateKv(plan.layout));
  return std::unique_ptr<EngineCore>(std::make_unique<ThreadedEngine>(
      std::move(model), tokenizer, options, plan, observer, clock));
}

}  // namespace quern
