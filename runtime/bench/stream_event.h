#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "runtime/base/result.h"

namespace quern::bench {

// Token counts as a server tells them. -1: not told.
struct TokenUsage {
  int32_t prompt = -1;
  int32_t completion = -1;
  int32_t cached = -1;  // of the prompt, found in a prefix cache
};

// What one event of a streamed completion or chat completion says.
struct StreamEvent {
  bool done = false;      // [DONE]
  bool has_text = false;  // of the answer, of its reasoning or of a tool call
  bool finished = false;  // a finish_reason
  std::optional<TokenUsage> usage;
  std::string error;        // the server's message; empty: none
  std::string fingerprint;  // system_fingerprint; empty: none
};

// A server's text for a terminal: one line, nothing that controls it, cut to 300 bytes.
std::string OneLine(std::string text);

// kDataLoss where `data` is not a JSON object, as these events are.
Result<StreamEvent> ReadStreamEvent(std::string_view data);

// The "usage" of an answer that was not streamed; nullopt where there is none.
std::optional<TokenUsage> ReadUsage(std::string_view body);

// The message of an error answer ({"error": {"message": ...}} and what others write), cut to 300
// bytes; the beginning of the body where it has none. One line, printable.
std::string ReadErrorMessage(std::string_view body);

}  // namespace quern::bench
