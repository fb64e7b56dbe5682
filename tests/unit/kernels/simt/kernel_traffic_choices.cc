#include <random>

#include "kernels/cuda/sampling/sampling_launch.h"
#include "quern/kernels/moe_combine.h"
#include "quern/kernels/moe_permute.h"
#include "quern/kernels/moe_route.h"
#include "quern/kernels/verify_drafts.h"
#include "tests/unit/kernels/simt/kernel_traffic.h"

// Around a mixture of experts, and the choice of tokens: the bulk is the logits, the numbers that
// are sorted, or the rows that are summed.
namespace quern::kernels::testing {
namespace {

void Route(int64_t experts, int64_t top_k, int64_t tokens) {
  const DeviceMemory logits = Bytes(tokens * experts * 4);
  const DeviceMemory ids(static_cast<size_t>(tokens * top_k * 4));
  const DeviceMemory weights(static_cast<size_t>(tokens * top_k * 4));
  const auto bulk = static_cast<int64_t>(logits.bytes());
  Show({"route",
        std::to_string(top_k) + " of " + std::to_string(experts),
        tokens,
        {All(logits)},
        {{bulk, bulk, tokens * top_k * 8}}},
       [&] {
         return MoeRoute({logits.As<float>(), experts, tokens, experts, top_k,
                          RouterNorm::kChosenExperts, 1, ids.As<int32_t>(), weights.As<float>()},
                         nullptr);
       });
}

void Permute(int64_t experts, int64_t pairs) {
  constexpr int64_t kTile = 16;
  std::vector<int32_t> ids(static_cast<size_t>(pairs));
  for (size_t i = 0; i < ids.size(); ++i) {
    ids[i] = static_cast<int32_t>(i * 37 % static_cast<size_t>(experts));
  }
  const DeviceMemory expert_ids(ids);
  const int64_t rows = MoePermuteRows(pairs, experts, kTile);
  const DeviceMemory row_pairs(static_cast<size_t>(rows * 4));
  const DeviceMemory pair_rows(static_cast<size_t>(pairs * 4));
  const DeviceMemory offsets(static_cast<size_t>((experts + 1) * 4));
  const size_t bytes = MoePermuteWorkspaceBytes(pairs, experts);
  const DeviceMemory workspace(bytes + 16);
  const int64_t bulk = pairs * 4;
  const int64_t filled = (rows - pairs + experts + 1) * 4;  // rows of no pair, and the offsets
  const auto counts = static_cast<int64_t>(bytes);
  Operation operation{"permute",
                      std::to_string(pairs) + " to " + std::to_string(experts),
                      pairs,
                      {All(expert_ids)},
                      {}};
  if (bytes == 0) {
    operation.launches = {{bulk, bulk, pairs * 8 + filled}};
  } else {
    operation.launches = {{bulk, bulk, counts}, {0, counts, counts + filled}, {bulk, 0, pairs * 8}};
  }
  Show(operation, [&] {
    return MoePermute({expert_ids.As<int32_t>(), pairs, experts, kTile, row_pairs.As<int32_t>(),
                       pair_rows.As<int32_t>(), offsets.As<int32_t>(), workspace.As(), bytes},
                      nullptr);
  });
}

void Combine(int64_t top_k, int64_t hidden, int64_t tokens) {
  const int64_t rows = tokens * top_k;
  const DeviceMemory y = Bytes(rows * hidden * 2);
  std::vector<int32_t> numbers(static_cast<size_t>(rows));
  for (size_t i = 0; i < numbers.size(); ++i)
    numbers[i] = static_cast<int32_t>(rows - 1) - static_cast<int32_t>(i);
  const DeviceMemory pair_rows(numbers);
  const DeviceMemory weights = Bytes(rows * 4);
  const DeviceMemory out(static_cast<size_t>(tokens * hidden * 2));
  const auto bulk = static_cast<int64_t>(y.bytes());
  Show({"combine",
        std::to_string(top_k) + " of " + std::to_string(hidden),
        tokens,
        {All(y)},
        {{bulk, bulk + rows * 8, tokens * hidden * 2}}},
       [&] {
         return MoeCombine({ActivationType::kBF16, tokens, top_k, hidden, y.As(), hidden,
                            pair_rows.As<int32_t>(), weights.As<float>(), out.As(), hidden},
                           nullptr);
       });
}

constexpr int64_t kVocab = 16 * kSampleTile;

// Rows of logits as a model's may be: the histograms' conflicts of banks depend on them.
DeviceMemory Logits(int64_t rows) {
  std::mt19937 random(5);
  std::normal_distribution<float> normal(0, 4);
  std::vector<float> logits(static_cast<size_t>(rows * kVocab));
  for (float& logit : logits) logit = normal(random);
  return DeviceMemory(logits);
}

DeviceMemory Params(int64_t rows) {
  return DeviceMemory(
      std::vector<SampleRow>(static_cast<size_t>(rows), SampleRow{1, 0.9f, 0, 50, 5, 6}));
}

// The launches that come before the last one: each reads all logits.
std::vector<LaunchBytes> Steps(int64_t rows, bool any_top_k, bool any_top_p, bool any_draw) {
  const int steps = 1 + (any_top_k || any_top_p ? 1 : 0) + (any_top_k ? 2 : 0) +
                    (any_top_p ? 2 : 0) + (any_draw ? 1 : 0);
  return std::vector<LaunchBytes>(static_cast<size_t>(steps), {rows * kVocab * 4, 0, 0});
}

void Sample(const char* name, int64_t rows, bool any_draw, bool any_top_k, bool any_top_p) {
  const DeviceMemory logits = Logits(rows);
  const DeviceMemory params = Params(rows);
  const DeviceMemory ids(static_cast<size_t>(rows * 4));
  const DeviceMemory workspace(SampleWorkspaceBytes(rows, kVocab));
  Operation operation{std::string("sample ") + name,
                      std::to_string(kVocab),
                      rows,
                      {All(logits)},
                      Steps(rows, any_top_k, any_top_p, any_draw)};
  operation.launches.push_back({any_draw ? rows * kSampleTile * 4 : 0, 0, rows * 4});
  Show(operation, [&] {
    return SampleTokens(
        {logits.As<float>(), kVocab, kVocab, rows, params.As<SampleRow>(), any_draw, any_top_k,
         any_top_p, ids.As<int32_t>(), workspace.As(), workspace.bytes()},
        nullptr);
  });
}

void Verify(bool with_logits) {
  constexpr int64_t kDrafts = 3;
  const DeviceMemory target = Logits(kDrafts + 1);
  const DeviceMemory draft = Logits(kDrafts);
  const DeviceMemory params = Params(1);
  const DeviceMemory drafted(std::vector<int32_t>{0, 0, 0});  // which p and q cut: refused
  const DeviceMemory accepted(4);
  const DeviceMemory tokens((kDrafts + 1) * 4);
  const DeviceMemory workspace(VerifyWorkspaceBytes(1, kDrafts, kVocab));
  Operation operation{with_logits ? "verify drawn drafts" : "verify sure drafts",
                      std::to_string(kDrafts) + " of " + std::to_string(kVocab),
                      1,
                      {All(target), All(draft)},
                      Steps(kDrafts + 1, true, true, true)};
  std::vector<LaunchBytes>& launches = operation.launches;
  if (with_logits) {
    const std::vector<LaunchBytes> more = Steps(kDrafts, true, true, true);
    launches.insert(launches.end(), more.begin(), more.end());
    launches.insert(launches.end(), 3, {});  // the verdicts, what is left of p, the token
  } else {
    launches.push_back({(kDrafts + 1) * kSampleTile * 4, 0, (kDrafts + 1) * 4});
    launches.push_back({});
  }
  Show(operation, [&] {
    return VerifyDrafts(
        {target.As<float>(), with_logits ? draft.As<float>() : nullptr, kVocab, kVocab, 1, kDrafts,
         drafted.As<int32_t>(), params.As<SampleRow>(), true, true, true, accepted.As<int32_t>(),
         tokens.As<int32_t>(), workspace.As(), workspace.bytes()},
        nullptr);
  });
}

}  // namespace

void ShowChoices() {
  Route(32, 4, 8);
  Route(128, 8, 8);
  Permute(32, 256);
  Permute(128, 4096);
  Combine(4, 2880, 4);
  Combine(8, 2048, 4);
  Sample("greedy", 2, false, false, false);
  Sample("all", 2, true, false, false);
  Sample("top_k, top_p", 2, true, true, true);
  Verify(false);
  Verify(true);
}

}  // namespace quern::kernels::testing
