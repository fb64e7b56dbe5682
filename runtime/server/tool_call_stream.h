#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace quern::server {

// How a model writes a call of a function, between these marks: {"name": ..., "arguments": {...}}
// (Hermes, Nous Research 2024; Qwen's models write it too).
inline constexpr std::string_view kToolCallOpen = "<tool_call>";
inline constexpr std::string_view kToolCallClose = "</tool_call>";

// What a piece of a model's text turned out to be.
struct ToolCallEvent {
  enum class Kind {
    kContent,    // `text` for the reader
    kCall,       // the next call begins, of the function `text`
    kArguments,  // `text` is the next part of its arguments' JSON
  };
  Kind kind = Kind::kContent;
  std::string text;

  bool operator==(const ToolCallEvent&) const = default;
};

// Tells calls from content in a model's text while it comes. Arguments are passed on as they come;
// content that could be the beginning of a mark is held back until that is told. What stands
// between marks and is no call (no JSON, no function that was offered) is content, marks included.
// Blanks around calls are dropped. The events together are the same however the text is cut.
// Arguments that were cut off (by max_tokens), or that are no JSON once they have begun, are passed
// on as they are. Pure; holds some kMaxHeld bytes at most: what is not told by then is content.
class ToolCallStream {
 public:
  // `names`: of the functions that may be called. `parallel`: more than one call; without it what
  // follows the first one is dropped.
  ToolCallStream(std::vector<std::string> names, bool parallel);

  void Push(std::string_view text, std::vector<ToolCallEvent>& events);
  // The text has ended.
  void Finish(std::vector<ToolCallEvent>& events);
  size_t num_calls() const { return num_calls_; }
  size_t held_bytes() const { return held_.size(); }

 private:
  static constexpr size_t kMaxHeld = 32 * 1024;
  enum class State {
    kContent,
    kHead,       // behind the opening mark, before the arguments
    kWhole,      // a body in another order than usual: read when all of it is there
    kArguments,  // in the arguments
    kTail,       // behind them, before the closing mark
    kDone,       // nothing more is wanted
  };
  // Each takes what it can from `held_`; false: it needs more.
  bool Content(std::vector<ToolCallEvent>& events);
  bool Head(std::vector<ToolCallEvent>& events);
  bool Whole(std::vector<ToolCallEvent>& events);
  bool Arguments(std::vector<ToolCallEvent>& events);
  bool Tail();
  void Emit(std::string_view content, std::vector<ToolCallEvent>& events);
  bool TakeBody(std::string_view body, std::vector<ToolCallEvent>& events);
  void Begin(std::string name, std::vector<ToolCallEvent>& events);
  void End();
  bool Knows(std::string_view name) const;

  const std::vector<std::string> names_;
  const bool parallel_;
  State state_ = State::kContent;
  std::string held_;
  bool skip_blanks_ = false;  // of content, behind a call
  size_t num_calls_ = 0;
  int depth_ = 0;  // of the arguments' JSON
  bool in_string_ = false;
  bool escaped_ = false;
};

}  // namespace quern::server
