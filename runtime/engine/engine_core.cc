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
        info_(model_->info()),
        layout_(plan.layout),
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
  Status Sleep(std::chrono::milliseconds timeout) override;
  Status Wake(std::unique_ptr<Model> model) override;

  int32_t max_context_tokens() const override { return context_tokens_; }
  int32_t embedding_width() const override { return info_.width; }
  std::optional<Pooling> pooling() const override { return info_.pooling; }
  int32_t max_requests(const Tenant* tenant) const override {
    const auto all = static_cast<int32_t>(max_live_);
    if (tenant == nullptr) return all;
    return tenant->max_requests > 0 ? std::min(tenant->max_requests, all) : std::max(1, all / 2);
  }

 private:
  void Run();
  bool TakeMail();  // waits for something to do; false when the engine is to stop
  void ChangeModel();
  void Publish();
  void Retire();
  struct Live {
    bool cancel_requested = false;
    std::string tenant;
  };
  // The rest: with mutex_ held.
  void RequestCancel(RequestId id, Live& live);
  Status CheckRoom(const Tenant* tenant) const;  // for one more request of it (null: nameless)

  std::unique_ptr<Model> model_;  // the engine thread's; null: asleep
  const ModelInfo info_;
  const KvLayout layout_;
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
  bool resting_ = false;       // takes nothing new: falls asleep, or sleeps
  bool sleep_wanted_ = false;  // the engine thread sees to it; only without live requests
  bool asleep_ = false;
  std::unique_ptr<Model> next_model_;  // to wake with
  std::condition_variable model_changed_;
  EngineStats published_;
  mutable TokenRate rate_;
  SteadyTime last_progress_;
  std::mt19937_64 seeds_;  // for requests that name no seed

  std::thread thread_;  // last: it uses all of the above
};

Result<RequestId> ThreadedEngine::Submit(GenerationRequest request, DeltaSink sink) {
  // First, so that who floods costs no more than this; and once more when the request is built.
  {
    const std::lock_guard lock(mutex_);
    QUERN_TRY(CheckRoom(request.tenant.get()));
  }
  QUERN_TRY(CheckRequest(request, info_.vocab_size, context_tokens_));
  auto active = std::make_unique<ActiveRequest>(std::move(request), std::move(sink), tokenizer_);
  active->submitted = clock_.Now();
  RequestId id = 0;
  {
    const std::lock_guard lock(mutex_);
    QUERN_TRY(CheckRoom(active->tenant.get()));
    const std::string& tenant = active->sequence.tenant;
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

Status ThreadedEngine::CheckRoom(const Tenant* tenant) const {
  if (draining_ || stopping_) {
    return MakeError(ErrorCode::kUnavailable, "the engine is shutting down; try another replica");
  }
  if (resting_) {
    return MakeError(ErrorCode::kUnavailable, "the model sleeps; try another replica");
  }
  if (live_.size() >= max_live_) {
    return MakeError(ErrorCode::kResourceExhausted,
                     "{} requests are running or waiting, which is the limit; try again later",
                     live_.size());
  }
  if (tenant == nullptr) return {};
  const auto it = live_of_tenant_.find(tenant->name);
  if (it == live_of_tenant_.end()) return {};
  // Without a limit of its own it may have as many as there is room for yet (dynamic thresholds;
  // Choudhury and Hahne 1998): one alone half of all, two a third each; some is always left.
  const auto left = static_cast<int32_t>(max_live_ - live_.size());
  if (it->second < (tenant->max_requests > 0 ? tenant->max_requests : left)) return {};
  return MakeError(ErrorCode::kPermissionDenied,
                   "{} requests of '{}' are running or waiting, which is its limit{}; try again "
                   "when one has ended",
                   it->second, tenant->name,
                   tenant->max_requests > 0 ? "" : " while others have theirs");
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
  stats.kv_dtype = info_.kv_dtype;
  stats.asleep = asleep_;
  if (asleep_) stats.kv_blocks_total = stats.kv_window_blocks_total = 0;
  return stats;
}

Status ThreadedEngine::Sleep(std::chrono::milliseconds timeout) {
  std::unique_lock lock(mutex_);
  if (draining_) return MakeError(ErrorCode::kUnavailable, "the engine is shutting down");
  if (asleep_) return {};
  resting_ = true;
  if (!all_ended_.wait_for(lock, timeout, [this] { return live_.empty(); })) {
    resting_ = false;
    return MakeError(ErrorCode::kDeadlineExceeded,
                     "{} requests were not done within {} ms; they go on, and the model is awake",
                     live_.size(), timeout.count());
  }
  sleep_wanted_ = true;
  wake_.notify_one();
  model_changed_.wait(lock, [this] { return asleep_; });
  return {};
}

// kConflict says what differs in a way that the engine would not bear, or that shows another model.
Status CheckSame(const ModelInfo& was, const ModelInfo& is) {
  const auto check = [](const char* what, const auto& before, const auto& now) -> Status {
    if (before == now) return {};
    return MakeError(ErrorCode::kConflict,
                     "the file holds another model than before: {} was {} and is {}; restart the "
                     "server to change models",
                     what, before, now);
  };
  QUERN_TRY(check("its architecture", was.architecture, is.architecture));
  QUERN_TRY(check("its number of parameters", was.parameters, is.parameters));
  QUERN_TRY(check("its quantisation", was.quantization, is.quantization));
  QUERN_TRY(check("its vocabulary", was.vocab_size, is.vocab_size));
  QUERN_TRY(check("its number of layers", was.layers, is.layers));
  QUERN_TRY(check("its number of layers with a window", was.window_layers, is.window_layers));
  QUERN_TRY(check("its window, in tokens,", was.window_tokens, is.window_tokens));
  return check("its KV cache of a token, in bytes,", was.kv_bytes_per_token, is.kv_bytes_per_token);
}

Status ThreadedEngine::Wake(std::unique_ptr<Model> model) {
  {
    const std::lock_guard lock(mutex_);
    if (!asleep_) return {};
  }
  // What ChooseKvDtype may have chosen.
  if (model->info().kv_dtype != info_.kv_dtype) model->SetKvDtype(info_.kv_dtype);
  QUERN_TRY(CheckSame(info_, model->info()));
  QUERN_TRY(model->AllocateKv(layout_));
  std::unique_lock lock(mutex_);
  next_model_ = std::move(model);
  sleep_wanted_ = false;
  wake_.notify_one();
  model_changed_.wait(lock, [this] { return !asleep_; });
  resting_ = false;
  return {};
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
    ChangeModel();
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
    return stopping_ || !mail_.empty() || !cancel_mail_.empty() || loop_.HasWork() ||
           sleep_wanted_ != asleep_;
  });
  std::swap(mail_, arrivals_);
  std::swap(cancel_mail_, cancellations_);
  // Until the next Publish these wait here and not in the mailbox.
  published_.waiting += static_cast<int32_t>(arrivals_.size());
  return !stopping_;
}

// Falls asleep or wakes up if that is wanted. There are no requests then.
void ThreadedEngine::ChangeModel() {
  {
    const std::lock_guard lock(mutex_);
    if (sleep_wanted_ == asleep_) return;
    model_.swap(next_model_);
  }
  if (model_) {
    loop_.Attach(*model_);
  } else {
    loop_.Detach();
    next_model_.reset();
  }
  {
    const std::lock_guard lock(mutex_);
    asleep_ = model_ == nullptr;
  }
  model_changed_.notify_all();
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

// Of the KV cache, for one sequence as long as the model allows.
int64_t BytesOfContext(const ModelInfo& model, const EngineOptions& options) {
  return KvMemoryFor(model, options, BlocksFor(model.context_tokens, options.kv_block_tokens));
}

// Where the model's weights are, its KV cache will be.
Result<ProcessMemory> MemoryFor(const Model& model) {
  QUERN_ASSIGN(const std::optional<BackendMemory> device, model.device_memory());
  if (!device) return ReadProcessMemory(model.info().ranks);
  return ProcessMemory{.limit_bytes = device->total_bytes,
                       .on_device = true,
                       .resident_bytes = device->total_bytes - device->free_bytes};
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
  QUERN_TRY(model->ReserveSteps(
      options.max_batch_tokens, options.max_sequences,
      options.max_context_tokens > 0 ? options.max_context_tokens : model->info().context_tokens));
  QUERN_ASSIGN(const ProcessMemory memory, MemoryFor(*model));
  if (options.int8_kv_if_short) ChooseKvDtype(options, memory, model.get());
  QUERN_ASSIGN(const MemoryPlan plan, PlanMemory(model->info(), options, memory));
  spdlog::info("memory: {}; the KV cache stores {}", plan.Describe(memory),
               KvDtypeName(model->info().kv_dtype));
  if (plan.context_tokens < model->info().context_tokens && options.max_context_tokens == 0) {
    spdlog::warn(
        "the context is {} tokens instead of the model's {}: the KV cache holds no more, and all "
        "of "
        "the model's take --kv-memory {}MiB",
        plan.context_tokens, model->info().context_tokens,
        BytesOfContext(model->info(), options) / (1 << 20) + 1);
  }
  QUERN_TRY(model->AllocateKv(plan.layout));
  return std::unique_ptr<EngineCore>(std::make_unique<ThreadedEngine>(
      std::move(model), tokenizer, options, plan, observer, clock));
}

}  // namespace quern
