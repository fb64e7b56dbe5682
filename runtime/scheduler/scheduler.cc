#include "runtime/scheduler/scheduler.h"

#include <algorithm>
#include <cassert>
#include <cstddef>

namespace quern {
namespace {

// The pass over the queues that fills one SchedulerOutput.
class Planner {
 public:
  Planner(SchedulerState& state, const SchedulerLimits& limits) : state_(state), limits_(limits) {
    output_.sequences.reserve(static_cast<size_t>(limits.max_sequences));
  }

  SchedulerOutput Run() {
    ScheduleDecodes();
    SchedulePrefills();
    // A step that had to take blocks away has none to give to newcomers.
    if (output_.num_preempted == 0) Admit();
    assert(state_.empty() || output_.num_tokens > 0);
    return std::move(output_);
  }

 private:
  void ScheduleDecodes() {
    // Preemption shortens `running` from its end, never before the sequence at hand.
    for (size_t i = 0; i < state_.running.size(); ++i) {
      Sequence* sequence = state_.running[i];
      if (!sequence->decoding()) continue;
      while (!Fits(*sequence, 1)) {
        Preempt();
        if (i >= state_.running.size()) return;  // it was itself the latest
      }
      Append(sequence, 1);
      ++output_.num_decodes;
    }
  }

  void SchedulePrefills() {
    for (size_t i = 0; i < state_.running.size() && budget() > 0; ++i) {
      Sequence* sequence = state_.running[i];
      if (sequence->decoding()) continue;
      while (!Fits(*sequence, 1) && i + 1 < state_.running.size()) Preempt();
      const int32_t chunk = std::min(budget(), TokensWithRoom(*sequence));
      if (chunk > 0) Append(sequence, chunk);
    }
  }

  void Admit() {
    int32_t reserved = Reserved();
    while (!state_.waiting.empty() && budget() > 0 &&
           static_cast<int32_t>(state_.running.size()) < limits_.max_sequences) {
      Sequence* sequence = state_.waiting.front();
      // The whole of its prompt must fit beside what the running ones will still take, else two
      // half-filled prompts would take turns at evicting each other.
      const int32_t wanted = BlocksFor(sequence->total_tokens, state_.block_tokens);
      const int32_t owned = FindCached(*sequence);
      if (!state_.running.empty() && wanted - owned + 1 > state_.pool.num_free() - reserved) return;
      state_.waiting.pop_front();
      state_.running.push_back(sequence);
      TakeCached(sequence);
      const int32_t chunk = std::min(budget(), TokensWithRoom(*sequence));
      Append(sequence, chunk);
      reserved += wanted - sequence->blocks.size() + 1;
    }
  }

  // Finds the sequence's cached prefix, into `prefix_`. Returns how many of its blocks have owners:
  // those cost nothing, while an idle one is taken from the free ones.
  int32_t FindCached(const Sequence& sequence) {
    prefix_.clear();
    if (sequence.tokens == nullptr) return 0;
    FindPrefix(*sequence.tokens, sequence.total_tokens - 1, sequence.salt, state_.block_tokens,
               state_.pool, prefix_);
    return static_cast<int32_t>(std::count_if(
        prefix_.begin(), prefix_.end(), [&](BlockId block) { return state_.pool.InUse(block); }));
  }

  void TakeCached(Sequence* sequence) {
    sequence->blocks.TakePrefix(prefix_, state_.pool);
    sequence->cached_tokens = sequence->blocks.size() * state_.block_tokens;
    output_.preempted_tokens += std::max(0, sequence->lost_tokens - sequence->cached_tokens);
    if (sequence->admitted || sequence->tokens == nullptr) return;
    sequence->admitted = true;
    sequence->hit_tokens = std::min(sequence->cached_tokens, sequence->prompt_tokens);
    output_.prefix_queries += sequence->prompt_tokens;
    output_.prefix_hits += sequence->hit_tokens;
  }

  // Free blocks that are spoken for: the rest of every running prompt, and one more for each
  // sequence to grow into.
  int32_t Reserved() const {
    int32_t reserved = 0;
    for (const Sequence* sequence : state_.running) {
      const int32_t wanted = BlocksFor(sequence->total_tokens, state_.block_tokens) + 1;
      reserved += std::max(0, wanted - sequence->blocks.size());
    }
    return reserved;
  }

  bool Fits(const Sequence& sequence, int32_t tokens) const {
    const int32_t wanted = BlocksFor(sequence.cached_tokens + tokens, state_.block_tokens);
    return wanted - sequence.blocks.size() <= state_.pool.num_free();
  }

  // Pending tokens that its blocks and the free ones have room for.
  int32_t TokensWithRoom(const Sequence& sequence) const {
    const int64_t room = static_cast<int64_t>(sequence.blocks.size() + state_.pool.num_free()) *
                             state_.block_tokens -
                         sequence.cached_tokens;
    return static_cast<int32_t>(std::min<int64_t>(sequence.pending_tokens(), room));
  }

  void Append(Sequence* sequence, int32_t tokens) {
    assert(sequence->cached_tokens / state_.block_tokens >= sequence->blocks.num_published() &&
           "a shared block would be written");
    const bool grown = sequence->blocks.Grow(
        BlocksFor(sequence->cached_tokens + tokens, state_.block_tokens), state_.pool);
    assert(grown && tokens > 0);
    static_cast<void>(grown);
    output_.sequences.push_back({sequence, tokens, tokens == sequence->pending_tokens()});
    output_.num_tokens += tokens;
  }

  void Preempt() {
    // The latest arrival may have been given its decode in this step already; a prefill chunk it
    // cannot have been given, as those go by arrival and the one in need came earlier.
    const auto given =
        std::find_if(output_.sequences.begin(), output_.sequences.end(),
                     [&](const auto& it) { return it.sequence == state_.running.back(); });
    if (given != output_.sequences.end()) {
      assert(given - output_.sequences.begin() < output_.num_decodes);
      output_.num_tokens -= given->num_tokens;
      --output_.num_decodes;
      output_.sequences.erase(given);
    }
    state_.PreemptLatest();
    ++output_.num_preempted;
  }

  // Prompt tokens that the step has room for.
  int32_t budget() const {
    const int32_t room = limits_.max_batch_tokens - output_.num_tokens;
    if (output_.num_decodes == 0) return room;
    const int32_t prefill_tokens = output_.num_tokens - output_.num_decodes;
    return std::min(room, limits_.max_prefill_tokens - prefill_tokens);
  }

  SchedulerState& state_;
  const SchedulerLimits& limits_;
  SchedulerOutput output_;
  std::vector<BlockId> prefix_;  // what FindCached found
};

}  // namespace

SchedulerOutput Schedule(SchedulerState& state, const SchedulerLimits& limits) {
  assert(limits.max_sequences >= 1 && limits.max_batch_tokens >= limits.max_sequences);
  assert(limits.max_prefill_tokens >= 1);
  return Planner(state, limits).Run();
}

}  // namespace quern
