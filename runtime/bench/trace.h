#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "runtime/base/result.h"

namespace quern::bench {

// One request of a recorded workload.
struct TraceRequest {
  double at = 0;  // seconds since the first request of the trace
  int32_t prompt_tokens = 1;
  int32_t output_tokens = 1;
  // Names of the prompt's blocks of kTraceBlockTokens; prompts that begin with the same names begin
  // with the same text. Empty: not told.
  std::vector<int64_t> blocks;
};

inline constexpr int32_t kTraceBlockTokens = 512;
inline constexpr int32_t kMaxTraceTokens = 10'000'000;  // of one prompt or answer
inline constexpr size_t kMaxTraceRequests = 1'000'000;

// Reads at most the first `limit` requests, and sorts them by their time. Two formats, told apart
// by the first byte:
//   CSV   a head that names the columns, in any order and case: TIMESTAMP ("2023-11-16
//         18:17:03.9799600" or seconds), ContextTokens, GeneratedTokens (Azure's traces); also
//         input_length or "Request tokens", output_length or "Response tokens" (BurstGPT's)
//   JSONL {"timestamp": milliseconds, "input_length", "output_length", "hash_ids"} (Mooncake's)
// A length of 0 is taken as 1: no request is without a prompt or an answer. kInvalidArgument names
// the line and what is wrong there.
Result<std::vector<TraceRequest>> ParseTrace(std::string_view text,
                                             size_t limit = kMaxTraceRequests);

}  // namespace quern::bench
