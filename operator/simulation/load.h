#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "runtime/base/result.h"
#include "runtime/bench/trace.h"

namespace quern::simulation {

// The requests of a simulation: a trace, stretched. Times rise from 0.
using Load = std::vector<bench::TraceRequest>;

struct LoadOptions {
  double speed = 1;    // more than 0: the trace runs so many times as fast
  int32_t repeat = 1;  // at least 1: so many times one after the other
  // At least 1: so many requests for each of the trace's, the others up to kCopySpread seconds
  // later, with prompts that share nothing with the first's.
  int32_t copies = 1;
  uint64_t seed = 1;  // of the copies' times
};

inline constexpr double kCopySpread = 1;
inline constexpr size_t kMaxLoad = 20'000'000;  // requests
inline constexpr size_t kMaxLoadBlocks = 100'000'000;
inline constexpr double kMaxLoadSeconds = 366.0 * 24 * 3600;

// Stretches a trace. kInvalidArgument where that would be more than kMaxLoad requests, or
// kMaxLoadBlocks prefix blocks of theirs, or last longer than kMaxLoadSeconds.
Result<Load> MakeLoad(const std::vector<bench::TraceRequest>& trace, const LoadOptions& options);

// Reads a trace file's text (bench::ParseTrace) and stretches it.
Result<Load> LoadFromText(std::string_view text, const LoadOptions& options);

}  // namespace quern::simulation
