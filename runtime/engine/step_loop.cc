#include "runtime/engine/step_loop.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <cassert>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <random>
#include <utility>

namespace quern {
namespace {

// A prompt advances by at least so many tokens a step, whatever that costs those that stream.
constexpr int32_t kLeastPrefillTokens = 4;

// How long a step waits, after its forward pass, for masks that are not ready: so much at most does
// a slow grammar add to everybody's step. Its own sequence sits the step out, and pays: what it
// runs again is charged to its tenant.
constexpr std::chrono::milliseconds kMaskPatience{2};

// Of a model with so many layers.
StepShape ShapeOf(const SchedulerOutput& step, int32_t layers) {
  StepShape shape = {.decode_sequences = step.num_decodes};
  for (size_t i = 0; i < step.sequences.size(); ++i) {
    const ScheduledSequence& scheduled = step.sequences[i];
    const int64_t tokens = scheduled.num_tokens;
    const int64_t cached = scheduled.sequence->cached_tokens;
    const double part =
        static_cast<double>(std::min(scheduled.end_layer, layers) - scheduled.first_layer) / layers;
    const auto of = [part](int64_t whole) {
      return static_cast<int64_t>(part * static_cast<double>(whole) + 0.5);
    };
    if (static_cast<int32_t>(i) >= step.num_decodes) {
      shape.prefill_tokens += part * static_cast<double>(tokens);
    }
    shape.attended_tokens += of(tokens * cached + tokens * (tokens + 1) / 2);
    shape.loaded_tokens += of(cached + tokens);
  }
  return shape;
}

// Layers with a window cost less than the others, so that chunks which go through some of them
// would make steps of very different length.
int32_t LayersOf(const ModelInfo& model) {
  return model.window_layers == 0 ? std::max(model.layers, 1) : 1;
}

WindowLayout WindowOf(const ModelInfo& model, const KvLayout& layout) {
  if (layout.window_blocks == 0) return {};
  return {.reach = BlocksFor(model.window_tokens - 1, layout.block_tokens),
          .num_blocks = layout.window_blocks};
}

bool AllFinite(std::span<const float> logits) {
  return std::all_of(logits.begin(), logits.end(),
                     [](float logit) { return std::isfinite(logit); });
}

uint64_t RandomSeed() {
  std::random_device random;
  return uint64_t{random()} << 32 | random();
}

}  // namespace

StepLoop::StepLoop(Model& model, const Tokenizer& tokenizer, const EngineOptions& options,
                   const KvLayout& layout, EngineObserver* observer, const Clock& clock)
    : model_(&model),
      vocab_size_(static_cast<size_t>(model.info().vocab_size)),
      tokenizer_(tokenizer),
      limits_{.max_sequences = options.max_sequences,
              .max_batch_tokens = options.max_batch_tokens,
              .every_row_cost = PromptReader::CostOfRow(model.info()),
              .layers = LayersOf(model.info())},
      max_decode_slowdown_(options.max_decode_slowdown),
      prefix_cache_(options.prefix_cache),
      observer_(observer),
      clock_(clock),
      state_(layout.num_blocks, layout.block_tokens, RandomSeed(), WindowOf(model.info(), layout)),
      batch_builder_(options.max_batch_tokens, options.max_sequences),
      picker_(tokenizer),
      logits_(static_cast<size_t>(options.max_sequences) * vocab_size_),
      masks_(clock) {}

StepLoop::~StepLoop() {
  for (auto& [id, request] : requests_) state_.Remove(&request->sequence);
}

void StepLoop::Detach() {
  assert(!HasWork());
  state_.pool.SetTime(std::nullopt);  // what is forgotten was not evicted
  state_.ForgetCached();
  model_ = nullptr;
  logits_ = {};
}

void StepLoop::Attach(Model& model) {
  assert(model_ == nullptr && static_cast<size_t>(model.info().vocab_size) == vocab_size_);
  logits_.resize(static_cast<size_t>(limits_.max_sequences) * vocab_size_);
  model_ = &model;
}

void StepLoop::Add(std::unique_ptr<ActiveRequest> request) {
  request->sequence.arrival = request->id;
  if (prefix_cache_) request->sequence.tokens = &request->tokens;
  state_.Add(&request->sequence);
  const RequestId id = request->id;
  requests_.emplace(id, std::move(request));
}

void StepLoop::Cancel(RequestId id) {
  const auto it = requests_.find(id);
  if (it == requests_.end()) return;
  GenerationDelta delta = EmptyDelta(*it->second);
  delta.finish = FinishReason::kCancelled;
  End(*it->second, std::move(delta));
}

void StepLoop::CancelAll() {
  while (!requests_.empty()) Cancel(requests_.begin()->first);
}

SchedulerLimits StepLoop::LimitsNow() const {
  SchedulerLimits limits = limits_;
  if (max_decode_slowdown_ <= 0 || !step_times_.ready()) return limits;
  const PrefillPressure pressure = PressureOf(state_, limits_);
  limits.max_prefill_tokens = PrefillBudget(step_times_.fit(), pressure, max_decode_slowdown_,
                                            std::min(kLeastPrefillTokens, limits_.max_batch_tokens),
                                            limits_.max_batch_tokens);
  if (limits_.layers > 1) {
    const LayeredChunk chunk =
        LayeredChunkFor(step_times_.fit(), pressure, max_decode_slowdown_,
                        {.ordinary_tokens = limits.max_prefill_tokens,
                         .least = kLeastPrefillTokens,
                         .most = limits_.max_batch_tokens - limits_.max_sequences,
                         .layers = limits_.layers,
                         .goes_on = state_.held != nullptr});
    limits.layered_tokens = chunk.tokens;
    limits.step_layers = chunk.layers;
    limits.load_tokens = chunk.load_tokens;
  }
  return limits;
}

void StepLoop::Step() {
  const SteadyTime start = clock_.Now();
  if (observer_ != nullptr) state_.pool.SetTime(Seconds(start.time_since_epoch()).count());
  SchedulerOutput step = Schedule(state_, LimitsNow());
  const StepShape shape = ShapeOf(step, limits_.layers);
  preemptions_kv_full_total_ += static_cast<uint64_t>(step.num_preempted_kv_full);
  preemptions_fairness_total_ += static_cast<uint64_t>(step.num_preempted_fairness);
  preempted_tokens_total_ += static_cast<uint64_t>(step.preempted_tokens);
  prefix_queries_total_ += static_cast<uint64_t>(step.prefix_queries);
  prefix_hits_total_ += static_cast<uint64_t>(step.prefix_hits);
  if (step.sequences.empty()) {
    FailAll();
    return;
  }
  step_requests_.clear();
  for (ScheduledSequence& scheduled : step.sequences) {
    ActiveRequest* request = requests_.at(scheduled.sequence->arrival).get();
    if (!request->scheduled) request->scheduled = start;
    if (request->max_tokens == 0) scheduled.samples = false;
    step_requests_.push_back(request);
  }
  const SteadyTime forward_start = clock_.Now();
  double forward_seconds = 0;
  if (const Status status = RunForward(step); status.ok()) {
    forward_seconds = Seconds(clock_.Now() - forward_start).count();
    SampleStep(step);
    // The fit is of steps that have logits of last rows alone.
    step_times_.Observe(shape, Seconds(clock_.Now() - start).count() - prompt_seconds_);
  } else {
    spdlog::error("a forward pass over {} sequences failed: {}", step.sequences.size(),
                  status.error().message);
    for (ActiveRequest* request : step_requests_) {
      Fail(*request, status.error(), FinishReason::kError);
    }
    if (observer_ != nullptr && model_->lost()) observer_->OnModelLost(status.error());
  }
  if (observer_ != nullptr) {
    observer_->OnStep({.seconds = Seconds(clock_.Now() - start).count(),
                       .forward_seconds = forward_seconds,
                       .prefill_tokens = shape.prefill_tokens,
                       .decode_tokens = step.num_decodes,
                       .sequences = static_cast<int32_t>(step.sequences.size())});
    observer_->OnKvBlocks(state_.pool.TakeHistory());
  }
  CheckIntegrity();
}

Status StepLoop::RunForward(SchedulerOutput& step) {
  const ForwardBatch batch = batch_builder_.Build(step, step_requests_, model_->draws());
  BeginMasks(step);
  Status status =
      model_->Forward(batch, std::span(logits_).first(batch.logit_rows.size() * vocab_size_));
  drawn_.resize(batch_builder_.drawn_rows().size());
  if (status.ok() && !drawn_.empty()) {
    status = model_->Draw(batch_builder_.drawn_rows(), batch_builder_.draws(), drawn_);
  } else if (status.ok() && batch.logit_rows.empty()) {
    status = model_->Finish();  // or its time would be the next step's
  }
  const size_t rows = row_masks_.size();
  row_masks_.clear();
  masks_.Wait(kMaskPatience, step.sequences.size() > rows);
  QUERN_TRY(status);
  size_t row = 0;
  for (ScheduledSequence& scheduled : step.sequences) {
    // Its last token stays pending, so that the next step gives the same logits again.
    if (scheduled.samples && !masks_.Ready(row++)) --scheduled.num_tokens;
  }
  state_.Commit(step);
  return {};
}

void StepLoop::BeginMasks(const SchedulerOutput& step) {
  for (size_t i = 0; i < step.sequences.size(); ++i) {
    if (step.sequences[i].samples) {
      row_masks_.push_back(step_requests_[i]->masks);
    }
  }
  masks_.Begin(row_masks_);
}

void StepLoop::SampleStep(const SchedulerOutput& step) {
  size_t row = 0;
  prompt_seconds_ = 0;
  for (size_t i = 0; i < step.sequences.size(); ++i) {
    ActiveRequest& request = *step_requests_[i];
    if (!step.sequences[i].completes()) continue;
    CountPrefill(request);
    if (!ReadPrompt(request, step, i)) {
      if (step.sequences[i].samples) ++row;
      continue;
    }
    if (!step.sequences[i].samples) continue;
    const size_t at = row++;
    if (!masks_.Ready(at)) continue;
    Result<PickedToken> picked = Pick(request, i, at);
    if (picked.ok()) {
      Accept(request, std::move(picked).value(), clock_.Now());
    } else {
      // Constraint::ComputeMask's: what the client asked for, and nothing to look into here.
      const bool format =
          request.constraint != nullptr && picked.error().code == ErrorCode::kResourceExhausted;
      Fail(request, picked.error(), format ? FinishReason::kFormat : FinishReason::kError);
    }
  }
}

Result<PickedToken> StepLoop::Pick(ActiveRequest& request, size_t i, size_t row) {
  const size_t index = batch_builder_.sample_index(i);
  if (batch_builder_.drawn(i)) {
    if (drawn_[index] >= 0) return PickedToken{.token = drawn_[index]};
    request.corrupted = true;
    return MakeError(ErrorCode::kInternal,
                     "the model gave a logit that is not a finite number: no token can be drawn");
  }
  const auto logits = std::span(logits_).subspan(index * vocab_size_, vocab_size_);
  Result<PickedToken> picked = picker_.Pick(request, logits, masks_, row);
  // What the picker writes into them is finite.
  if (!picked.ok()) request.corrupted = !AllFinite(logits);
  return picked;
}

bool StepLoop::ReadPrompt(ActiveRequest& request, const SchedulerOutput& step, size_t i) {
  if (!request.prompt_logprobs && !request.pooling && request.max_tokens > 0) return true;
  GenerationDelta delta = EmptyDelta(request);
  const SteadyTime start = clock_.Now();
  const Result<bool> read =
      prompt_reader_.Read(*model_, step.sequences[i], batch_builder_.first_row(i), request, delta);
  if (!read.ok()) {
    request.corrupted = true;
    Fail(request, read.error(), FinishReason::kError);
    return false;
  }
  prompt_seconds_ += Seconds(clock_.Now() - start).count();
  if (request.max_tokens == 0 && request.sequence.pending_tokens() == 0) {
    delta.finish = FinishReason::kLength;
    End(request, std::move(delta));
    return false;
  }
  if (*read) deliveries_.push_back({&request, std::move(delta)});
  return true;
}

void StepLoop::Accept(ActiveRequest& request, PickedToken picked, SteadyTime now) {
  const TokenId token = picked.token;
  request.tokens.push_back(token);
  ++request.sequence.total_tokens;
  ++generated_tokens_total_;
  ObserveToken(request, now);

  GenerationDelta delta = EmptyDelta(request);
  delta.tokens.push_back(token);
  const bool may_end = !request.ignore_eos || request.constraint != nullptr;
  if (may_end && tokenizer_.IsEndOfGeneration(token)) {
    delta.text = request.text.Finish();
    delta.finish = FinishReason::kStop;
  } else {
    if (request.top_logprobs) {
      request.logprobs.Push({.token = {token, picked.logprob},
                             .top = std::move(picked.top),
                             .text_offset = request.text.decoded_chars()});
    }
    delta.text = request.text.Push(token);
    if (request.text.stopped()) {
      delta.finish = FinishReason::kStop;
    } else if (request.completion_tokens() >= request.max_tokens) {
      delta.text += request.text.Finish();
      delta.finish = FinishReason::kLength;
    }
  }
  if (request.top_logprobs) {
    delta.logprobs = delta.finish && !request.text.stopped()
                         ? request.logprobs.TakeAll()
                         : request.logprobs.Take(request.text.given_chars());
  }
  if (delta.finish) {
    End(request, std::move(delta));
  } else {
    deliveries_.push_back({&request, std::move(delta)});
  }
}

void StepLoop::ObserveToken(ActiveRequest& request, SteadyTime now) {
  if (observer_ != nullptr) {
    if (!request.last_token) {
      observer_->OnFirstToken(now - request.submitted, *request.scheduled - request.submitted);
    } else {
      observer_->OnInterToken(now - *request.last_token);
    }
  }
  if (!request.first_token) request.first_token = now;
  request.last_token = now;
}

void StepLoop::CountPrefill(ActiveRequest& request) {
  const int32_t cached = std::min(request.sequence.cached_tokens, request.prompt_tokens());
  if (cached <= request.prefilled_tokens) return;
  if (request.prefilled_tokens == 0) {
    // One that lost its place before it ran may not find again what it had found.
    const int32_t found = std::min(request.sequence.hit_tokens, cached);
    prompt_tokens_cached_total_ += static_cast<uint64_t>(found);
  }
  prompt_tokens_total_ += static_cast<uint64_t>(cached - request.prefilled_tokens);
  request.prefilled_tokens = cached;
}

void StepLoop::End(ActiveRequest& request, GenerationDelta delta) {
  assert(delta.finish.has_value());
  state_.Remove(&request.sequence);
  if (observer_ != nullptr) ObserveEnd(request, *delta.finish);
  deliveries_.push_back({&request, std::move(delta)});
  auto node = requests_.extract(request.id);
  ended_.push_back(std::move(node.mapped()));
}

void StepLoop::ObserveEnd(const ActiveRequest& request, FinishReason reason) {
  const int32_t hits = request.sequence.hit_tokens;
  FinishedStats stats{.reason = reason,
                      .since_submit = clock_.Now() - request.submitted,
                      .prompt_tokens = request.prompt_tokens(),
                      .completion_tokens = request.completion_tokens(),
                      .cached_tokens = hits,
                      .computed_tokens = std::max(0, request.prefilled_tokens - hits),
                      .max_tokens = request.max_tokens,
                      .corrupted = request.corrupted,
                      .tenant = request.tenant};
  if (request.first_token) {
    stats.prefill = *request.first_token - *request.scheduled;
    stats.decode = *request.last_token - *request.first_token;
  }
  observer_->OnFinished(stats);
}

void StepLoop::Fail(ActiveRequest& request, const Error& error, FinishReason reason) {
  GenerationDelta delta = EmptyDelta(request);
  delta.finish = reason;
  delta.error = error.message;
  spdlog::log(reason == FinishReason::kError ? spdlog::level::err : spdlog::level::info,
              "request {} ends: {}", request.id, error.message);
  End(request, std::move(delta));
}

// The scheduler promises that this cannot happen; if it does, a loop that spins for ever would be
// worse.
void StepLoop::FailAll() {
  assert(false && "work waits, yet nothing was scheduled");
  const Error error = MakeError(ErrorCode::kInternal, "the scheduler found no way to go on");
  spdlog::critical("{}; {} requests end", error.message, requests_.size());
  while (!requests_.empty()) Fail(*requests_.begin()->second, error, FinishReason::kError);
}

void StepLoop::Deliver(std::vector<RequestId>& ended) {
  for (Delivery& delivery : deliveries_) delivery.request->sink(std::move(delivery.delta));
  deliveries_.clear();
  for (const auto& request : ended_) ended.push_back(request->id);
  ended_.clear();
}

EngineStats StepLoop::Stats() const {
  return {.running = static_cast<int32_t>(state_.running.size()),
          .waiting = static_cast<int32_t>(state_.waiting.size()),
          .kv_blocks_used = state_.pool.num_used(),
          .kv_blocks_total = state_.pool.num_blocks(),
          .kv_block_tokens = state_.block_tokens,
          .kv_window_blocks_used = state_.pool.window().num_used(),
          .kv_window_blocks_total = state_.pool.window().num_blocks(),
          .prompt_tokens_total = prompt_tokens_total_,
          .prompt_tokens_cached_total = prompt_tokens_cached_total_,
          .generated_tokens_total = generated_tokens_total_,
          .preemptions_kv_full_total = preemptions_kv_full_total_,
          .preemptions_fairness_total = preemptions_fairness_total_,
          .preempted_tokens_total = preempted_tokens_total_,
          .step_times = step_times_.fit(),
          .step_time_error_ratio = step_times_.error_ratio(),
          .prefix_queries_total = prefix_queries_total_,
          .prefix_hits_total = prefix_hits_total_};
}

GenerationDelta StepLoop::EmptyDelta(const ActiveRequest& request) const {
  GenerationDelta delta;
  delta.prompt_tokens = request.prompt_tokens();
  delta.completion_tokens = request.completion_tokens();
  delta.cached_tokens = request.sequence.hit_tokens;
  return delta;
}

// A wrong block table gives one tenant's text to another: a debug build stops at once.
void StepLoop::CheckIntegrity() const {
#ifndef NDEBUG
  if (const Status status = state_.CheckIntegrity(); !status.ok()) {
    spdlog::critical("KV accounting is broken: {}", status.error().message);
    std::abort();
  }
#endif
}

}  // namespace quern
