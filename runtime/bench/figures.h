#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "runtime/bench/record.h"

namespace quern::bench {

// Seconds, or whatever the samples are in. All 0 where there are none.
struct Distribution {
  size_t count = 0;
  double mean = 0, p50 = 0, p90 = 0, p95 = 0, p99 = 0, max = 0;
};
// Percentiles are linear between the two nearest ranks. Sorts `samples`.
Distribution DistributionOf(std::vector<float>& samples);

// What a request must keep to count as good, in seconds; those that are not set do not matter.
struct Objective {
  std::optional<double> ttft;
  std::optional<double> tpot;  // mean time of a token after the first
  std::optional<double> itl;   // 95th percentile of the request's own gaps
  std::optional<double> e2e;
  bool empty() const { return !ttft && !tpot && !itl && !e2e; }
};

struct Goodput {
  int64_t met = 0;   // requests that kept all of the objective
  double share = 0;  // of those done or failed: a failed one has met nothing
  double requests_per_second = 0;
  // Done requests that missed each part.
  int64_t missed_ttft = 0, missed_tpot = 0, missed_itl = 0, missed_e2e = 0;
};

// The figures of a run. Rates are over `seconds`: from the start to the last end of a request.
struct Figures {
  double seconds = 0;
  int64_t done = 0, failed = 0, cancelled = 0;
  int64_t ended_early = 0;                // done, with fewer tokens than asked for
  int64_t usage_missing = 0;              // done, and the server did not count the tokens
  std::map<std::string, int64_t> errors;  // by kind
  // Of done requests.
  int64_t prompt_tokens = 0, cached_tokens = 0, output_tokens = 0;
  int64_t wanted_prompt_tokens = 0;
  double requests_per_second = 0;
  double prompt_tokens_per_second = 0, output_tokens_per_second = 0, total_tokens_per_second = 0;
  double tokens_per_event = 0;  // with text
  double mean_in_flight = 0;
  Distribution ttft, tpot, itl, e2e;
  Distribution lateness;       // from scheduled to sent, of all that were sent
  bool gaps_are_whole = true;  // false: too many to keep; ITL is of the requests that have theirs
  Goodput goodput;
};

// `records` are of requests that have ended, in any order.
Figures FiguresOf(std::span<const RequestRecord* const> records, const Objective& objective);

}  // namespace quern::bench
