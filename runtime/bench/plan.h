#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/result.h"
#include "runtime/bench/random.h"
#include "runtime/bench/trace.h"

namespace quern::bench {

// When requests are sent: closed keeps a number of them under way; the others send at times that
// do not depend on the answers (open loop).
enum class Arrivals { kClosed, kConstant, kPoisson, kTrace };
std::string_view ArrivalsName(Arrivals arrivals);

// Lengths from low to high, all as likely.
struct LengthRange {
  int32_t low = 128;
  int32_t high = 128;
  std::string Show() const;
};

// "128" or "64-256". kInvalidArgument otherwise, and outside of 1 to kMaxTraceTokens.
Result<LengthRange> ParseLengthRange(std::string_view text);

struct PlanOptions {
  Arrivals arrivals = Arrivals::kClosed;
  double rate = 0;                // requests a second, of kConstant and kPoisson
  double speedup = 1;             // of kTrace: its times are divided by it
  int64_t max_requests = 0;       // 0: as many as the trace has, or the duration lasts
  double duration = 0;            // seconds; arrivals from then on are none; 0: no end
  LengthRange prompt, output;     // without a trace
  int32_t max_prompt_tokens = 0;  // longer ones of a trace are cut to it; 0: none is
  int32_t max_output_tokens = 0;
  uint64_t seed = 1;
};

// One request that is to be sent.
struct PlannedRequest {
  int64_t index = 0;
  double at = 0;  // seconds since the start; of kClosed 0
  int32_t prompt_tokens = 0;
  int32_t output_tokens = 0;
  const std::vector<int64_t>* blocks = nullptr;  // of the trace's request, where it has them
};

// The requests of a run, in the order of their times. The same options give the same plan. Not
// thread-safe.
class Plan {
 public:
  // `trace` may be empty unless arrivals are kTrace; else lengths are its, in its order, and it is
  // gone through once.
  Plan(const PlanOptions& options, std::vector<TraceRequest> trace);

  std::optional<PlannedRequest> Next();
  // Requests that Next cut to max_prompt_tokens or max_output_tokens.
  int64_t num_cut() const { return num_cut_; }
  // How many there will be; nullopt where the duration decides.
  std::optional<int64_t> Total() const;

 private:
  double NextArrival();

  const PlanOptions options_;
  const std::vector<TraceRequest> trace_;
  Random lengths_;
  Random gaps_;
  int64_t next_ = 0;
  double arrival_ = 0;
  int64_t num_cut_ = 0;
};

}  // namespace quern::bench
