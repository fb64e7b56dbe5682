// The replica model, which takes steps together, against one that takes them one by one.
#include "operator/simulation/replica.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <deque>

#include "tests/unit/operator/simulation/scenarios.h"

namespace quern::simulation {
namespace {

// Every step by itself, and everything counted afresh in each: the rules as replica.h tells them.
class StepByStep {
 public:
  StepByStep(const ReplicaProfile& profile, const Load& load)
      : profile_(profile),
        load_(load),
        outcomes_(load.size()),
        cache_(static_cast<size_t>(profile.kv_tokens / bench::kTraceBlockTokens)) {}

  std::vector<Outcome> Run() {
    for (uint32_t i = 0; i < load_.size(); ++i) {
      if (load_[i].prompt_tokens + load_[i].output_tokens > profile_.kv_tokens) {
        outcomes_[i].refused = true;
      } else {
        queue_.push_back({i});
      }
    }
    while (!queue_.empty() || !running_.empty()) Step();
    return outcomes_;
  }

 private:
  struct Item {
    uint32_t request;
    int32_t known = 0;   // tokens generated
    int32_t prompt = 0;  // to compute before the next
    int32_t cached = 0;
    bool decodes = false;
    bool last_token() const { return !decodes && cached > 0 && prompt - cached == 1; }
    bool counts_as_decode() const { return decodes || last_token(); }
  };
  int64_t Context(const Item& item) const {
    return item.decodes ? load_[item.request].prompt_tokens + item.known : item.prompt;
  }
  int64_t Held() const {
    int64_t held = 0;
    for (const Item& item : running_) held += Context(item);
    return held;
  }
  int32_t Decodes() const {
    return static_cast<int32_t>(
        std::count_if(running_.begin(), running_.end(), [](const Item& i) { return i.decodes; }));
  }
  bool HasCome(const Item& item) const { return load_[item.request].at <= now_; }
  bool CanAdmit() const {
    if (queue_.empty() || !HasCome(queue_.front())) return false;
    if (static_cast<int32_t>(running_.size()) >= profile_.max_sequences) return false;
    const Item& next = queue_.front();
    return running_.empty() ||
           Held() + Decodes() + load_[next.request].prompt_tokens + next.known <=
               profile_.kv_tokens;
  }

  void Step() {
    if (running_.empty()) now_ = std::max(now_, load_[queue_.front().request].at);
    while (running_.size() > 1 && Held() + Decodes() > profile_.kv_tokens) {
      Item last = running_.back();
      running_.pop_back();
      last.decodes = false;
      queue_.push_front(last);
    }
    StepShape shape;
    PrefillPressure pressure;
    for (const Item& item : running_) {
      if (item.counts_as_decode()) {
        ++shape.decode_sequences;
        shape.attended_tokens += Context(item);
        shape.loaded_tokens += Context(item);
      } else if (pressure.prefilling++ == 0) {
        pressure.prefill_context = item.cached;
      }
    }
    pressure.decoding = shape.decode_sequences;
    pressure.decode_context = shape.loaded_tokens;
    const auto come = static_cast<int32_t>(std::count_if(
        queue_.begin(), queue_.end(), [&](const Item& item) { return HasCome(item); }));
    pressure.prefilling +=
        std::min(come, profile_.max_sequences - static_cast<int32_t>(running_.size()));
    int32_t budget =
        std::min(profile_.max_batch_tokens - shape.decode_sequences,
                 PrefillBudget(profile_.times, pressure, profile_.max_decode_slowdown,
                               std::min(4, profile_.max_batch_tokens), profile_.max_batch_tokens));
    std::vector<int32_t> chunks;
    for (const Item& item : running_) chunks.push_back(item.last_token() ? 1 : 0);
    for (size_t i = 0; budget > 0; ++i) {
      if (i == running_.size()) {
        if (!CanAdmit()) break;
        Admit();
        chunks.push_back(0);
      }
      Item& item = running_[i];
      if (item.decodes || chunks[i] > 0) continue;
      const int32_t tokens = chunks[i] = std::min(budget, item.prompt - item.cached);
      budget -= tokens;
      shape.prefill_tokens += tokens;
      shape.loaded_tokens += item.cached + tokens;
      for (int32_t t = 1; t <= tokens; ++t) shape.attended_tokens += item.cached + t;
    }
    now_ += profile_.times.Predict(shape);
    End(chunks);
  }
  void Admit() {
    Item item = queue_.front();
    queue_.pop_front();
    item.prompt = load_[item.request].prompt_tokens + item.known;
    const auto hits = static_cast<int32_t>(cache_.Match(load_[item.request].blocks));
    item.cached = std::min(hits * bench::kTraceBlockTokens, item.prompt - 1);
    running_.push_back(item);
  }
  void End(const std::vector<int32_t>& chunks) {
    for (size_t i = 0; i < running_.size(); ++i) {
      Item& item = running_[i];
      if (item.decodes) {
        ++item.known;
      } else {
        item.cached += chunks[i];
        if (item.cached < item.prompt) continue;
        item.decodes = true;
        cache_.Insert(load_[item.request].blocks);
        if (item.known++ == 0) outcomes_[item.request].first_token = now_;
      }
      if (item.known == load_[item.request].output_tokens) outcomes_[item.request].finish = now_;
    }
    std::erase_if(running_, [&](const Item& item) { return outcomes_[item.request].finish >= 0; });
  }

  const ReplicaProfile& profile_;
  const Load& load_;
  std::vector<Outcome> outcomes_;
  PrefixCache cache_;
  double now_ = 0;
  std::deque<Item> queue_;
  std::vector<Item> running_;  // in order of admission
};

// Looks at the replica at random times on the way, which must change nothing.
std::vector<Outcome> InJumps(const ReplicaProfile& profile, const Load& load, uint32_t seed,
                             GapHistogram& gaps, int64_t* preemptions) {
  std::mt19937 random(seed);
  std::vector<Outcome> outcomes(load.size());
  SimReplica replica(profile, load, outcomes, gaps);
  double before = 0;
  for (uint32_t i = 0; i < load.size(); ++i) {
    replica.AdvanceTo(std::uniform_real_distribution<>(before, load[i].at)(random));
    replica.AdvanceTo(load[i].at);
    replica.Add(i);
    before = load[i].at;
  }
  for (int hour = 1; replica.outstanding() > 0; ++hour) replica.AdvanceTo(before + 3600.0 * hour);
  *preemptions = replica.preemptions();
  return outcomes;
}

TEST(SimReplica, JumpsComeToWhatSingleStepsDo) {
  int64_t preempted = 0;
  for (uint32_t seed = 1; seed <= 200; ++seed) {
    SCOPED_TRACE(seed);
    const Scenario scenario = RandomScenario(seed);
    GapHistogram gaps;
    int64_t preemptions = 0;
    const auto jumps = InJumps(scenario.profile, scenario.load, seed, gaps, &preemptions);
    const auto steps = StepByStep(scenario.profile, scenario.load).Run();
    preempted += preemptions;
    double want_gaps = 0;
    for (size_t i = 0; i < jumps.size(); ++i) {
      ASSERT_EQ(jumps[i].refused, steps[i].refused) << i;
      ASSERT_NEAR(jumps[i].first_token, steps[i].first_token, 1e-7) << i;
      ASSERT_NEAR(jumps[i].finish, steps[i].finish, 1e-7) << i;
      if (!jumps[i].refused) want_gaps += scenario.load[i].output_tokens - 1;
    }
    EXPECT_EQ(gaps.total(), want_gaps);  // a gap before each token but the first
  }
  EXPECT_GT(preempted, 100);  // or the tightest part was not looked at
}

Scenario Alone(int32_t prompt, int32_t output) {
  Scenario scenario;
  scenario.profile.times = {.base = 0.01,
                            .per_decode_sequence = 0.001,
                            .per_prefill_token = 0.0001,
                            .per_attended_token = 1e-6,
                            .per_loaded_token = 2e-6};
  scenario.profile.max_batch_tokens = 100;
  scenario.profile.kv_tokens = 10'000;
  bench::TraceRequest request;
  request.prompt_tokens = prompt;
  request.output_tokens = output;
  scenario.load = {request};
  return scenario;
}

TEST(SimReplica, ARequestAloneTakesWhatItsStepsTake) {
  const Scenario scenario = Alone(150, 3);
  GapHistogram gaps;
  int64_t preemptions = 0;
  const auto outcome = InJumps(scenario.profile, scenario.load, 1, gaps, &preemptions)[0];
  // Chunks of 100 and 50 tokens, which look back at 1..100 and 101..150 tokens.
  const double first = 0.01 + 0.01 + 5050e-6 + 100 * 2e-6;
  const double second = 0.01 + 0.005 + 6275e-6 + 150 * 2e-6;
  EXPECT_NEAR(outcome.first_token, first + second, 1e-12);
  const double decodes = 2 * 0.011 + (151 + 152) * 3e-6;
  EXPECT_NEAR(outcome.finish - outcome.first_token, decodes, 1e-12);
  EXPECT_NEAR(gaps.Percentile(0.5), decodes / 2, decodes / 100);
}

TEST(SimReplica, CountersTellWhatWasServed) {
  const Scenario scenario = RandomScenario(7);
  std::vector<Outcome> outcomes(scenario.load.size());
  GapHistogram gaps;
  SimReplica replica(scenario.profile, scenario.load, outcomes, gaps);
  double prompts = 0, answers = 0, requests = 0, active = 0;
  for (uint32_t i = 0; i < scenario.load.size(); ++i) {
    replica.AdvanceTo(scenario.load[i].at);
    replica.Add(i);
  }
  replica.AdvanceTo(1e6);
  ASSERT_EQ(replica.outstanding(), 0);
  for (size_t i = 0; i < outcomes.size(); ++i) {
    if (outcomes[i].refused) continue;
    requests += 1;
    prompts += scenario.load[i].prompt_tokens;
    answers += scenario.load[i].output_tokens;
    active += outcomes[i].finish - scenario.load[i].at;
  }
  using Counter = control::PodCounters::Field;
  EXPECT_EQ(replica.counters()[Counter::kAdmittedRequests], requests);
  EXPECT_EQ(replica.counters()[Counter::kFinishedRequests], requests);
  EXPECT_EQ(replica.counters()[Counter::kAdmittedPromptTokens], prompts);
  EXPECT_EQ(replica.counters()[Counter::kGeneratedTokens], answers);
  EXPECT_NEAR(replica.ActiveIntegral(1e6), active, 1e-6 * active);
}

TEST(SimReplica, WhatIsCachedIsNotComputedAgain) {
  Scenario scenario = Alone(1200, 2);
  scenario.load[0].blocks = {1, 2, 3};
  scenario.load.push_back(scenario.load[0]);
  scenario.load[1].at = 1000;
  std::vector<Outcome> outcomes(2);
  GapHistogram gaps;
  SimReplica replica(scenario.profile, scenario.load, outcomes, gaps);
  replica.Add(0);
  replica.AdvanceTo(1000);
  replica.Add(1);
  replica.AdvanceTo(2000);
  // The last token is always computed: its step gives the next one.
  EXPECT_EQ(replica.counters()[control::PodCounters::kPrefilledTokens], 1201);
  EXPECT_LT(outcomes[1].first_token - 1000, outcomes[0].first_token);
}

}  // namespace
}  // namespace quern::simulation
