#include "runtime/server/tool_call_stream.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "runtime/constraints/constraint_spec.h"
#include "runtime/server/json_text.h"
#include "runtime/server/tools.h"

namespace quern::server {
using nlohmann::ordered_json;
using EventKind = ToolCallEvent::Kind;

namespace {

// Deeper JSON is content: what copies and writes it recurses.
constexpr size_t kMaxCallDepth = 200;

// Where the end of `text` begins that could grow into `mark`, with the blanks before it if
// `blanks`.
size_t HoldFrom(std::string_view text, std::string_view mark, bool blanks) {
  size_t at = text.size();
  for (size_t length = std::min(mark.size() - 1, text.size()); length > 0; --length) {
    if (text.ends_with(mark.substr(0, length))) {
      at = text.size() - length;
      break;
    }
  }
  while (blanks && at > 0 && kJsonBlanks.find(text[at - 1]) != std::string_view::npos) --at;
  return at;
}

// Reads {"name": "...", "arguments": { up to that brace.
class HeadReader {
 public:
  enum class Found { kAll, kPart, kOther };

  explicit HeadReader(std::string_view text) : text_(text) {}

  Found Read(std::string& name, size_t& arguments) {
    for (const std::string_view word : {"{", "\"name\"", ":", "\""}) {
      if (const Found found = Word(word); found != Found::kAll) return found;
    }
    const size_t end = text_.find_first_of("\"\\", at_);
    if (end == std::string_view::npos) return Found::kPart;
    if (text_[end] == '\\') return Found::kOther;
    name = text_.substr(at_, end - at_);
    at_ = end + 1;
    for (const std::string_view word : {",", "\"arguments\"", ":", "{"}) {
      if (const Found found = Word(word); found != Found::kAll) return found;
    }
    arguments = at_ - 1;
    return Found::kAll;
  }

 private:
  Found Word(std::string_view word) {
    at_ = std::min(text_.find_first_not_of(kJsonBlanks, at_), text_.size());
    const std::string_view rest = text_.substr(at_, word.size());
    if (rest == word) {
      at_ += word.size();
      return Found::kAll;
    }
    return word.starts_with(rest) ? Found::kPart : Found::kOther;
  }

  const std::string_view text_;
  size_t at_ = 0;
};

}  // namespace

ToolCallStream::ToolCallStream(std::vector<std::string> names, bool parallel)
    : names_(std::move(names)), parallel_(parallel) {}

void ToolCallStream::Push(std::string_view text, std::vector<ToolCallEvent>& events) {
  if (state_ == State::kDone) return;
  held_ += text;
  bool more = true;
  while (more && !held_.empty()) {
    switch (state_) {
      case State::kContent:
        more = Content(events);
        break;
      case State::kHead:
        more = Head(events);
        break;
      case State::kWhole:
        more = Whole(events);
        break;
      case State::kArguments:
        more = Arguments(events);
        break;
      case State::kTail:
        more = Tail();
        break;
      case State::kDone:
        held_.clear();
        break;
    }
  }
}

void ToolCallStream::Finish(std::vector<ToolCallEvent>& events) {
  const State state = std::exchange(state_, State::kDone);
  std::string held = std::exchange(held_, {});
  if (state == State::kContent) {
    Emit(held, events);
  } else if (state == State::kHead || state == State::kWhole) {
    // The model may have left the closing mark out.
    if (!TakeBody(held, events)) Emit(std::string(kToolCallOpen) + held, events);
  }
}

bool ToolCallStream::Content(std::vector<ToolCallEvent>& events) {
  const size_t open = held_.find(kToolCallOpen);
  if (open != std::string::npos) {
    const size_t last = held_.find_last_not_of(kJsonBlanks, open == 0 ? 0 : open - 1);
    const bool blank = open == 0 || last == std::string::npos;
    Emit(std::string_view(held_).substr(0, blank ? 0 : last + 1), events);
    held_.erase(0, open + kToolCallOpen.size());
    state_ = State::kHead;
    return true;
  }
  const size_t hold = HoldFrom(held_, kToolCallOpen, /*blanks=*/held_.size() <= kMaxHeld);
  Emit(std::string_view(held_).substr(0, hold), events);
  held_.erase(0, hold);
  return false;
}

bool ToolCallStream::Head(std::vector<ToolCallEvent>& events) {
  std::string name;
  size_t arguments = 0;
  switch (HeadReader(held_).Read(name, arguments)) {
    case HeadReader::Found::kPart:
      if (held_.size() <= kMaxHeld) return false;
      state_ = State::kWhole;
      return true;
    case HeadReader::Found::kOther:
      state_ = State::kWhole;
      return true;
    case HeadReader::Found::kAll:
      break;
  }
  if (!Knows(name) || arguments > kMaxHeld) {
    state_ = State::kWhole;
    return true;
  }
  Begin(std::move(name), events);
  held_.erase(0, arguments);
  depth_ = 0;
  in_string_ = escaped_ = false;
  state_ = State::kArguments;
  return true;
}

bool ToolCallStream::Whole(std::vector<ToolCallEvent>& events) {
  const size_t close = held_.find(kToolCallClose);
  const size_t open = held_.find(kToolCallOpen);
  const size_t end = close == std::string::npos ? held_.size() : close + kToolCallClose.size();
  if (open < close || end > kMaxHeld) {
    // The mark was no beginning of a call: another one comes, or none.
    state_ = State::kContent;
    Emit(kToolCallOpen, events);
    return true;
  }
  if (close == std::string::npos) return false;
  const std::string body = held_.substr(0, close);
  held_.erase(0, end);
  if (TakeBody(body, events)) {
    End();
  } else {
    state_ = State::kContent;
    Emit(std::string(kToolCallOpen) + body + std::string(kToolCallClose), events);
  }
  return true;
}

bool ToolCallStream::Arguments(std::vector<ToolCallEvent>& events) {
  size_t end = 0;
  bool over = false;
  for (; end < held_.size() && !over; ++end) {
    const char c = held_[end];
    if (in_string_) {
      if (!escaped_ && c == '"') in_string_ = false;
      escaped_ = !escaped_ && c == '\\';
    } else if (c == '"') {
      in_string_ = true;
    } else if (c == '{' || c == '[') {
      ++depth_;
    } else if (c == '}' || c == ']') {
      over = --depth_ == 0;
    } else if (c == '<') {
      over = true;  // no JSON has it here: the closing mark came too soon
      break;
    }
  }
  if (end > 0) events.push_back({EventKind::kArguments, held_.substr(0, end)});
  held_.erase(0, end);
  if (over) state_ = State::kTail;
  return over;
}

bool ToolCallStream::Tail() {
  held_.erase(0, std::min(held_.find_first_not_of(" \t\r\n}"), held_.size()));
  if (held_.size() < kToolCallClose.size() && kToolCallClose.starts_with(held_)) return false;
  if (held_.starts_with(kToolCallClose)) held_.erase(0, kToolCallClose.size());
  End();  // also where it forgot to close
  return true;
}

void ToolCallStream::Emit(std::string_view content, std::vector<ToolCallEvent>& events) {
  if (skip_blanks_) {
    content.remove_prefix(std::min(content.find_first_not_of(kJsonBlanks), content.size()));
  }
  if (content.empty()) return;
  skip_blanks_ = false;
  events.push_back({EventKind::kContent, std::string(content)});
}

// A whole body in whatever order; "parameters" is what Llama's models say for "arguments".
bool ToolCallStream::TakeBody(std::string_view body, std::vector<ToolCallEvent>& events) {
  if (JsonDepth(body) > kMaxCallDepth) return false;
  const ordered_json call = ParseInOrder(body, kMaxToolMembers);
  if (!call.is_object() || !call.contains("name") || !call["name"].is_string()) return false;
  auto name = call["name"].get<std::string>();
  const char* member = call.contains("arguments") ? "arguments" : "parameters";
  const ordered_json arguments = call.value(member, ordered_json::object());
  if (!Knows(name) || !arguments.is_object()) return false;
  Begin(std::move(name), events);
  events.push_back({EventKind::kArguments, JsonText(arguments)});
  return true;
}

void ToolCallStream::Begin(std::string name, std::vector<ToolCallEvent>& events) {
  ++num_calls_;
  events.push_back({EventKind::kCall, std::move(name)});
}

void ToolCallStream::End() {
  skip_blanks_ = true;
  state_ = parallel_ ? State::kContent : State::kDone;
}

bool ToolCallStream::Knows(std::string_view name) const {
  return std::find(names_.begin(), names_.end(), name) != names_.end();
}

}  // namespace quern::server
