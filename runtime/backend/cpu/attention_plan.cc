#include "runtime/backend/cpu/attention_plan.h"

#include <algorithm>

#include "quern/kernels/attention.h"

namespace quern {
namespace {

using kernels::kAttentionSegment;

// Queries that cost as much as loading what they look back at (AVX2, heads of 64 halves).
constexpr int64_t kLoad = 10;
// A task that takes more than one such part of a thread's share is cut, if it can be.
constexpr int64_t kTasksPerThread = 4;

struct Range {
  int32_t begin = 0;
  int32_t end = 0;

  int32_t count() const { return end - begin; }
};

class Planner {
 public:
  Planner(const AttentionHeads& heads, int window,
          std::span<const ForwardBatch::Sequence> sequences, int threads, int64_t part_floats,
          AttentionPlan* plan)
      : heads_(heads),
        window_(window),
        sequences_(sequences),
        threads_(threads),
        part_floats_(part_floats),
        plan_(*plan) {
    plan_.tasks.clear();
    plan_.splits.clear();
  }

  void Run() {
    for (const ForwardBatch::Sequence& sequence : sequences_) total_rows_ += sequence.num_rows;
    for (size_t s = 0; s < sequences_.size(); ++s) AddTasks(static_cast<int32_t>(s));
    if (threads_ == 1) return;
    LongestFirst();
    SplitLongTasks();
    if (!plan_.splits.empty()) LongestFirst();
  }

 private:
  // Pieces that a sequence's context can be cut into: its segments, if there is room for the parts.
  int64_t Cuts(int32_t sequence) const {
    const int32_t rows = sequences_[static_cast<size_t>(sequence)].num_rows;
    const int64_t segments = SegmentsOf({sequence, 0, 0, rows, 0, 0}).count();
    const int64_t parts =
        segments * rows * heads_.heads * kernels::AttentionPartFloats(heads_.head_dim);
    return threads_ > 1 && parts <= part_floats_ ? segments : 1;
  }

  // As many rows to a task as share what is read, but enough tasks for all threads; where contexts
  // can be cut, rows need not be.
  int32_t RowStep(int32_t sequence) const {
    const int64_t fair = total_rows_ * heads_.kv_heads * Cuts(sequence) / (int64_t{2} * threads_);
    const int group = heads_.heads / heads_.kv_heads;
    return static_cast<int32_t>(
        std::clamp<int64_t>(fair, 1, std::max(1, kernels::kAttentionMaxQueries / group)));
  }

  // Heads of a group that go together: all, but where rows, KV heads and segments are fewer than
  // the threads.
  int HeadStep(int32_t sequence) const {
    const int group = heads_.heads / heads_.kv_heads;
    const int64_t tasks = std::max<int64_t>(1, total_rows_ * heads_.kv_heads * Cuts(sequence));
    const int64_t parts = std::min<int64_t>(group, (threads_ + tasks - 1) / tasks);
    return std::min(static_cast<int>((group + parts - 1) / parts), kernels::kAttentionMaxQueries);
  }

  void AddTasks(int32_t sequence) {
    const int group = heads_.heads / heads_.kv_heads;
    const int head_step = HeadStep(sequence);
    const int32_t rows = sequences_[static_cast<size_t>(sequence)].num_rows;
    const int32_t row_step = RowStep(sequence);
    for (int32_t row = 0; row < rows; row += row_step) {
      for (int kv_head = 0; kv_head < heads_.kv_heads; ++kv_head) {
        for (int head = 0; head < group; head += head_step) {
          AttentionTask task;
          task.queries = {sequence,
                          kv_head,
                          row,
                          std::min(rows, row + row_step),
                          kv_head * group + head,
                          kv_head * group + std::min(group, head + head_step)};
          task.cost = Cost(task.queries, Seen(task.queries));
          plan_.tasks.push_back(task);
        }
      }
    }
  }

  // Tasks are in order.
  void SplitLongTasks() {
    int64_t total = 0;
    for (const AttentionTask& task : plan_.tasks) total += task.cost;
    const int64_t most = std::max<int64_t>(1, total / (kTasksPerThread * threads_));
    int64_t used = 0;
    const size_t count = plan_.tasks.size();
    for (size_t i = 0; i < count && plan_.tasks[i].cost > most; ++i) {
      const AttentionQueries queries = plan_.tasks[i].queries;
      const Range segments = SegmentsOf(queries);
      const int64_t floats =
          segments.count() * queries.count() * kernels::AttentionPartFloats(heads_.head_dim);
      if (segments.count() < 2 || used + floats > part_floats_) continue;
      plan_.splits.push_back({queries, segments.count(), used});
      Split(i, segments, plan_.tasks[i].cost / most + 1, used);
      used += floats;
    }
  }

  // Task number `i` becomes so many `pieces`, if it has as many segments.
  void Split(size_t i, Range segments, int64_t pieces, int64_t part) {
    const AttentionTask whole = plan_.tasks[i];
    const Range seen = Seen(whole.queries);
    const int64_t segment_floats =
        whole.queries.count() * kernels::AttentionPartFloats(heads_.head_dim);
    const auto n = static_cast<int32_t>(std::min<int64_t>(segments.count(), pieces));
    for (int32_t piece = 0; piece < n; ++piece) {
      AttentionTask task = whole;
      task.segment_begin = segments.begin + segments.count() * piece / n;
      task.segment_end = segments.begin + segments.count() * (piece + 1) / n;
      task.part = part + (task.segment_begin - segments.begin) * segment_floats;
      task.cost = Cost(task.queries, {std::max(seen.begin, task.segment_begin * kAttentionSegment),
                                      std::min(seen.end, task.segment_end * kAttentionSegment)});
      if (piece == 0) {
        plan_.tasks[i] = task;
      } else {
        plan_.tasks.push_back(task);
      }
    }
  }

  // Chunks of prompts come last in a batch, and the last of their tasks would keep one thread busy
  // while the others wait.
  void LongestFirst() {
    std::sort(plan_.tasks.begin(), plan_.tasks.end(),
              [](const AttentionTask& a, const AttentionTask& b) { return a.cost > b.cost; });
  }

  // The tokens that they look back at.
  Range Seen(const AttentionQueries& queries) const {
    const ForwardBatch::Sequence& sequence = sequences_[static_cast<size_t>(queries.sequence)];
    const int32_t first_row = sequence.context_tokens - sequence.num_rows;
    const int32_t first = first_row + queries.row_begin - window_ + 1;
    return {window_ > 0 ? std::max(0, first) : 0, first_row + queries.row_end};
  }

  Range SegmentsOf(const AttentionQueries& queries) const {
    const Range seen = Seen(queries);
    return {seen.begin / kAttentionSegment, (seen.end - 1) / kAttentionSegment + 1};
  }

  static int64_t Cost(const AttentionQueries& queries, Range tokens) {
    return int64_t{tokens.count()} * (kLoad + queries.count());
  }

  const AttentionHeads& heads_;
  const int window_;
  const std::span<const ForwardBatch::Sequence> sequences_;
  const int threads_;
  const int64_t part_floats_;
  AttentionPlan& plan_;
  int64_t total_rows_ = 0;
};

}  // namespace

void PlanAttention(const AttentionHeads& heads, int window,
                   std::span<const ForwardBatch::Sequence> sequences, int threads,
                   int64_t part_floats, AttentionPlan* plan) {
  Planner(heads, window, sequences, threads, part_floats, plan).Run();
}

}  // namespace quern
