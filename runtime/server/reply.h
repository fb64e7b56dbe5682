#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/engine/engine.h"
#include "runtime/server/api_error.h"
#include "runtime/tokenizer/tokenizer.h"

namespace quern::server {

struct Usage {
  int64_t prompt_tokens = 0;
  int64_t completion_tokens = 0;
  int64_t cached_tokens = 0;  // of prompt_tokens: found in the prefix cache
};

struct ToolCall {
  std::string id;  // "call_" and random digits
  std::string name;
  std::string arguments;   // the text of JSON, unless it was cut off
  size_t text_before = 0;  // bytes of the choice's text that stand before the call
};

struct FinishedChoice {
  std::string text;             // without its calls
  std::vector<ToolCall> calls;  // of functions
  FinishReason finish = FinishReason::kStop;
  std::vector<GeneratedLogprobs> logprobs;
};

// Writes the JSON of one answer in the shapes of one API: either Whole, or the events of a stream,
// ready for the wire and in the order in which they are asked for: Begin, for each choice
// FirstEvent, any of TextEvent, CallEvent and ArgumentsEvent, and FinishEvent; then End, or at any
// time Failed. Does no I/O. Not thread-safe.
class ReplyWriter {
 public:
  virtual ~ReplyWriter() = default;

  const std::string& id() const { return id_; }

  virtual std::string Whole(const std::vector<FinishedChoice>& choices, const Usage& usage) = 0;

  // What goes out before the first token. May be empty, as FirstEvent may.
  virtual std::string Begin() { return {}; }
  virtual std::string FirstEvent(size_t /*choice*/) { return {}; }
  virtual std::string TextEvent(size_t choice, std::string_view text,
                                std::span<const GeneratedLogprobs> logprobs) = 0;
  // A call begins, number `index` of the choice; and more of its arguments.
  virtual std::string CallEvent(size_t choice, size_t index, std::string_view id,
                                std::string_view name) = 0;
  virtual std::string ArgumentsEvent(size_t choice, size_t index, std::string_view arguments) = 0;
  // `called`: the choice has calls of functions.
  virtual std::string FinishEvent(size_t choice, FinishReason reason, bool called) = 0;
  // After the last choice's FinishEvent; `usage` is that of all.
  virtual std::string End(const Usage& usage) = 0;
  // The end of a stream that went wrong: its status is out already.
  virtual std::string Failed(const ApiError& error, const Usage& usage) = 0;

 protected:
  explicit ReplyWriter(std::string id) : id_(std::move(id)) {}

 private:
  const std::string id_;
};

// What all answers name.
struct ReplyOptions {
  std::string model;
  int64_t created = 0;  // seconds since 1970
  // Null where no log-probabilities are wanted; else it gives their tokens' text, and outlives the
  // writer.
  const Tokenizer* tokens = nullptr;
};

// OpenAI's chat.completion and text_completion, and the chunks of their streams. `with_usage`: each
// chunk carries "usage", null but for one more at the end.
std::unique_ptr<ReplyWriter> MakeChatWriter(ReplyOptions options, bool with_usage);
std::unique_ptr<ReplyWriter> MakeCompletionWriter(ReplyOptions options, bool with_usage);

// "chatcmpl-" or the like and 24 random hexadecimal digits.
std::string NewId(std::string_view prefix);

}  // namespace quern::server
