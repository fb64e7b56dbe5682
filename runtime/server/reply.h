#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/engine/engine.h"
#include "runtime/tokenizer/tokenizer.h"

namespace quern::server {

enum class ReplyKind { kCompletion, kChat };

struct Usage {
  int64_t prompt_tokens = 0;
  int64_t completion_tokens = 0;
  int64_t cached_tokens = 0;  // of prompt_tokens: found in the prefix cache
};

struct ToolCall {
  std::string id;  // "call_" and random digits
  std::string name;
  std::string arguments;  // the text of JSON, unless it was cut off
};

struct FinishedChoice {
  std::string text;
  std::vector<ToolCall> calls;  // of functions
  FinishReason finish = FinishReason::kStop;
  std::vector<GeneratedLogprobs> logprobs;
};

// Writes the JSON of one answer, plain or as the events of a stream, in OpenAI's shapes. Pure; what
// does not change from event to event is written once.
class ReplyWriter {
 public:
  // `created`: seconds since 1970. `with_usage`: events carry "usage", null but for the last.
  // `tokens`: null where no log-probabilities are wanted; else it gives their tokens' text, and
  // outlives this.
  ReplyWriter(ReplyKind kind, std::string id, std::string model, int64_t created, bool with_usage,
              const Tokenizer* tokens = nullptr);

  std::string Whole(const std::vector<FinishedChoice>& choices, const Usage& usage) const;

  // Events, ready for the wire. FirstEvent (the role) exists for chats only: empty otherwise.
  std::string FirstEvent(size_t choice) const;
  std::string TextEvent(size_t choice, std::string_view text,
                        std::span<const GeneratedLogprobs> logprobs = {}) const;
  // A call begins, number `index` of the choice; and more of its arguments.
  std::string CallEvent(size_t choice, size_t index, std::string_view id,
                        std::string_view name) const;
  std::string ArgumentsEvent(size_t choice, size_t index, std::string_view arguments) const;
  // `called`: the answer has calls of functions.
  std::string FinishEvent(size_t choice, FinishReason reason, bool called = false) const;
  std::string UsageEvent(const Usage& usage) const;
  static std::string DoneEvent();

 private:
  std::string Event(size_t choice, std::string_view payload, std::string_view finish,
                    std::string_view logprobs = "null") const;
  std::string Logprobs(std::span<const GeneratedLogprobs> logprobs) const;

  ReplyKind kind_;
  std::string id_;
  std::string model_;
  int64_t created_;
  const Tokenizer* tokens_;
  std::string prefix_;  // of every event, up to the choices
  std::string suffix_;
};

// "stop", "tool_calls" where it stopped after calls, "length"; OpenAI has no word for the others,
// which never reach a finished answer.
std::string_view FinishName(FinishReason reason, bool called = false);

// "chatcmpl-" or the like and 24 random hexadecimal digits.
std::string NewId(std::string_view prefix);

}  // namespace quern::server
