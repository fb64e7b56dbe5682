// Trace files of quern-bench: whatever the bytes, the requests that come out can be planned.

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "runtime/bench/plan.h"
#include "runtime/bench/trace.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  auto trace = quern::bench::ParseTrace(text, 1000);
  if (!trace) return 0;
  if (trace->empty() || trace->front().at != 0) std::abort();
  quern::bench::PlanOptions options;
  options.arrivals = quern::bench::Arrivals::kTrace;
  quern::bench::Plan plan(options, std::move(trace).value());
  double before = 0;
  while (const auto next = plan.Next()) {
    if (!std::isfinite(next->at) || next->at < before) std::abort();
    if (next->prompt_tokens < 1 || next->output_tokens < 1) std::abort();
    if (next->prompt_tokens > quern::bench::kMaxTraceTokens) std::abort();
    before = next->at;
  }
  return 0;
}
