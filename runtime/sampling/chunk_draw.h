#pragma once

#include <cstdint>
#include <span>

#include "runtime/sampling/logit_scan.h"

namespace quern {

// The sum of a figure per chunk.
double SumOfChunks(std::span<const float> figures);

// The id at which the running sum of exp((logit - max) * inverse_temperature), by id, first exceeds
// `target`, which is less than the whole sum: finds the chunk by the sums that
// LogitScan::ChunkSumExp made of it, and weighs that chunk alone.
int32_t DrawByChunks(const LogitScan& scan, std::span<const float> logits,
                     std::span<const float> chunk_sum, float max, float inverse_temperature,
                     double target);

}  // namespace quern
