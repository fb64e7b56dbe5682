// Several tenants on one scheduler: who is served when, and who gives way.

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "runtime/scheduler/scheduler.h"

namespace quern {
namespace {

struct Job {
  std::string tenant;
  int32_t prompt = 1;
  int32_t output = 1;
  double weight = 1;
  int32_t priority = 0;
};

// The smallest engine: every step runs, what samples gets a token, what has all of them ends.
class House {
 public:
  House(int32_t num_blocks, SchedulerLimits limits) : state_(num_blocks, 4), limits_(limits) {}
  ~House() {
    for (auto& [arrival, live] : live_) state_.Remove(&live.sequence);
    EXPECT_EQ(state_.pool.num_used(), 0);
  }

  uint64_t Add(const Job& job) {
    const uint64_t arrival = next_++;
    Live& live = live_[arrival];
    live.job = job;
    live.sequence.arrival = arrival;
    live.sequence.prompt_tokens = live.sequence.total_tokens = job.prompt;
    live.sequence.tenant = live.sequence.salt = job.tenant;
    live.sequence.weight = job.weight;
    live.sequence.priority = job.priority;
    state_.Add(&live.sequence);
    return arrival;
  }

  SchedulerOutput Step() {
    SchedulerOutput output = Schedule(state_, limits_);
    Check();
    EXPECT_TRUE(state_.empty() || output.num_tokens > 0) << "work waits, yet none was scheduled";
    state_.Commit(output);
    fairness_ += output.num_preempted_fairness;
    kv_full_ += output.num_preempted_kv_full;
    for (size_t i = 0; i < output.sequences.size(); ++i) {
      const ScheduledSequence& scheduled = output.sequences[i];
      Live& live = live_.at(scheduled.sequence->arrival);
      const bool decodes = static_cast<int32_t>(i) < output.num_decodes;
      served_[live.job.tenant] +=
          (decodes ? 0 : scheduled.num_tokens) + (scheduled.samples ? 2 : 0);
      if (!scheduled.samples) continue;
      if (++live.sequence.total_tokens - live.job.prompt >= live.job.output) {
        state_.Remove(&live.sequence);
        live_.erase(scheduled.sequence->arrival);
      }
    }
    Check();
    return output;
  }

  // Steps until it has its first token.
  int StepsToFirstToken(uint64_t arrival, const std::function<void()>& between) {
    for (int steps = 1;; ++steps) {
      between();
      Step();
      const auto it = live_.find(arrival);
      if (it == live_.end() || it->second.sequence.total_tokens > it->second.job.prompt) {
        return steps;
      }
      if (steps > 100000) {
        ADD_FAILURE() << "it starves";
        return steps;
      }
    }
  }

  int32_t Count(const std::string& tenant) const {
    return static_cast<int32_t>(std::count_if(live_.begin(), live_.end(), [&](const auto& it) {
      return it.second.job.tenant == tenant;
    }));
  }
  bool Runs(uint64_t arrival) const {
    const auto it = live_.find(arrival);
    return it != live_.end() && !it->second.sequence.waits;
  }
  bool Lives(uint64_t arrival) const { return live_.contains(arrival); }
  int32_t Tokens(uint64_t arrival) const { return live_.at(arrival).sequence.total_tokens; }
  double Counter(uint64_t arrival) const { return live_.at(arrival).sequence.account->counter; }
  double served(const std::string& tenant) { return served_[tenant]; }
  SchedulerState& state() { return state_; }
  int64_t fairness() const { return fairness_; }
  int64_t kv_full() const { return kv_full_; }

 private:
  struct Live {
    Job job;
    Sequence sequence;
  };

  void Check() {
    const Status intact = state_.CheckIntegrity();
    ASSERT_TRUE(intact.ok()) << intact.error().message;
  }

  SchedulerState state_;
  SchedulerLimits limits_;
  std::map<uint64_t, Live> live_;
  std::map<std::string, double> served_;  // virtual tokens
  uint64_t next_ = 0;
  int64_t fairness_ = 0;
  int64_t kv_full_ = 0;
};

struct Flood {
  const char* what;
  int32_t num_blocks;
  SchedulerLimits limits;
  Job flood;
  Job single;
  bool gives_way = true;  // the flood must be made to
};

TEST(Fairness, AFloodOf64DelaysAnothersFirstTokenByTwoStepsAtMost) {
  const Flood floods[] = {
      {"all places taken",
       4096,
       {.max_sequences = 8, .max_batch_tokens = 64},
       {"flood", 20, 60},
       {"single", 40, 12}},
      {"all blocks taken",
       60,
       {.max_sequences = 32, .max_batch_tokens = 64},
       {"flood", 24, 40},
       {"single", 40, 12}},
      {"long prompts take the budget",
       4096,
       {.max_sequences = 8, .max_batch_tokens = 64},
       {"flood", 700, 4},
       {"single", 40, 12},
       /*gives_way=*/false},
      {"both in chunks",
       400,
       {.max_sequences = 16, .max_batch_tokens = 64},
       {"flood", 100, 30},
       {"single", 150, 12}},
  };
  for (const Flood& it : floods) {
    SCOPED_TRACE(it.what);
    House alone(it.num_blocks, it.limits);
    const int wanted = alone.StepsToFirstToken(alone.Add(it.single), [] {});
    House house(it.num_blocks, it.limits);
    const auto flood = [&] {
      while (house.Count("flood") < 64) house.Add(it.flood);
    };
    for (int i = 0; i < 150; ++i) {
      flood();
      house.Step();
    }
    for (int round = 0; round < 25; ++round) {
      const uint64_t mine = house.Add(it.single);
      ASSERT_LE(house.StepsToFirstToken(mine, flood), wanted + 2) << "round " << round;
      for (int i = 0; house.Lives(mine); ++i) {
        ASSERT_LT(i, 100) << "it starves";
        flood();
        house.Step();
      }
    }
    EXPECT_EQ(house.fairness() > 0, it.gives_way);
  }
}

TEST(Fairness, BackloggedTenantsGetTokensByTheirWeights) {
  House house(600, {.max_sequences = 12, .max_batch_tokens = 96});
  const Job jobs[] = {{"one", 30, 20, 1}, {"two", 90, 10, 2}, {"three", 10, 40, 3}};
  for (int step = 0; step < 3000; ++step) {
    for (const Job& job : jobs) {
      while (house.Count(job.tenant) < 16) house.Add(job);
    }
    house.Step();
    if (testing::Test::HasFatalFailure()) return;
  }
  const double all = house.served("one") + house.served("two") + house.served("three");
  EXPECT_NEAR(house.served("one") / all, 1.0 / 6, 0.02);
  EXPECT_NEAR(house.served("two") / all, 2.0 / 6, 0.02);
  EXPECT_NEAR(house.served("three") / all, 3.0 / 6, 0.02);
}

TEST(Fairness, WhoWasIdleHasNoClaimOnWhatItDidNotAskFor) {
  House house(400, {.max_sequences = 8, .max_batch_tokens = 64});
  const Job early{"early", 20, 20}, late{"late", 20, 20};
  const auto run = [&](int steps, bool both) {
    for (int i = 0; i < steps; ++i) {
      while (house.Count("early") < 16) house.Add(early);
      while (both && house.Count("late") < 16) house.Add(late);
      house.Step();
    }
  };
  run(1500, false);
  const double before = house.served("early");
  run(1500, true);
  const double gained = house.served("early") - before;
  EXPECT_NEAR(gained / (gained + house.served("late")), 0.5, 0.05);
}

TEST(Fairness, ASlowStreamIsNoClaimOnWhatWasNotAskedForEither) {
  House house(1600, {.max_sequences = 8, .max_batch_tokens = 64});
  house.Add({"slow", 4, 5000});
  const auto run = [&](int steps, const std::vector<std::string>& tenants) {
    for (int i = 0; i < steps; ++i) {
      for (const std::string& tenant : tenants) {
        while (house.Count(tenant) < 16) house.Add({tenant, 20, 20});
      }
      house.Step();
    }
  };
  run(600, {"early"});
  const double early = house.served("early"), slow = house.served("slow");
  run(600, {"early", "slow", "friend"});
  const double of_early = house.served("early") - early, of_slow = house.served("slow") - slow;
  const double all = of_early + of_slow + house.served("friend");
  EXPECT_NEAR(of_early / all, 1.0 / 3, 0.05);
  EXPECT_NEAR(of_slow / all, 1.0 / 3, 0.05);
}

TEST(Fairness, WhatIsBeyondATenantsShareHoldsUpNoOther) {
  House house(100, {.max_sequences = 8, .max_batch_tokens = 64});
  const uint64_t large = house.Add({"large", 200, 100});
  for (int i = 0; i < 5; ++i) house.Step();
  const uint64_t larger = house.Add({"large", 300, 10});
  // After the first of them it would be the turn of the larger one.
  const uint64_t small[] = {house.Add({"small", 8, 20}), house.Add({"small", 8, 20})};
  house.Step();
  EXPECT_TRUE(house.Runs(large) && house.Runs(small[0]) && house.Runs(small[1]));
  EXPECT_FALSE(house.Runs(larger));
  while (house.Lives(larger)) house.Step();
  EXPECT_EQ(house.fairness(), 0);
}

TEST(Fairness, WhoFillsTheCacheGivesWayButNotAgainBeforeItGotOn) {
  House house(100, {.max_sequences = 8, .max_batch_tokens = 64});
  const uint64_t hog = house.Add({"hog", 360, 38});
  while (house.Tokens(hog) < 362) house.Step();
  const uint64_t first = house.Add({"small", 40, 4});
  house.Step();
  EXPECT_EQ(house.fairness(), 1);
  EXPECT_TRUE(house.Runs(first));
  while (house.Tokens(hog) < 394) house.Step();
  const uint64_t second = house.Add({"small", 40, 4});
  const double turn = house.Counter(second);
  house.Step();
  EXPECT_LT(turn, house.Counter(hog)) << "else it would not be its turn";
  EXPECT_TRUE(house.Runs(hog));
  while (house.Lives(second)) house.Step();
  EXPECT_EQ(house.fairness(), 1);
}

TEST(Fairness, WhatIsComputedAgainIsNotPaidAgain) {
  House house(400, {.max_sequences = 2, .max_batch_tokens = 64});
  house.Add({"flood", 40, 200});
  const uint64_t victim = house.Add({"flood", 40, 20});
  for (int i = 0; i < 4; ++i) house.Step();
  const uint64_t mine = house.Add({"mine", 10, 5});
  house.Step();
  ASSERT_EQ(house.fairness(), 1);
  while (house.Lives(mine)) house.Step();
  const double before = house.Counter(victim);
  const int32_t tokens = house.Tokens(victim);
  while (!house.Runs(victim)) house.Step();
  EXPECT_GT(tokens, 40);
  // A step: two tokens generated.
  EXPECT_LE(house.Counter(victim) - before, 8);
}

TEST(Fairness, APlaceIsTakenFromTheOverServedOnceAndNeverBack) {
  House house(400, {.max_sequences = 4, .max_batch_tokens = 64});
  std::vector<uint64_t> flood;
  for (int i = 0; i < 6; ++i) flood.push_back(house.Add({"flood", 8, 1000}));
  house.Step();
  std::vector<uint64_t> mine;
  for (int i = 0; i < 4; ++i) mine.push_back(house.Add({"mine", 8, 1000}));
  EXPECT_EQ(house.Step().num_preempted_fairness, 1);
  for (int i = 0; i < 10; ++i) house.Step();
  EXPECT_EQ(house.fairness(), 2) << "half of the places are a fair share";
  EXPECT_TRUE(house.Runs(flood[0]) && house.Runs(flood[1]));
  EXPECT_FALSE(house.Runs(flood[2]) || house.Runs(flood[3])) << "the latest give way";
  EXPECT_TRUE(house.Runs(mine[0]) && house.Runs(mine[1]));
  for (int i = 0; i < 50; ++i) house.Step();
  EXPECT_EQ(house.fairness(), 2);
}

TEST(Fairness, ALowerClassIsServedFirst) {
  House house(12, {.max_sequences = 2, .max_batch_tokens = 64});
  const uint64_t batch = house.Add({"t", 4, 30, 1, 1});
  const uint64_t urgent = house.Add({"t", 4, 30, 1, 0});
  const uint64_t urgent_too = house.Add({"t", 4, 30, 1, 0});
  house.Step();
  EXPECT_TRUE(house.Runs(urgent) && house.Runs(urgent_too));
  while (house.Lives(urgent) || house.Lives(urgent_too)) house.Step();
  EXPECT_TRUE(house.Lives(batch));
  const uint64_t later = house.Add({"other", 4, 30, 1, 0});
  house.Step();
  EXPECT_TRUE(house.Runs(batch) && house.Runs(later));
}

TEST(Fairness, WhenBlocksRunOutTheHighestClassGivesWayBeforeTheLargestShare) {
  House house(10, {.max_sequences = 8, .max_batch_tokens = 64});
  const uint64_t first = house.Add({"large", 8, 20, 1, 0});
  const uint64_t batch = house.Add({"small", 4, 20, 1, 1});
  house.Step();
  const uint64_t latest = house.Add({"large", 5, 20, 1, 0});
  house.Step();
  ASSERT_TRUE(house.Runs(first) && house.Runs(batch) && house.Runs(latest));
  for (int i = 0; i < 20 && house.kv_full() == 0; ++i) house.Step();
  EXPECT_EQ(house.kv_full(), 1);
  EXPECT_FALSE(house.Runs(batch));
  EXPECT_TRUE(house.Runs(first) && house.Runs(latest));
}

TEST(Fairness, ANewcomerNeverEvictsALowerClass) {
  House house(400, {.max_sequences = 4, .max_batch_tokens = 64});
  for (int i = 0; i < 4; ++i) house.Add({"flood", 8, 1000, 1, 0});
  house.Step();
  const uint64_t batch = house.Add({"mine", 8, 10, 1, 1});
  for (int i = 0; i < 20; ++i) house.Step();
  EXPECT_EQ(house.fairness(), 0);
  EXPECT_FALSE(house.Runs(batch));
  const uint64_t equal = house.Add({"mine", 8, 10, 1, 0});
  EXPECT_EQ(house.Step().num_preempted_fairness, 1) << "of its own class it does";
  EXPECT_TRUE(house.Runs(equal));
  EXPECT_FALSE(house.Runs(batch));
}

TEST(Fairness, AccountsOfTenantsThatLeftAreDropped) {
  House house(400, {.max_sequences = 8, .max_batch_tokens = 64});
  for (int i = 0; i < 500; ++i) {
    house.Add({"tenant " + std::to_string(i), 10, 3});
    house.Step();
    ASSERT_LE(house.state().waiting.num_accounts(), 40u);
  }
  while (!house.state().empty()) house.Step();
  EXPECT_EQ(house.state().waiting.num_accounts(), 0u);
}

}  // namespace
}  // namespace quern
