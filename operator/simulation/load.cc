#include "operator/simulation/load.h"

#include <algorithm>

#include "runtime/bench/random.h"

namespace quern::simulation {

Result<Load> MakeLoad(const std::vector<bench::TraceRequest>& trace, const LoadOptions& options) {
  const auto times = static_cast<size_t>(options.repeat) * static_cast<size_t>(options.copies);
  if (trace.size() > kMaxLoad / times) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "{} requests x {} are more than {}; lower --repeat or --copies", trace.size(),
                     times, kMaxLoad);
  }
  size_t blocks = 0;
  for (const bench::TraceRequest& request : trace) blocks += request.blocks.size();
  if (blocks > kMaxLoadBlocks / times) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "{} prefix blocks x {} are more than {}; lower --repeat or --copies", blocks,
                     times, kMaxLoadBlocks);
  }
  Load load;
  load.reserve(trace.size() * times);
  // From the last request to the first of the next time: as long as a mean gap.
  const double last = trace.back().at / options.speed;
  const double gap = trace.size() > 1 ? last / static_cast<double>(trace.size() - 1) : 1;
  if (!((last + gap) * options.repeat <= kMaxLoadSeconds)) {
    return MakeError(
        ErrorCode::kInvalidArgument,
        "the load would last {:.3g} s, more than a year: its last request is at {:.3g} "
        "s (the CSV's times are in seconds, the JSONL's in milliseconds); raise --speed or "
        "lower --repeat",
        (last + gap) * options.repeat, trace.back().at);
  }
  bench::Random random(options.seed);
  for (int32_t copy = 0; copy < options.copies; ++copy) {
    for (int32_t turn = 0; turn < options.repeat; ++turn) {
      for (const bench::TraceRequest& request : trace) {
        bench::TraceRequest& out = load.emplace_back(request);
        out.at = request.at / options.speed + turn * (last + gap);
        if (copy == 0) continue;
        out.at += random.Unit() * kCopySpread;
        for (int64_t& block : out.blocks) {
          block = static_cast<int64_t>(
              bench::MixSeeds(static_cast<uint64_t>(block), static_cast<uint64_t>(copy)));
        }
      }
    }
  }
  std::stable_sort(load.begin(), load.end(),
                   [](const auto& a, const auto& b) { return a.at < b.at; });
  return load;
}

Result<Load> LoadFromText(std::string_view text, const LoadOptions& options) {
  QUERN_ASSIGN(const std::vector<bench::TraceRequest> trace, bench::ParseTrace(text));
  return MakeLoad(trace, options);
}

}  // namespace quern::simulation
