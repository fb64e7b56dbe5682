#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "runtime/bench/stream_event.h"

namespace quern::bench {

enum class Outcome : uint8_t { kRunning, kDone, kFailed, kCancelled };

// What was seen of one request. Times are seconds since the run's start.
struct RequestRecord {
  int64_t index = 0;
  int32_t wanted_prompt = 0;
  int32_t wanted_output = 0;
  double scheduled = 0;  // when it was to be sent; latencies count from here
  double sent = 0;
  double first_text = -1;  // the first event with text; -1: none
  double last_text = -1;
  double end = 0;
  // Between events with text, `text_events` - 1 of them. Empty where they were no longer kept.
  std::vector<float> gaps;
  int32_t text_events = 0;
  TokenUsage usage;
  Outcome outcome = Outcome::kRunning;
  std::string error;  // its kind: "status 429", "timeout", "connection reset"; of kFailed

  double Ttft() const { return first_text - scheduled; }
  double E2e() const { return end - scheduled; }
  // By the server's count; by the events where it does not tell.
  int32_t OutputTokens() const { return usage.completion >= 0 ? usage.completion : text_events; }
  // Mean time of a token after the first; 0 where there is none.
  double Tpot() const {
    return OutputTokens() < 2 ? 0 : (last_text - first_text) / (OutputTokens() - 1);
  }
  // How often a gap stands for a token: an event may carry several. At least 1.
  double TokensPerGap() const {
    if (text_events < 2 || OutputTokens() <= text_events) return 1;
    return static_cast<double>(OutputTokens() - 1) / (text_events - 1);
  }
};

}  // namespace quern::bench
