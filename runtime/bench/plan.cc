#include "runtime/bench/plan.h"

#include <algorithm>
#include <charconv>
#include <cmath>

namespace quern::bench {
namespace {

// The streams of random numbers that a seed gives; prompts.cc has others.
enum PlanStream : uint64_t { kLengths = 1, kGaps = 2 };

int32_t Draw(const LengthRange& range, Random& random) {
  const auto width = static_cast<uint32_t>(range.high - range.low) + 1;
  return range.low + static_cast<int32_t>(random.Below(width));
}

// Cuts `tokens` to `limit`; true if it did.
bool Cut(int32_t& tokens, int32_t limit) {
  if (limit == 0 || tokens <= limit) return false;
  tokens = limit;
  return true;
}

}  // namespace

std::string_view ArrivalsName(Arrivals arrivals) {
  switch (arrivals) {
    case Arrivals::kClosed:
      return "closed";
    case Arrivals::kConstant:
      return "constant";
    case Arrivals::kPoisson:
      return "poisson";
    case Arrivals::kTrace:
      return "trace";
  }
  return "unknown";
}

std::string LengthRange::Show() const {
  return low == high ? fmt::format("{}", low) : fmt::format("{}-{}", low, high);
}

Result<LengthRange> ParseLengthRange(std::string_view text) {
  LengthRange range;
  const char* const end = text.data() + text.size();
  auto [at, error] = std::from_chars(text.data(), end, range.low);
  range.high = range.low;
  if (error == std::errc() && at != end && *at == '-') {
    const auto second = std::from_chars(at + 1, end, range.high);
    at = second.ptr;
    error = second.ec;
  }
  if (error != std::errc() || at != end || range.low < 1 || range.high < range.low ||
      range.high > kMaxTraceTokens) {
    return MakeError(
        ErrorCode::kInvalidArgument,
        "'{}' is no length; write for example 128, or 64-256 for lengths between, from "
        "1 to {}",
        text, kMaxTraceTokens);
  }
  return range;
}

Plan::Plan(const PlanOptions& options, std::vector<TraceRequest> trace)
    : options_(options),
      trace_(std::move(trace)),
      lengths_(MixSeeds(options.seed, kLengths)),
      gaps_(MixSeeds(options.seed, kGaps)) {}

std::optional<int64_t> Plan::Total() const {
  if (options_.duration > 0) return std::nullopt;
  const auto in_trace = static_cast<int64_t>(trace_.size());
  if (trace_.empty()) return options_.max_requests;
  return options_.max_requests > 0 ? std::min(options_.max_requests, in_trace) : in_trace;
}

double Plan::NextArrival() {
  switch (options_.arrivals) {
    case Arrivals::kClosed:
      return 0;
    case Arrivals::kTrace:
      return trace_[static_cast<size_t>(next_)].at / options_.speedup;
    case Arrivals::kConstant:
      return static_cast<double>(next_) / options_.rate;
    case Arrivals::kPoisson:
      arrival_ += -std::log(gaps_.Unit()) / options_.rate;
      return arrival_;
  }
  return 0;
}

std::optional<PlannedRequest> Plan::Next() {
  if (options_.max_requests > 0 && next_ >= options_.max_requests) return std::nullopt;
  if (!trace_.empty() && next_ >= static_cast<int64_t>(trace_.size())) return std::nullopt;
  PlannedRequest request;
  request.at = NextArrival();
  if (options_.duration > 0 && request.at >= options_.duration) return std::nullopt;
  if (trace_.empty()) {
    request.prompt_tokens = Draw(options_.prompt, lengths_);
    request.output_tokens = Draw(options_.output, lengths_);
  } else {
    const TraceRequest& told = trace_[static_cast<size_t>(next_)];
    request.prompt_tokens = told.prompt_tokens;
    request.output_tokens = told.output_tokens;
    if (!told.blocks.empty()) request.blocks = &told.blocks;
    const bool prompt_cut = Cut(request.prompt_tokens, options_.max_prompt_tokens);
    const bool output_cut = Cut(request.output_tokens, options_.max_output_tokens);
    if (prompt_cut || output_cut) ++num_cut_;
  }
  request.index = next_++;
  return request;
}

}  // namespace quern::bench
