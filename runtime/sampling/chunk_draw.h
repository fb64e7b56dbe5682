#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "runtime/sampling/logit_scan.h"

namespace quern {

// The sum of a figure per chunk.
double SumOfChunks(std::span<const float> figures);

// The sums of the figures of each chunk and all before it into `through`, which becomes as long.
void SumThroughChunks(std::span<const float> figures, std::vector<double>& through);

// The id at which the running sum of exp((logit - max) * inverse_temperature), by id, first exceeds
// `target`, which is less than the whole sum: finds the chunk by `through`, SumThroughChunks of
// LogitScan::ChunkSumExp's sums, and weighs that chunk alone. Up to rounding; always an id that
// weighs more than nothing.
int32_t DrawByChunks(const LogitScan& scan, std::span<const float> logits,
                     std::span<const double> through, float max, float inverse_temperature,
                     double target);

}  // namespace quern
