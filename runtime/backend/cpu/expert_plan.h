#pragma once

#include <cstdint>
#include <vector>

#include "quern/kernels/moe_route.h"

namespace quern {

// kernels::MoeRoute of one token: experts [top_k] and their weights, taken in float64 and rounded
// once. `experts` is at most kMaxRoutedExperts and `top_k` at most kMaxChosenExperts. Pure.
void RouteToken(const float* logits, int experts, int top_k, kernels::RouterNorm norm, float scale,
                int32_t* expert_ids, float* weights);

// Which rows each expert multiplies: pairs of a token and one of its experts, sorted by expert and
// within an expert by token. Pair = token * top_k + slot.
struct ExpertPlan {
  // Sorted rows [begin, end), all of one expert.
  struct Rows {
    int32_t expert = 0;
    int64_t begin = 0;
    int64_t end = 0;
  };
  // Of an expert's rows, those that are quantised and multiplied together: they begin at its row
  // `start`.
  struct Bundle {
    int32_t group = 0;  // of `groups`
    int64_t start = 0;
  };

  std::vector<int32_t> expert_ids;  // [pairs]: set before SortPairs
  std::vector<float> weights;       // [pairs]: set by whoever sets expert_ids
  std::vector<int32_t> row_pairs;   // [pairs]: the pair of each sorted row
  std::vector<int32_t> pair_rows;   // [pairs]: the sorted row of each pair
  std::vector<Rows> groups;         // of the experts that have rows, ascending
  std::vector<Bundle> bundles;      // of all groups, in their order

  // Room for this many, so that plans of no more take no memory.
  void Reserve(int64_t pairs, int experts);
  // Makes the rest of the first `pairs` of expert_ids, all below `experts`.
  void SortPairs(int64_t pairs, int experts);

 private:
  std::vector<int64_t> next_;  // [experts]: the next row of each
};

}  // namespace quern
