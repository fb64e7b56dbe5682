#include "operator/simulation/replica.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>

namespace quern::simulation {
namespace {

using Counter = control::PodCounters::Field;

// A prompt advances by so many tokens a step, whatever that costs those that stream: as the
// engine's.
constexpr int32_t kLeastPrefillTokens = 4;
constexpr double kNever = std::numeric_limits<double>::infinity();

// How long `steps` take of which the first takes `first` seconds and each one `growth` more.
double SumOf(double first, double growth, double steps) {
  return steps * first + growth * steps * (steps - 1) / 2;
}

// The most steps, up to `most`, that take `seconds` at most.
int64_t StepsWithin(double first, double growth, double seconds, int64_t most) {
  if (SumOf(first, growth, static_cast<double>(most)) <= seconds) return most;
  // growth/2 k^2 + (first - growth/2) k = seconds, in the form that loses nothing for growth ~ 0.
  const double linear = first - growth / 2;
  const double root = std::sqrt(linear * linear + 2 * growth * std::max(seconds, 0.0));
  auto steps = static_cast<int64_t>(2 * std::max(seconds, 0.0) / (linear + root));
  steps = std::clamp<int64_t>(steps, 0, most);
  while (steps > 0 && SumOf(first, growth, static_cast<double>(steps)) > seconds) --steps;
  while (steps < most && SumOf(first, growth, static_cast<double>(steps + 1)) <= seconds) ++steps;
  return steps;
}

}  // namespace

SimReplica::SimReplica(const ReplicaProfile& profile, const Load& load,
                       std::vector<Outcome>& outcomes, GapHistogram& gaps)
    : profile_(profile),
      load_(load),
      outcomes_(outcomes),
      gaps_(gaps),
      next_end_(kNever),
      prefixes_(static_cast<size_t>(profile.kv_tokens / bench::kTraceBlockTokens)) {}

void SimReplica::Add(uint32_t request) {
  const bench::TraceRequest& asked = load_[request];
  if (int64_t{asked.prompt_tokens} + asked.output_tokens > profile_.kv_tokens) {
    outcomes_[request].refused = true;
    return;
  }
  ++outstanding_;
  outstanding_arrivals_ += asked.at;
  counters_[Counter::kAdmittedRequests] += 1;
  counters_[Counter::kAdmittedPromptTokens] += asked.prompt_tokens;
  waiting_.push_back({request});
  if (next_end_ == kNever) next_end_ = asked.at;  // it was idle
}

void SimReplica::Advance(double time) {
  while (true) {
    if (planned_) {
      if (now_ + planned_seconds_ > time) {
        next_end_ = now_ + planned_seconds_;
        return;
      }
      Commit();
      continue;
    }
    if (running() == 0) {
      if (waiting_.empty()) {
        next_end_ = kNever;
        return;
      }
      now_ = std::max(now_, load_[waiting_.front().request].at);
    }
    if (now_ >= time) {  // who arrives just now is in the step, too
      next_end_ = now_;
      return;
    }
    MakeRoom();
    if (Prefills()) {
      Plan();
      continue;
    }
    const double before = now_;
    RunDecodes(time);
    if (now_ == before) return;
  }
}

bool SimReplica::CanAdmit() const {
  if (waiting_.empty() || running() >= profile_.max_sequences) return false;
  const Waiting& next = waiting_.front();
  if (load_[next.request].at > now_) return false;
  const int64_t need = load_[next.request].prompt_tokens + next.generated;
  const auto decodes = static_cast<int64_t>(decoding_.size());
  return running() == 0 || Held() + decodes + need <= profile_.kv_tokens;
}

bool SimReplica::Prefills() const { return !prefilling_.empty() || CanAdmit(); }

void SimReplica::Admit() {
  const Waiting next = waiting_.front();
  waiting_.pop_front();
  Active active{next, next_rank_++};
  const bench::TraceRequest& asked = load_[next.request];
  active.prompt = asked.prompt_tokens + next.generated;
  const auto hits = static_cast<int64_t>(prefixes_.Match(asked.blocks));
  active.cached =
      static_cast<int32_t>(std::min<int64_t>(hits * bench::kTraceBlockTokens, active.prompt - 1));
  reserved_ += active.prompt;
  prefilling_.push_back(active);
}

// The next step, which has prompt tokens in it: SchedulerLimits' order of service.
void SimReplica::Plan() {
  // The last token of a prompt counts as a decode: it costs the same (Sequence::decoding).
  const auto at_last_token = [](const Active& active) {
    return active.cached > 0 && active.prompt - active.cached == 1;
  };
  const auto reads = std::find_if_not(prefilling_.begin(), prefilling_.end(), at_last_token);
  const auto last_tokens =
      static_cast<int32_t>(std::count_if(prefilling_.begin(), prefilling_.end(), at_last_token));
  const auto decodes = static_cast<int32_t>(decoding_.size()) + last_tokens;
  const auto eligible = std::upper_bound(
      waiting_.begin(), waiting_.end(), now_,
      [&](double now, const Waiting& waiting) { return now < load_[waiting.request].at; });
  const auto places = profile_.max_sequences - static_cast<int32_t>(running());
  PrefillPressure pressure;
  pressure.decoding = decodes;
  pressure.decode_context = decode_context_;
  for (const Active& active : prefilling_) {
    if (at_last_token(active)) pressure.decode_context += active.prompt;
  }
  pressure.prefilling = static_cast<int32_t>(prefilling_.size()) - last_tokens +
                        std::min(places, static_cast<int32_t>(std::min<std::ptrdiff_t>(
                                             eligible - waiting_.begin(), profile_.max_sequences)));
  pressure.prefill_context = reads == prefilling_.end() ? 0 : reads->cached;
  int32_t budget = std::min(profile_.max_batch_tokens - decodes,
                            PrefillBudget(profile_.times, pressure, profile_.max_decode_slowdown,
                                          std::min(kLeastPrefillTokens, profile_.max_batch_tokens),
                                          profile_.max_batch_tokens));
  StepShape shape{.decode_sequences = decodes,
                  .attended_tokens = decode_context_,
                  .loaded_tokens = decode_context_};
  chunks_.clear();
  const size_t known = prefilling_.size();
  for (size_t place = 0; budget > 0 || place < known; ++place) {
    if (place == prefilling_.size()) {
      if (!CanAdmit()) break;
      Admit();
    }
    const Active& active = prefilling_[place];
    const bool decodes_last = place < known && at_last_token(active);
    const int32_t tokens = decodes_last ? 1 : std::min(budget, active.prompt - active.cached);
    if (tokens == 0) continue;
    chunks_.push_back({place, tokens});
    if (!decodes_last) {
      budget -= tokens;
      shape.prefill_tokens += tokens;
    }
    shape.attended_tokens += int64_t{tokens} * active.cached + int64_t{tokens} * (tokens + 1) / 2;
    shape.loaded_tokens += active.cached + tokens;
  }
  planned_ = true;
  planned_seconds_ = profile_.times.Predict(shape);
}

void SimReplica::Commit() {
  planned_ = false;
  now_ += planned_seconds_;
  busy_seconds_ += planned_seconds_;
  const auto decodes = static_cast<double>(decoding_.size());
  if (decodes > 0) {
    gaps_.Add(planned_seconds_, decodes);
    ++clock_;
    decode_context_ += static_cast<int64_t>(decoding_.size());
    counters_[Counter::kGeneratedTokens] += decodes;
    FinishDecodes();
  }
  for (const Chunk& chunk : chunks_) {
    prefilling_[chunk.place].cached += chunk.tokens;
    counters_[Counter::kPrefilledTokens] += chunk.tokens;
  }
  size_t kept = 0;
  for (size_t i = 0; i < prefilling_.size(); ++i) {
    if (prefilling_[i].cached < prefilling_[i].prompt) {
      prefilling_[kept++] = prefilling_[i];
    } else {
      StartDecoding(prefilling_[i]);
    }
  }
  prefilling_.resize(kept, Active{});
}

// Its prompt is done, and with it the step that gave one token more.
void SimReplica::StartDecoding(Active active) {
  const uint32_t request = active.from.request;
  reserved_ -= active.prompt;
  prefixes_.Insert(load_[request].blocks);
  counters_[Counter::kGeneratedTokens] += 1;
  if (active.from.generated == 0) {
    outcomes_[request].first_token = now_;
  } else {
    gaps_.Add(now_ - active.from.last_token, 1);
  }
  const int32_t left = load_[request].output_tokens - active.from.generated - 1;
  if (left == 0) return Finish(request);
  decode_context_ += active.prompt + 1;
  active.finish_clock = clock_ + left;
  decoding_.push_back(active);
  std::push_heap(decoding_.begin(), decoding_.end(),
                 [](const Active& a, const Active& b) { return a.finish_clock > b.finish_clock; });
}

void SimReplica::FinishDecodes() {
  while (!decoding_.empty() && decoding_.front().finish_clock == clock_) {
    const uint32_t request = decoding_.front().from.request;
    decode_context_ -= load_[request].prompt_tokens + load_[request].output_tokens;
    Finish(request);
    std::pop_heap(decoding_.begin(), decoding_.end(),
                  [](const Active& a, const Active& b) { return a.finish_clock > b.finish_clock; });
    decoding_.pop_back();
  }
}

void SimReplica::Finish(uint32_t request) {
  outcomes_[request].finish = last_finish_ = now_;
  --outstanding_;
  outstanding_arrivals_ -= load_[request].at;
  finished_seconds_ += now_ - load_[request].at;
  counters_[Counter::kFinishedRequests] += 1;
}

// Steps that only decode, as many as end by `time` and are alike: until one finishes, the KV cache
// is full, or a request comes.
void SimReplica::RunDecodes(double time) {
  const auto sequences = static_cast<int64_t>(decoding_.size());
  const StepShape shape{.decode_sequences = static_cast<int32_t>(sequences),
                        .attended_tokens = decode_context_,
                        .loaded_tokens = decode_context_};
  const double first = profile_.times.Predict(shape);
  const double growth = (profile_.times.per_attended_token + profile_.times.per_loaded_token) *
                        static_cast<double>(sequences);
  int64_t most =
      std::min(decoding_.front().finish_clock - clock_, (profile_.kv_tokens - Held()) / sequences);
  most = std::max<int64_t>(most, 1);  // alone, it fits to its end
  if (!waiting_.empty() && load_[waiting_.front().request].at > now_) {
    const double wait = load_[waiting_.front().request].at - now_;
    const int64_t before = StepsWithin(first, growth, wait, most);
    // The step during which it comes runs to its end.
    const bool on_time = SumOf(first, growth, static_cast<double>(before)) >= wait;
    most = std::min(most, on_time ? before : before + 1);
  }
  const int64_t steps = StepsWithin(first, growth, time - now_, most);
  next_end_ = now_ + first;
  if (steps == 0) return;
  const double seconds = SumOf(first, growth, static_cast<double>(steps));
  now_ += seconds;
  busy_seconds_ += seconds;
  clock_ += steps;
  decode_context_ += steps * sequences;
  counters_[Counter::kGeneratedTokens] += static_cast<double>(steps * sequences);
  AddGaps(first, growth, steps);
  FinishDecodes();
}

void SimReplica::AddGaps(double first, double growth, int64_t steps) {
  const auto sequences = static_cast<double>(decoding_.size());
  // In parts whose steps differ by 1 % at most.
  const double spread = growth * static_cast<double>(steps - 1) / first;
  const auto parts = std::clamp<int64_t>(static_cast<int64_t>(spread / 0.01) + 1, 1, steps);
  int64_t done = 0;
  for (int64_t part = 1; part <= parts; ++part) {
    const int64_t upto = steps * part / parts;
    const double middle = static_cast<double>(done + upto - 1) / 2;
    gaps_.Add(first + growth * middle, sequences * static_cast<double>(upto - done));
    done = upto;
  }
}

// Every sequence that decodes needs a token's room in the next step.
void SimReplica::MakeRoom() {
  while (running() > 1 && Held() + static_cast<int64_t>(decoding_.size()) > profile_.kv_tokens) {
    Preempt();
  }
}

// The one admitted last goes back to the head of the queue, to be computed again.
void SimReplica::Preempt() {
  ++preemptions_;
  const auto later = [](const Active& a, const Active& b) { return a.rank < b.rank; };
  const auto decode = std::max_element(decoding_.begin(), decoding_.end(), later);
  if (decode == decoding_.end() ||
      (!prefilling_.empty() && prefilling_.back().rank > decode->rank)) {
    reserved_ -= prefilling_.back().prompt;
    waiting_.push_front(prefilling_.back().from);
    prefilling_.pop_back();
    return;
  }
  const uint32_t request = decode->from.request;
  const auto left = static_cast<int32_t>(decode->finish_clock - clock_);
  const int32_t generated = load_[request].output_tokens - left;
  decode_context_ -= load_[request].prompt_tokens + generated;
  waiting_.push_front({request, generated, now_});
  decoding_.erase(decode);
  std::make_heap(decoding_.begin(), decoding_.end(),
                 [](const Active& a, const Active& b) { return a.finish_clock > b.finish_clock; });
}

}  // namespace quern::simulation
