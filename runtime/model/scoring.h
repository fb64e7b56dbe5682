#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <utility>
#include <vector>

#include "runtime/base/result.h"
#include "runtime/model/model.h"

namespace quern {

// Told the logits [vocab_size] that follow the token at `position`; they are only valid during the
// call.
using LogitsSink = std::function<void(int32_t position, std::span<const float> logits)>;

// Runs one sequence from an empty cache and hands out the logits of the positions for which
// `wanted` is true (all where it is empty). The model's KV cache must have been allocated with at
// least tokens.size() tokens (LayoutFor); it is used from its first block. Errors: kInvalidArgument
// for a token outside the vocabulary (says which), and the model's.
Status ScoreSequence(Model& model, const KvLayout& layout, std::span<const int32_t> tokens,
                     const std::vector<bool>& wanted, const LogitsSink& sink);

// Blocks of 16 tokens for a sequence of `tokens` tokens that ScoreSequence runs; layers that see
// only their last tokens have no more than those and a step's.
KvLayout LayoutFor(const ModelInfo& model, int64_t tokens);

// log(sum(exp(logits))), summed in double.
double LogSumExp(std::span<const float> logits);

// Indices of the k largest, largest first; equal ones by index. k may be more than there are.
std::vector<std::pair<int32_t, float>> TopK(std::span<const float> logits, size_t k);

}  // namespace quern
