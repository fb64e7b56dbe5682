// Random histories: whatever arrives, is cancelled and finishes, the scheduler's promises hold at
// every step.

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "runtime/scheduler/scheduler.h"

namespace quern {
namespace {

struct Load {
  int32_t num_blocks;
  int32_t block_tokens;
  SchedulerLimits limits;
  double arrivals_per_step;
  double cancel_rate;
  int32_t longest = 0;  // tokens of a sequence; 0: up to the whole cache
  bool shared = false;  // with tokens: many sequences begin alike, some under another salt
  int32_t tenants = 1;
  int32_t window = 0;         // tokens that some of the layers see; 0: no such layers
  int32_t window_blocks = 0;  // 0: WindowBlocksInUse
};

WindowLayout WindowOf(const Load& load) {
  if (load.window == 0) return {};
  const int32_t reach = BlocksFor(load.window - 1, load.block_tokens);
  const auto in_use = static_cast<int32_t>(WindowBlocksInUse(
      reach, load.block_tokens, load.limits.max_sequences, load.limits.max_batch_tokens));
  return {.reach = reach, .num_blocks = load.window_blocks > 0 ? load.window_blocks : in_use};
}

class History {
 public:
  History(const Load& load, uint32_t seed)
      : load_(load),
        random_(seed),
        state_(load.num_blocks, load.block_tokens, 0, WindowOf(load)),
        slots_(static_cast<size_t>(load.num_blocks * load.block_tokens)),
        window_slots_(static_cast<size_t>(WindowOf(load).num_blocks * load.block_tokens)) {}

  void Run(int steps) {
    for (int i = 0; i < steps && !testing::Test::HasFatalFailure(); ++i) {
      Arrive();
      Cancel();
      Step();
    }
    // No more arrivals: everything must come to its end within a bound that follows from one token
    // a step.
    for (int64_t left = WorstCaseSteps(); !state_.empty() && !testing::Test::HasFatalFailure();
         --left) {
      ASSERT_GT(left, 0) << "a sequence starved";
      Step();
    }
    EXPECT_EQ(state_.pool.num_used(), 0) << "a block leaked";
    EXPECT_EQ(state_.pool.window().num_used(), 0) << "a window block leaked";
    EXPECT_TRUE(live_.empty());
  }

  int64_t finished() const { return finished_; }
  int64_t preempted() const { return preempted_; }
  int64_t chunked() const { return chunked_; }
  int64_t hits() const { return hits_; }
  int64_t fairness() const { return fairness_; }
  int64_t layered() const { return layered_; }

 private:
  struct Request {
    Sequence sequence;
    std::vector<int32_t> tokens;
    int32_t max_total = 0;
  };

  double Uniform() { return std::uniform_real_distribution<>(0, 1)(random_); }
  int32_t Between(int32_t low, int32_t high) {
    return std::uniform_int_distribution<int32_t>(low, high)(random_);
  }

  void Arrive() {
    for (double expected = load_.arrivals_per_step; Uniform() < expected; expected -= 1) {
      const int32_t capacity = load_.num_blocks * load_.block_tokens;
      // Mostly short, now and then one that needs the whole cache.
      const int32_t most = load_.longest > 0 ? load_.longest : capacity;
      const int32_t total = Uniform() < 0.05 ? most : Between(2, std::max(2, most / 3));
      auto request = std::make_unique<Request>();
      request->max_total = total;
      request->sequence.arrival = next_arrival_++;
      request->sequence.prompt_tokens = request->sequence.total_tokens = Between(1, total - 1);
      if (load_.tenants > 1) {
        const int32_t tenant = Between(1, load_.tenants);
        request->sequence.tenant = request->sequence.salt = std::to_string(tenant);
        request->sequence.weight = tenant;
        request->sequence.priority = Uniform() < 0.2 ? 1 : 0;
      }
      if (load_.shared) {
        const int32_t alike = Between(0, request->sequence.total_tokens);
        const int32_t script = Between(0, 2);
        for (int32_t i = 0; i < request->sequence.total_tokens; ++i) {
          request->tokens.push_back(i < alike ? script : Between(0, 1));
        }
        request->sequence.tokens = &request->tokens;
        if (Between(0, 1) == 0) request->sequence.salt += "salt";
      }
      ASSERT_TRUE(state_.FitsAlone(total));
      state_.Add(&request->sequence);
      live_.emplace(request->sequence.arrival, std::move(request));
    }
  }

  void Cancel() {
    if (live_.empty() || Uniform() >= load_.cancel_rate) return;
    auto it = live_.begin();
    std::advance(it, Between(0, static_cast<int32_t>(live_.size()) - 1));
    End(it->first);
  }

  void End(uint64_t arrival) {
    state_.Remove(&live_.at(arrival)->sequence);
    live_.erase(arrival);
  }

  void Step() {
    std::set<Sequence*> decoding;
    for (Sequence* sequence : state_.running) {
      if (sequence->decoding()) decoding.insert(sequence);
    }
    const SchedulerOutput output = Schedule(state_, load_.limits);
    CheckStep(output, decoding);
    if (testing::Test::HasFatalFailure()) return;
    if (load_.shared) Compute(output);
    state_.Commit(output);
    hits_ += output.prefix_hits;
    for (const ScheduledSequence& scheduled : output.sequences) {
      if (!scheduled.samples) {
        ++chunked_;
        continue;
      }
      Sequence* sequence = scheduled.sequence;
      if (load_.shared) live_.at(sequence->arrival)->tokens.push_back(Between(0, 1));
      if (++sequence->total_tokens >= live_.at(sequence->arrival)->max_total) {
        End(sequence->arrival);
        ++finished_;
      }
    }
    preempted_ += output.num_preempted();
    fairness_ += output.num_preempted_fairness;
    if (!load_.shared) return;
    const Status intact = state_.CheckIntegrity();
    ASSERT_TRUE(intact.ok()) << intact.error().message;
  }

  // The forward pass in small: writes to each slot what its token and all before it are, after it
  // has read the same of every token before. So a block with foreign or stale content shows.
  void Compute(const SchedulerOutput& output) {
    for (const ScheduledSequence& scheduled : output.sequences) {
      if (!scheduled.completes()) continue;
      const Sequence& sequence = *scheduled.sequence;
      std::string context = sequence.salt + ":";
      const int32_t seen_from = sequence.cached_tokens - load_.window + 1;
      for (int32_t i = 0; i < sequence.cached_tokens + scheduled.num_tokens; ++i) {
        context += static_cast<char>('0' + (*sequence.tokens)[static_cast<size_t>(i)]);
        const BlockId block = sequence.blocks.blocks()[static_cast<size_t>(i / load_.block_tokens)];
        std::string& slot =
            slots_[static_cast<size_t>(block * load_.block_tokens + i % load_.block_tokens)];
        if (i >= sequence.cached_tokens) {
          ASSERT_EQ(state_.pool.Owners(block), 1) << "a shared block is written";
          slot = context;
        }
        ASSERT_EQ(slot, context) << "sequence " << sequence.arrival << ", token " << i;
        if (load_.window > 0 && i >= seen_from) ComputeWindow(sequence, i, context);
      }
    }
  }

  // The same in the layers with a window, of a token that the step sees.
  void ComputeWindow(const Sequence& sequence, int32_t i, const std::string& context) {
    const BlockId block =
        sequence.blocks.window_blocks()[static_cast<size_t>(i / load_.block_tokens)];
    ASSERT_NE(block, kNoBlock) << "sequence " << sequence.arrival << ", token " << i;
    std::string& slot =
        window_slots_[static_cast<size_t>(block * load_.block_tokens + i % load_.block_tokens)];
    if (i >= sequence.cached_tokens) {
      ASSERT_EQ(state_.pool.window().Owners(block), 1) << "a shared window block is written";
      slot = context;
    }
    ASSERT_EQ(slot, context) << "sequence " << sequence.arrival << ", token " << i;
  }

  void CheckStep(const SchedulerOutput& output, const std::set<Sequence*>& decoding) {
    const Status intact = state_.CheckIntegrity();
    ASSERT_TRUE(intact.ok()) << intact.error().message;
    ASSERT_LE(static_cast<int32_t>(state_.running.size()), load_.limits.max_sequences);

    std::set<Sequence*> scheduled;
    int32_t tokens = 0, decodes = 0;
    for (const ScheduledSequence& it : output.sequences) {
      ASSERT_TRUE(scheduled.insert(it.sequence).second) << "scheduled twice in a step";
      ASSERT_GE(it.num_tokens, 1);
      ASSERT_LE(it.num_tokens, it.sequence->pending_tokens());
      ASSERT_EQ(it.samples, it.completes() && it.num_tokens == it.sequence->pending_tokens());
      if (it.is_layered()) CheckLayered(output, it);
      ASSERT_GE(it.sequence->blocks.size() * load_.block_tokens,
                it.sequence->cached_tokens + it.num_tokens);
      if (decoding.contains(it.sequence)) {
        ASSERT_EQ(decodes, tokens) << "a decode stands behind a prefill chunk";
        ++decodes;
      }
      tokens += it.num_tokens;
    }
    ASSERT_EQ(tokens, output.num_tokens);
    ASSERT_EQ(decodes, output.num_decodes);
    ASSERT_LE(tokens, load_.limits.max_batch_tokens) << "the token budget was exceeded";
    if (state_.empty()) return;
    ASSERT_GT(tokens, 0) << "work waits, yet nothing was scheduled";
    if (load_.tenants == 1) {
      ASSERT_TRUE(scheduled.contains(state_.running.front())) << "the earliest arrival stood still";
    }
    for (Sequence* sequence : decoding) {
      ASSERT_TRUE(scheduled.contains(sequence) || sequence->waits) << "a decode was skipped";
    }
  }

  // It is the last of the batch and the only one, and goes on where it was.
  void CheckLayered(const SchedulerOutput& output, const ScheduledSequence& it) {
    ++layered_;
    ASSERT_EQ(&it, &output.sequences.back());
    ASSERT_TRUE(it.completes() || it.end_layer < load_.limits.layers);
    ASSERT_LT(it.first_layer, it.end_layer);
    ASSERT_EQ(it.first_layer, it.sequence->held_layers);
    const auto blocks = it.sequence->blocks.blocks();
    if (it.first_layer == 0) {
      held_ = {it.sequence, it.num_tokens, {blocks.begin(), blocks.end()}};
    } else {
      ASSERT_EQ(held_.sequence, it.sequence);
      ASSERT_EQ(held_.tokens, it.num_tokens);
      ASSERT_TRUE(
          std::equal(blocks.begin(), blocks.end(), held_.blocks.begin(), held_.blocks.end()))
          << "what the first layers wrote lies elsewhere";
    }
    ASSERT_TRUE(state_.held == nullptr || state_.held == it.sequence);
  }

  // The earliest arrival moves in every step, so the sum of all tokens still to run bounds the
  // steps. Between tenants it need not; it is only known that none waits for ever.
  int64_t WorstCaseSteps() const {
    int64_t steps = 1;
    for (const auto& [arrival, request] : live_) steps += request->max_total + 1;
    steps *= load_.limits.layers;
    return load_.tenants == 1 ? steps : 10 * steps;
  }

  const Load load_;
  std::mt19937 random_;
  SchedulerState state_;
  std::vector<std::string> slots_;  // what each slot of the KV cache holds
  std::vector<std::string> window_slots_;
  std::map<uint64_t, std::unique_ptr<Request>> live_;
  uint64_t next_arrival_ = 0;
  int64_t finished_ = 0;
  int64_t preempted_ = 0;
  int64_t chunked_ = 0;
  int64_t hits_ = 0;
  int64_t fairness_ = 0;
  int64_t layered_ = 0;  // parts of steps
  struct {
    const Sequence* sequence = nullptr;
    int32_t tokens = 0;
    std::vector<BlockId> blocks;
  } held_;  // as the first layers had it
};

TEST(SchedulerProperties, HoldOverRandomHistoriesWithFewBlocks) {
  int64_t finished = 0, preempted = 0, chunked = 0;
  for (uint32_t seed = 0; seed < 300; ++seed) {
    SCOPED_TRACE(seed);
    History history({.num_blocks = 12,
                     .block_tokens = 4,
                     .limits = {.max_sequences = 6, .max_batch_tokens = 8},
                     .arrivals_per_step = 0.4,
                     .cancel_rate = 0.05},
                    seed);
    history.Run(300);
    if (HasFatalFailure()) return;
    finished += history.finished();
    preempted += history.preempted();
    chunked += history.chunked();
  }
  // The histories are worth something only if they reach the hard cases.
  EXPECT_GT(finished, 5000);
  EXPECT_GT(preempted, 300);
  EXPECT_GT(chunked, 1000);
}

TEST(SchedulerProperties, HoldWhenSequencesShareBlocksAndNoneReadsWhatIsNotItsOwn) {
  int64_t finished = 0, preempted = 0, hits = 0;
  for (uint32_t seed = 400; seed < 500; ++seed) {
    SCOPED_TRACE(seed);
    History history({.num_blocks = 16,
                     .block_tokens = 3,
                     .limits = {.max_sequences = 6, .max_batch_tokens = 9},
                     .arrivals_per_step = 0.5,
                     .cancel_rate = 0.05,
                     .shared = true},
                    seed);
    history.Run(200);
    if (HasFatalFailure()) return;
    finished += history.finished();
    preempted += history.preempted();
    hits += history.hits();
  }
  EXPECT_GT(finished, 1000);
  EXPECT_GT(preempted, 100);
  EXPECT_GT(hits, 5000);
}

TEST(SchedulerProperties, HoldWithWindowsWhoseBlocksAreNeverTooFew) {
  int64_t hits = 0, preempted = 0;
  for (uint32_t seed = 600; seed < 680; ++seed) {
    SCOPED_TRACE(seed);
    Load load{.num_blocks = 24,
              .block_tokens = 3,
              .limits = {.max_sequences = 4, .max_batch_tokens = 9},
              .arrivals_per_step = 0.5,
              .cancel_rate = 0.05,
              .shared = seed % 2 == 0,
              .tenants = seed % 3 == 0 ? 3 : 1,
              .window = 1 + static_cast<int32_t>(seed % 9)};
    ASSERT_LT(WindowOf(load).num_blocks, load.num_blocks) << "they could be too few";
    History windows(load, seed);
    windows.Run(200);
    if (HasFatalFailure()) return;
    hits += windows.hits();
    if (load.shared) continue;
    // Nothing is found either way: as many give way as if there were no windows.
    load.window = 0;
    History without(load, seed);
    without.Run(200);
    if (HasFatalFailure()) return;
    EXPECT_EQ(windows.preempted(), without.preempted());
    EXPECT_EQ(windows.finished(), without.finished());
    preempted += windows.preempted();
  }
  EXPECT_GT(hits, 1000);
  EXPECT_GT(preempted, 50);
}

// Fewer than WindowBlocksInUse is a mistake of who made the plan: then sequences wait and give way.
TEST(SchedulerProperties, HoldWithTooFewWindowBlocks) {
  int64_t finished = 0, preempted = 0;
  for (uint32_t seed = 700; seed < 730; ++seed) {
    SCOPED_TRACE(seed);
    History history({.num_blocks = 60,
                     .block_tokens = 3,
                     .limits = {.max_sequences = 6, .max_batch_tokens = 9},
                     .arrivals_per_step = 0.5,
                     .cancel_rate = 0.05,
                     .longest = 60,
                     .shared = seed % 2 == 0,
                     .window = 7,
                     .window_blocks = 7},
                    seed);
    history.Run(200);
    if (HasFatalFailure()) return;
    finished += history.finished();
    preempted += history.preempted();
  }
  EXPECT_GT(finished, 200);
  EXPECT_GT(preempted, 50);
}

TEST(SchedulerProperties, HoldWithTenantsOfDifferentWeightsAndClasses) {
  int64_t finished = 0, preempted = 0, fairness = 0;
  for (uint32_t seed = 500; seed < 600; ++seed) {
    SCOPED_TRACE(seed);
    History history({.num_blocks = 24,
                     .block_tokens = 3,
                     .limits = {.max_sequences = 6, .max_batch_tokens = 9},
                     .arrivals_per_step = 0.6,
                     .cancel_rate = 0.05,
                     .shared = seed % 2 == 0,
                     .tenants = 3},
                    seed);
    history.Run(200);
    if (HasFatalFailure()) return;
    finished += history.finished();
    preempted += history.preempted();
    fairness += history.fairness();
  }
  EXPECT_GT(finished, 1000);
  EXPECT_GT(fairness, 100);
  EXPECT_GT(preempted, fairness) << "the KV cache was full, too";
}

TEST(SchedulerProperties, HoldWithChunksThatGoThroughSomeLayersAStep) {
  int64_t finished = 0, preempted = 0, layered = 0;
  for (uint32_t seed = 800; seed < 900; ++seed) {
    SCOPED_TRACE(seed);
    History history({.num_blocks = 24,
                     .block_tokens = 3,
                     .limits = {.max_sequences = 6,
                                .max_batch_tokens = 16,
                                .max_prefill_tokens = 2,
                                .layers = 5,
                                .layered_tokens = 9,
                                .step_layers = 1 + static_cast<int32_t>(seed % 3)},
                     .arrivals_per_step = 0.4,
                     .cancel_rate = 0.05,
                     .shared = seed % 2 == 0,
                     .tenants = seed % 3 == 0 ? 3 : 1,
                     .window = seed % 5 == 0 ? 7 : 0},
                    seed);
    history.Run(200);
    if (HasFatalFailure()) return;
    finished += history.finished();
    preempted += history.preempted();
    layered += history.layered();
  }
  EXPECT_GT(finished, 500);
  EXPECT_GT(preempted, 100);
  EXPECT_GT(layered, 1000);
}

TEST(SchedulerProperties, HoldWhenTheBudgetLeavesNoMoreThanOneTokenToPrefill) {
  int64_t finished = 0, chunked = 0;
  for (uint32_t seed = 100; seed < 130; ++seed) {
    SCOPED_TRACE(seed);
    History history({.num_blocks = 24,
                     .block_tokens = 3,
                     .limits = {.max_sequences = 5, .max_batch_tokens = 5},
                     .arrivals_per_step = 1.5,
                     .cancel_rate = 0.2},
                    seed);
    history.Run(200);
    if (HasFatalFailure()) return;
    finished += history.finished();
    chunked += history.chunked();
  }
  EXPECT_GT(finished, 0);
  EXPECT_GT(chunked, 0);
}

TEST(SchedulerProperties, HoldWithOneSequenceAtATimeAndWithBlocksOfOneToken) {
  int64_t finished_one = 0, finished_fine = 0, preempted = 0;
  for (uint32_t seed = 200; seed < 220; ++seed) {
    SCOPED_TRACE(seed);
    History one({.num_blocks = 8,
                 .block_tokens = 4,
                 .limits = {.max_sequences = 1, .max_batch_tokens = 3},
                 .arrivals_per_step = 0.3,
                 .cancel_rate = 0.1},
                seed);
    one.Run(200);
    if (HasFatalFailure()) return;
    History fine({.num_blocks = 40,
                  .block_tokens = 1,
                  .limits = {.max_sequences = 8, .max_batch_tokens = 16},
                  .arrivals_per_step = 0.5,
                  .cancel_rate = 0.05},
                 seed);
    fine.Run(200);
    if (HasFatalFailure()) return;
    finished_one += one.finished();
    finished_fine += fine.finished();
    preempted += fine.preempted();
  }
  EXPECT_GT(finished_one, 0);
  EXPECT_GT(finished_fine, 0);
  EXPECT_GT(preempted, 0);
}

// Blocks for every place in the batch at its longest: nothing may be preempted, however many wait.
TEST(SchedulerProperties, NothingIsPreemptedWithPlentyOfBlocks) {
  int64_t finished = 0;
  for (uint32_t seed = 300; seed < 320; ++seed) {
    SCOPED_TRACE(seed);
    History history({.num_blocks = 4096,
                     .block_tokens = 16,
                     .limits = {.max_sequences = 32, .max_batch_tokens = 512},
                     .arrivals_per_step = 0.5,
                     .cancel_rate = 0.01,
                     .longest = 16 * 4096 / 32 - 32},
                    seed);
    history.Run(300);
    if (HasFatalFailure()) return;
    finished += history.finished();
    EXPECT_EQ(history.preempted(), 0);
  }
  EXPECT_GT(finished, 2000);
}

}  // namespace
}  // namespace quern
