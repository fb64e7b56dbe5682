#include "runtime/backend/cpu/attention_plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <map>
#include <random>
#include <set>
#include <tuple>
#include <utility>
#include <vector>

#include "quern/kernels/attention.h"

namespace quern {
namespace {

using kernels::kAttentionSegment;

constexpr AttentionHeads kSmolLm = {.heads = 9, .kv_heads = 3, .head_dim = 64};
constexpr int64_t kRoom = int64_t{1} << 18;

std::vector<ForwardBatch::Sequence> Sequences(
    const std::vector<std::pair<int32_t, int32_t>>& rows_and_contexts) {
  std::vector<ForwardBatch::Sequence> sequences;
  int32_t row = 0;
  for (const auto& [rows, context] : rows_and_contexts) {
    sequences.push_back({.first_row = row, .num_rows = rows, .context_tokens = context});
    row += rows;
  }
  return sequences;
}

AttentionPlan Plan(const AttentionHeads& heads, int window,
                   const std::vector<ForwardBatch::Sequence>& sequences, int threads,
                   int64_t room = kRoom) {
  AttentionPlan plan;
  PlanAttention(heads, window, sequences, threads, room, &plan);
  return plan;
}

// Each query, by sequence, row and head, with the segments that are computed for it; -1: all.
using Computed = std::map<std::tuple<int32_t, int32_t, int32_t>, std::multiset<int32_t>>;

Computed ComputedBy(const AttentionPlan& plan) {
  Computed computed;
  for (const AttentionTask& task : plan.tasks) {
    for (int32_t row = task.queries.row_begin; row < task.queries.row_end; ++row) {
      for (int32_t head = task.queries.head_begin; head < task.queries.head_end; ++head) {
        auto& segments = computed[{task.queries.sequence, row, head}];
        if (task.whole()) segments.insert(-1);
        for (int32_t s = task.segment_begin; s < task.segment_end; ++s) segments.insert(s);
      }
    }
  }
  return computed;
}

// The parts that tasks write are those that splits combine, each once, and within `room`.
void ExpectPartsMatch(const AttentionPlan& plan, int head_dim, int64_t room) {
  std::multiset<int64_t> written, read;
  const int64_t floats = kernels::AttentionPartFloats(head_dim);
  const auto add = [&](std::multiset<int64_t>& parts, int64_t part, int64_t count) {
    for (int64_t i = 0; i < count; ++i) parts.insert(part + i * floats);
  };
  for (const AttentionTask& task : plan.tasks) {
    if (task.whole()) continue;
    add(written, task.part, int64_t{task.segment_end - task.segment_begin} * task.queries.count());
  }
  for (const AttentionSplit& split : plan.splits) {
    add(read, split.part, int64_t{split.segments} * split.queries.count());
  }
  EXPECT_EQ(written, read);
  EXPECT_EQ(std::set<int64_t>(read.begin(), read.end()).size(), read.size()) << "parts overlap";
  if (!read.empty()) EXPECT_LE(*read.rbegin() + floats, room);
}

TEST(PlanAttention, ComputesEveryQueryOfEverySegmentThatItSeesOnce) {
  std::mt19937 random(1);
  const auto pick = [&](int32_t least, int32_t most) {
    return std::uniform_int_distribution<int32_t>(least, most)(random);
  };
  int splits = 0;
  for (int i = 0; i < 300; ++i) {
    const int kv_heads = pick(1, 8);
    const AttentionHeads heads = {kv_heads * pick(1, i % 10 == 0 ? 150 : 8), kv_heads, 32};
    const int window = pick(0, 1) * pick(1, 3000);
    std::vector<std::pair<int32_t, int32_t>> shapes(static_cast<size_t>(pick(1, 9)));
    for (auto& [rows, context] : shapes) {
      rows = pick(0, 3) == 0 ? pick(1, 200) : 1;
      context = rows + pick(0, 9000);
    }
    const auto sequences = Sequences(shapes);
    const int64_t room = int64_t{1} << pick(0, 22);
    const AttentionPlan plan = Plan(heads, window, sequences, pick(1, 40), room);
    splits += static_cast<int>(plan.splits.size());
    ExpectPartsMatch(plan, heads.head_dim, room);
    const Computed computed = ComputedBy(plan);
    size_t queries = 0;
    for (const auto& [rows, context] : shapes) {
      queries += static_cast<size_t>(rows) * static_cast<size_t>(heads.heads);
    }
    ASSERT_EQ(computed.size(), queries);
    for (const auto& [query, segments] : computed) {
      ASSERT_EQ(std::set<int32_t>(segments.begin(), segments.end()).size(), segments.size());
      if (*segments.begin() == -1) {
        ASSERT_EQ(segments.size(), 1);
        continue;
      }
      const ForwardBatch::Sequence& sequence = sequences[static_cast<size_t>(std::get<0>(query))];
      const int32_t position = sequence.context_tokens - sequence.num_rows + std::get<1>(query);
      const int32_t first = window > 0 ? std::max(0, position - window + 1) : 0;
      ASSERT_LE(*segments.begin(), first / kAttentionSegment);
      ASSERT_GE(*segments.rbegin(), position / kAttentionSegment);
      ASSERT_EQ(*segments.rbegin() - *segments.begin() + 1, static_cast<int32_t>(segments.size()));
    }
  }
  EXPECT_GT(splits, 100);
}

// The time that `threads` take, as costs, when each takes the next task as it comes free, over the
// share of each.
double Makespan(const AttentionPlan& plan, int threads) {
  std::multiset<int64_t> busy;
  for (int i = 0; i < threads; ++i) busy.insert(0);
  int64_t total = 0;
  for (const AttentionTask& task : plan.tasks) {
    const int64_t start = *busy.begin();
    busy.erase(busy.begin());
    busy.insert(start + task.cost);
    total += task.cost;
  }
  return static_cast<double>(*busy.rbegin()) * threads / static_cast<double>(total);
}

TEST(PlanAttention, KeepsAllThreadsBusyWithOneLongContext) {
  for (const int threads : {2, 3, 8}) {
    // A chunk of 11 rows, and a single row: three KV heads are three tasks.
    for (const int32_t rows : {1, 11}) {
      const AttentionPlan plan = Plan(kSmolLm, 0, Sequences({{rows, 6000}}), threads);
      EXPECT_LT(Makespan(plan, threads), 1.2) << rows << " rows on " << threads;
    }
  }
}

// Nothing is left to share out then but the heads of a group.
TEST(PlanAttention, SharesOutTheHeadsOfAShortContextAndOfALongOneWithoutRoom) {
  constexpr AttentionHeads kGemma = {.heads = 4, .kv_heads = 1, .head_dim = 256};
  EXPECT_EQ(Plan(kGemma, 0, Sequences({{1, 300}}), 4).tasks.size(), 4);
  EXPECT_EQ(Plan(kGemma, 0, Sequences({{1, 6000}}), 4, 100).tasks.size(), 4);
  EXPECT_EQ(Plan(kGemma, 0, Sequences({{1, 300}}), 1).tasks.size(), 1);
}

TEST(PlanAttention, LoadsWhatAChunkLooksBackAtOnce) {
  const AttentionPlan plan = Plan(kSmolLm, 0, Sequences({{1, 300}, {1, 200}, {20, 6000}}), 2);
  for (const AttentionTask& task : plan.tasks) {
    if (task.queries.sequence == 2) EXPECT_EQ(task.queries.row_end - task.queries.row_begin, 20);
  }
}

TEST(PlanAttention, TakesTheLongestTaskFirst) {
  const AttentionPlan plan = Plan(kSmolLm, 0, Sequences({{1, 300}, {1, 200}, {7, 5000}}), 2);
  EXPECT_TRUE(std::is_sorted(plan.tasks.begin(), plan.tasks.end(),
                             [](const auto& a, const auto& b) { return a.cost > b.cost; }));
  EXPECT_EQ(plan.tasks.front().queries.sequence, 2);
}

TEST(PlanAttention, CutsNoContextForOneThreadNorWithoutRoomNorWithinASegment) {
  EXPECT_TRUE(Plan(kSmolLm, 0, Sequences({{4, 6000}}), 1).splits.empty());
  EXPECT_TRUE(Plan(kSmolLm, 0, Sequences({{4, 6000}}), 2, 100).splits.empty());
  EXPECT_TRUE(Plan(kSmolLm, 0, Sequences({{4, kAttentionSegment}}), 2).splits.empty());
  EXPECT_FALSE(Plan(kSmolLm, 0, Sequences({{4, kAttentionSegment + 1}}), 2).splits.empty());
}

}  // namespace
}  // namespace quern
