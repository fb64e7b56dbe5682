#include "operator/autoscaling/record.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

namespace quern::control {
namespace {

using nlohmann::json;

ScalingRecord Random(uint32_t seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<> uniform(0, 1);
  ScalingRecord r;
  r.policy.max_replicas = 9;
  r.policy.target_tokens_per_second = 10 * uniform(random);
  r.policy.target_utilization = 0.1 + 0.9 * uniform(random);
  for (auto* counters : {&r.seen.stable.increase, &r.seen.panic.increase, &r.seen.recent}) {
    for (double& value : counters->values) value = 1000 * uniform(random) / 3;
  }
  r.seen.current_replicas = r.seen.expected_pods = r.seen.fresh_pods = 3;
  r.seen.stable.covered_seconds = 60 * uniform(random);
  r.seen.panic.covered_seconds = 10;
  r.seen.waiting_requests = 7 * uniform(random);
  r.state = Decide(r.policy, r.seen, {}, 1'000).state;
  r.now = 3'000;
  r.decision = Decide(r.policy, r.seen, r.state, r.now);
  return r;
}

TEST(ScalingRecord, ReplaysToTheSameBits) {
  for (uint32_t seed = 0; seed < 200; ++seed) {
    SCOPED_TRACE(seed);
    const ScalingRecord record = Random(seed);
    const auto read = RecordFromJson(json::parse(ToJson(record).dump()));
    ASSERT_TRUE(read) << read.error().message;
    EXPECT_EQ(read->policy, record.policy);
    EXPECT_EQ(read->seen, record.seen);
    EXPECT_EQ(read->state, record.state);
    const auto again = Decide(read->policy, read->seen, read->state, read->now);
    EXPECT_EQ(again, record.decision);
    EXPECT_EQ(read->decision, record.decision);
  }
}

TEST(ScalingRecord, NamesTheMemberThatIsWrong) {
  json object = ToJson(Random(1));
  object["seen"]["stable"].erase("coveredSeconds");
  const auto read = RecordFromJson(object);
  ASSERT_FALSE(read);
  EXPECT_THAT(read.error().message, testing::HasSubstr("record.seen.stable.coveredSeconds"));
  for (const char* text : {"null", "[]", "3", "{}", R"({"policy": 3})"})
    EXPECT_FALSE(RecordFromJson(json::parse(text)));
}

}  // namespace
}  // namespace quern::control
