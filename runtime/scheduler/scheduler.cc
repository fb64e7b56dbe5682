#include "runtime/scheduler/scheduler.h"

#include <algorithm>
#include <cassert>
#include <cstddef>
#include <span>
#include <utility>

#include "runtime/scheduler/victims.h"

namespace quern {
namespace {

// What a tenant is charged, as in the VTC paper: a token generated costs twice one that is read.
constexpr int64_t kPrefillCost = 1;
constexpr int64_t kDecodeCost = 2;

// The pass over the queues that fills one SchedulerOutput.
class Planner {
 public:
  Planner(SchedulerState& state, const SchedulerLimits& limits) : state_(state), limits_(limits) {
    output_.sequences.reserve(static_cast<size_t>(limits.max_sequences));
  }

  SchedulerOutput Run() {
    ScheduleDecodes();
    SchedulePrefills();
    // A backend lets the last rows of a batch leave it and join it between two layers.
    std::stable_partition(output_.sequences.begin(), output_.sequences.end(),
                          [](const ScheduledSequence& it) { return !it.is_layered(); });
    assert(state_.empty() || output_.num_tokens > 0);
    return std::move(output_);
  }

 private:
  void ScheduleDecodes() {
    // Preemption takes from `running` the sequence at hand or later ones.
    for (size_t i = 0; i < state_.running.size();) {
      Sequence* sequence = state_.running[i];
      if (sequence->decoding()) {
        while (!sequence->waits && !Fits(*sequence, 1)) {
          Sequence* victim = VictimFor(i);
          Preempt(victim == nullptr ? sequence : victim);
          ++output_.num_preempted_kv_full;
        }
        if (sequence->waits) continue;  // the next one is at its place now
        Append(sequence, 1, 0, 0, kAllLayers);
        ++output_.num_decodes;
      }
      ++i;
    }
  }

  // Prefill chunks and newcomers, by FairQueue's order.
  void SchedulePrefills() {
    for (Sequence* sequence : state_.running) {
      if (!sequence->decoding()) prefills_.push_back(sequence);
    }
    // The next of each tenant that got none of this step, for want of room.
    std::vector<const Sequence*> passed_over;
    bool admits = true;
    while (budget() > 0) {
      const auto first = std::min_element(
          prefills_.begin(), prefills_.end(),
          [](const Sequence* a, const Sequence* b) { return FairQueue::Before(*a, *b); });
      Sequence* newcomer = admits ? state_.waiting.Next(passed_over) : nullptr;
      if (newcomer != nullptr &&
          (first == prefills_.end() || FairQueue::Before(*newcomer, **first))) {
        // None overtakes one that does not fit yet, but what is due to its tenant and fits
        // overtakes what is beyond the share of its own.
        switch (Admit(newcomer, passed_over)) {
          case Admission::kAdmitted:
            break;
          case Admission::kMustWait:
            admits = false;
            break;
          case Admission::kBeyondItsShare:
            passed_over.push_back(newcomer);
            break;
        }
      } else if (first != prefills_.end()) {
        Sequence* sequence = *first;
        prefills_.erase(first);
        Prefill(sequence);
      } else {
        return;
      }
    }
  }

  void Prefill(Sequence* sequence) {
    while (!Fits(*sequence, 1)) {
      const auto at = std::find(state_.running.begin(), state_.running.end(), sequence);
      Sequence* victim = VictimFor(static_cast<size_t>(at - state_.running.begin()));
      if (victim == nullptr || victim == sequence) break;
      Preempt(victim);
      ++output_.num_preempted_kv_full;
    }
    if (ChunkOf(*sequence) > 0) AppendChunk(sequence);
  }

  // The next of its prompt; the budget is not used up, and it has room for a token.
  void AppendChunk(Sequence* sequence) {
    if (sequence->held_tokens > limits_.max_batch_tokens - output_.num_decodes) {
      state_.Release(*sequence);
    }
    if (state_.held == sequence) {
      if (sequence->held_tokens > room()) return;  // others were before it in this step
      const int32_t first = sequence->held_layers;
      Append(sequence, sequence->held_tokens, 0, first, LayersFrom(first, sequence->held_tokens));
      return;
    }
    const int32_t chunk = ChunkOf(*sequence);
    const int32_t layered = std::min({limits_.layered_tokens, room(), TokensWithRoom(*sequence)});
    const bool starts = layered > chunk && output_.num_decodes > 0 && state_.held == nullptr &&
                        !HasLayered() && !sequence->every_row;
    const int32_t tokens = starts ? layered : chunk;
    Append(sequence, tokens, PrefillCost(*sequence, tokens), 0,
           starts ? LayersFrom(0, tokens) : kAllLayers);
  }

  // Up to which layer a chunk goes in this step: what another took of the step is not there for it.
  int32_t LayersFrom(int32_t first, int32_t tokens) const {
    if (output_.num_decodes == 0 || limits_.layered_tokens == 0) return kAllLayers;
    const int64_t left =
        StepCost() * std::min(budget(), limits_.max_prefill_tokens) / limits_.max_prefill_tokens;
    const int64_t layers = std::max<int64_t>(1, left / (tokens + limits_.load_tokens));
    return first + layers < limits_.layers ? static_cast<int32_t>(first + layers) : kAllLayers;
  }

  // Tokens of its prompt for this step; the budget is not used up.
  int32_t ChunkOf(const Sequence& sequence) const {
    const int32_t cost = RowCost(sequence);
    const int32_t affordable = std::min((budget() + cost - 1) / cost, room());
    return std::min(affordable, TokensWithRoom(sequence));
  }

  int32_t RowCost(const Sequence& sequence) const {
    return sequence.every_row ? limits_.every_row_cost : 1;
  }

  // Of a layered chunk's part in a step, in layers times tokens.
  int64_t StepCost() const {
    return int64_t{limits_.step_layers} * (limits_.layered_tokens + limits_.load_tokens);
  }

  enum class Admission { kAdmitted, kMustWait, kBeyondItsShare };

  Admission Admit(Sequence* sequence, std::span<const Sequence* const> passed_over) {
    if (!MayGetPlace(*sequence, passed_over.empty())) return Admission::kMustWait;
    // The whole of its prompt must fit beside what the running ones will still take, else two
    // half-filled prompts would take turns at evicting each other.
    const int32_t own =
        BlocksFor(sequence->total_tokens, state_.block_tokens) - FindCached(*sequence);
    const int32_t needed = own + 1;
    const bool fits =
        state_.running.empty() || (HasPlace() && needed <= state_.pool.num_free() - Reserved(1));
    // A step that had to take blocks away has none to give, but to whom they are due.
    if (!fits || output_.num_preempted() > 0 || !passed_over.empty()) {
      const Admission decided = fits && output_.num_preempted() == 0
                                    ? Overtake(*sequence, own)
                                    : MakeRoom(*sequence, own, needed, passed_over.empty());
      if (decided != Admission::kAdmitted) return decided;
    }
    if (!WindowFits()) return Admission::kMustWait;
    for (const Sequence* passed : passed_over) FairQueue::PassOver(*passed, *sequence);
    state_.waiting.Start(sequence);
    state_.running.push_back(sequence);
    TakeCached(sequence);
    AppendChunk(sequence);
    return Admission::kAdmitted;
  }

  bool HasPlace() const {
    return static_cast<int32_t>(state_.running.size()) < limits_.max_sequences;
  }

  // Whether a place is free for the newcomer, or could be made, if it `may`, were it to need no
  // block. Asked before its prefix is looked up: that hashes all of a prompt, for which a full
  // batch would have no use in step after step.
  bool MayGetPlace(const Sequence& newcomer, bool may) const {
    if (state_.running.empty() || HasPlace()) return true;
    const double weight = state_.waiting.ActiveWeight();
    if (newcomer.admitted || !may || weight <= newcomer.account->weight) return false;
    Holdings holdings(state_.running, limits_.max_sequences, state_.pool);
    std::vector<Sequence*> victims;
    return holdings.MakeRoom(
        newcomer, 0, weight, {.places = 1}, [](const Sequence&) { return 0; }, victims);
  }

  // Whether there are window blocks for the prefix that was found and a first chunk. Always where
  // there are WindowBlocksInUse; were there fewer, newcomers would wait here, and decodes preempt.
  bool WindowFits() const {
    const WindowBlocks& window = state_.pool.window();
    if (!window.present()) return true;
    const auto seen = static_cast<size_t>(window.FirstSeen(static_cast<int32_t>(prefix_.size())));
    const auto idle =
        std::count_if(prefix_.begin() + static_cast<std::ptrdiff_t>(seen), prefix_.end(),
                      [&](BlockId block) { return !window.InUse(window.Of(block)); });
    return idle < window.num_free();
  }

  // A token that was computed before the sequence was preempted is not its tenant's to pay again.
  int64_t PrefillCost(const Sequence& sequence, int32_t tokens) const {
    const int32_t paid = std::max(sequence.cached_tokens, sequence.paid_tokens);
    return std::max(0, sequence.cached_tokens + tokens - paid) * kPrefillCost * RowCost(sequence);
  }

  // `own`: blocks for it that no other has yet.
  Admission Overtake(const Sequence& newcomer, int32_t own) const {
    const Holdings holdings(state_.running, limits_.max_sequences, state_.pool);
    return holdings.IsUnderServed(newcomer, own, state_.waiting.ActiveWeight())
               ? Admission::kAdmitted
               : Admission::kBeyondItsShare;
  }

  // Preempts, if it `may`, for a newcomer whose tenant has less than its fair share.
  Admission MakeRoom(const Sequence& newcomer, int32_t own, int32_t needed, bool may) {
    const double weight = state_.waiting.ActiveWeight();
    if (weight <= newcomer.account->weight) return Admission::kMustWait;  // it is the only one
    Holdings holdings(state_.running, limits_.max_sequences, state_.pool);
    if (!holdings.IsUnderServed(newcomer, own, weight)) {
      return HasPlace() && output_.num_preempted() == 0 ? Admission::kBeyondItsShare
                                                        : Admission::kMustWait;
    }
    if (newcomer.admitted || !may) return Admission::kMustWait;
    // The sequences that run need not be left room to grow into: when they have none, it is the
    // over-served ones among them that give way.
    const Holdings::Need need{
        .places = static_cast<int32_t>(state_.running.size()) + 1 - limits_.max_sequences,
        .blocks = needed - (state_.pool.num_free() - Reserved(0))};
    const auto yields = [this](const Sequence& sequence) {
      const auto own =
          std::count_if(sequence.blocks.blocks().begin(), sequence.blocks.blocks().end(),
                        [this](BlockId block) { return state_.pool.Owners(block) == 1; });
      return static_cast<int32_t>(own) + ReservedFor(sequence, 0);
    };
    std::vector<Sequence*> victims;
    if (!holdings.MakeRoom(newcomer, own, weight, need, yields, victims)) {
      return Admission::kMustWait;
    }
    for (Sequence* victim : victims) Preempt(victim);
    output_.num_preempted_fairness += static_cast<int32_t>(victims.size());
    return Admission::kAdmitted;
  }

  // Finds the sequence's cached prefix, into `prefix_`. Returns how many of its blocks have owners:
  // those cost nothing, while an idle one is taken from the free ones.
  int32_t FindCached(const Sequence& sequence) {
    prefix_.clear();
    if (sequence.tokens == nullptr || sequence.every_row) return 0;
    FindPrefix(*sequence.tokens, sequence.total_tokens - 1, sequence.salt, state_.block_tokens,
               state_.pool, prefix_);
    return static_cast<int32_t>(std::count_if(
        prefix_.begin(), prefix_.end(), [&](BlockId block) { return state_.pool.InUse(block); }));
  }

  void TakeCached(Sequence* sequence) {
    sequence->blocks.TakePrefix(prefix_, state_.pool);
    sequence->cached_tokens = sequence->blocks.size() * state_.block_tokens;
    sequence->recomputed_tokens = std::max(0, sequence->lost_tokens - sequence->cached_tokens);
    output_.preempted_tokens += sequence->recomputed_tokens;
    const bool first_time = !std::exchange(sequence->admitted, true);
    if (!first_time || sequence->tokens == nullptr || sequence->every_row) return;
    sequence->hit_tokens = std::min(sequence->cached_tokens, sequence->prompt_tokens);
    output_.prefix_queries += sequence->prompt_tokens;
    output_.prefix_hits += sequence->hit_tokens;
  }

  // Free blocks that are spoken for: the rest of every running prompt, and `growth` more for each
  // sequence.
  int32_t Reserved(int32_t growth) const {
    int32_t reserved = 0;
    for (const Sequence* sequence : state_.running) reserved += ReservedFor(*sequence, growth);
    return reserved;
  }

  int32_t ReservedFor(const Sequence& sequence, int32_t growth) const {
    const int32_t wanted = BlocksFor(sequence.total_tokens, state_.block_tokens) + growth;
    return std::max(0, wanted - sequence.blocks.size());
  }

  bool Fits(const Sequence& sequence, int32_t tokens) const {
    const int32_t wanted = BlocksFor(sequence.cached_tokens + tokens, state_.block_tokens);
    return wanted - sequence.blocks.size() <= state_.pool.room_to_grow();
  }

  // Pending tokens that its blocks and the free ones have room for.
  int32_t TokensWithRoom(const Sequence& sequence) const {
    const int64_t room = static_cast<int64_t>(sequence.blocks.size() + state_.pool.room_to_grow()) *
                             state_.block_tokens -
                         sequence.cached_tokens;
    return static_cast<int32_t>(std::min<int64_t>(sequence.pending_tokens(), room));
  }

  // `cost`: of reading these tokens.
  void Append(Sequence* sequence, int32_t tokens, int64_t cost, int32_t first_layer,
              int32_t end_layer) {
    assert(sequence->cached_tokens / state_.block_tokens >= sequence->blocks.num_published() &&
           "a shared block would be written");
    const bool grown = sequence->blocks.Grow(
        BlocksFor(sequence->cached_tokens + tokens, state_.block_tokens), state_.pool);
    assert(grown && tokens > 0);
    static_cast<void>(grown);
    const bool samples = end_layer == kAllLayers && tokens == sequence->pending_tokens();
    output_.sequences.push_back({sequence, tokens, samples, first_layer, end_layer});
    output_.num_tokens += tokens;
    if (samples) cost += kDecodeCost;
    costs_.push_back(cost);
    FairQueue::Charge(*sequence, cost);
  }

  // The sequence in need is number `first` of the running ones.
  Sequence* VictimFor(size_t first) const {
    const Holdings holdings(state_.running, limits_.max_sequences, state_.pool);
    return holdings.VictimFrom(std::max<size_t>(first, 1));
  }

  // The caller counts it.
  void Preempt(Sequence* victim) {
    const auto given = std::find_if(output_.sequences.begin(), output_.sequences.end(),
                                    [&](const auto& it) { return it.sequence == victim; });
    if (given != output_.sequences.end()) {
      const auto at = given - output_.sequences.begin();
      if (at < output_.num_decodes) --output_.num_decodes;
      output_.num_tokens -= given->num_tokens;
      FairQueue::Charge(*victim, -costs_[static_cast<size_t>(at)]);
      output_.sequences.erase(given);
      costs_.erase(costs_.begin() + at);
    }
    std::erase(prefills_, victim);
    state_.Preempt(victim);
  }

  // Prompt tokens that the step has room for; of those whose every row costs more, fewer.
  int32_t budget() const {
    int64_t prefill = 0;
    for (const ScheduledSequence& scheduled :
         std::span(output_.sequences).subspan(static_cast<size_t>(output_.num_decodes))) {
      prefill += BudgetOf(scheduled);
    }
    const int64_t left = limits_.max_batch_tokens - output_.num_decodes - prefill;
    return static_cast<int32_t>(std::max<int64_t>(
        0, output_.num_decodes == 0 ? left : std::min(left, limits_.max_prefill_tokens - prefill)));
  }

  // What a prompt's part takes of the budget: a layered one beside decodes, of all that these can
  // bear, as much as of its layers.
  int64_t BudgetOf(const ScheduledSequence& scheduled) const {
    const bool shares = scheduled.is_layered() && output_.num_decodes > 0 && StepCost() > 0;
    if (!shares) return int64_t{scheduled.num_tokens} * RowCost(*scheduled.sequence);
    const int64_t layers = std::min(scheduled.end_layer, limits_.layers) - scheduled.first_layer;
    const int64_t cost = layers * (scheduled.num_tokens + limits_.load_tokens);
    return (limits_.max_prefill_tokens * cost + StepCost() - 1) / StepCost();
  }

  bool HasLayered() const {
    return std::any_of(output_.sequences.begin(), output_.sequences.end(),
                       [](const ScheduledSequence& it) { return it.is_layered(); });
  }

  int32_t room() const { return limits_.max_batch_tokens - output_.num_tokens; }

  SchedulerState& state_;
  const SchedulerLimits& limits_;
  SchedulerOutput output_;
  std::vector<int64_t> costs_;       // of output_.sequences, as charged
  std::vector<Sequence*> prefills_;  // run, are not decoding, and have had nothing in this step
  std::vector<BlockId> prefix_;      // what FindCached found
};

}  // namespace

SchedulerOutput Schedule(SchedulerState& state, const SchedulerLimits& limits) {
  assert(limits.max_sequences >= 1 && limits.max_batch_tokens >= limits.max_sequences);
  assert(limits.max_prefill_tokens >= 1);
  return Planner(state, limits).Run();
}

}  // namespace quern
