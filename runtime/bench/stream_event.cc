#include "runtime/bench/stream_event.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>

namespace quern::bench {
namespace {

using nlohmann::json;

constexpr size_t kMaxMessageBytes = 300;

const json* Member(const json& object, const char* key) {
  if (!object.is_object()) return nullptr;
  const auto found = object.find(key);
  return found == object.end() ? nullptr : &*found;
}

int32_t Count(const json& object, const char* key) {
  const json* value = Member(object, key);
  if (value == nullptr || !value->is_number_integer()) return -1;
  const auto count = value->get<int64_t>();
  return count < 0 || count > std::numeric_limits<int32_t>::max() ? -1
                                                                  : static_cast<int32_t>(count);
}

std::optional<TokenUsage> UsageOf(const json& answer) {
  const json* usage = Member(answer, "usage");
  if (usage == nullptr || !usage->is_object()) return std::nullopt;
  TokenUsage counts{Count(*usage, "prompt_tokens"), Count(*usage, "completion_tokens"), -1};
  if (const json* details = Member(*usage, "prompt_tokens_details")) {
    counts.cached = Count(*details, "cached_tokens");
  }
  return counts;
}

bool HasText(const json& object, const char* key) {
  const json* text = Member(object, key);
  return text != nullptr && text->is_string() && !text->get_ref<const std::string&>().empty();
}

bool ChoiceHasText(const json& choice) {
  if (HasText(choice, "text")) return true;
  const json* delta = Member(choice, "delta");
  if (delta == nullptr) return false;
  if (HasText(*delta, "content") || HasText(*delta, "reasoning_content") ||
      HasText(*delta, "reasoning")) {
    return true;
  }
  const json* calls = Member(*delta, "tool_calls");
  return calls != nullptr && calls->is_array() && !calls->empty();
}

// {"message": ...}, or a text.
std::string MessageOf(const json& error) {
  if (error.is_string()) return error.get<std::string>();
  for (const char* key : {"message", "detail"}) {
    if (HasText(error, key)) return error[key].get<std::string>();
  }
  return error.dump(-1, ' ', false, json::error_handler_t::replace);
}

json Parse(std::string_view text) { return json::parse(text, nullptr, /*allow_exceptions=*/false); }

}  // namespace

std::string OneLine(std::string text) {
  text.resize(std::min(text.size(), kMaxMessageBytes));
  for (char& c : text) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = ' ';
  }
  return text;
}

Result<StreamEvent> ReadStreamEvent(std::string_view data) {
  StreamEvent event;
  if (data == "[DONE]") {
    event.done = true;
    return event;
  }
  const json object = Parse(data);
  if (!object.is_object()) {
    return MakeError(ErrorCode::kDataLoss, "an event is no JSON object: {}",
                     OneLine(std::string(data)));
  }
  if (const json* error = Member(object, "error"); error != nullptr && !error->is_null()) {
    event.error = OneLine(MessageOf(*error));
    if (event.error.empty()) event.error = "an error without a message";
  }
  event.usage = UsageOf(object);
  if (HasText(object, "system_fingerprint")) event.fingerprint = object["system_fingerprint"];
  const json* choices = Member(object, "choices");
  if (choices == nullptr || !choices->is_array()) return event;
  for (const json& choice : *choices) {
    event.has_text = event.has_text || ChoiceHasText(choice);
    event.finished = event.finished || HasText(choice, "finish_reason");
  }
  return event;
}

std::optional<TokenUsage> ReadUsage(std::string_view body) { return UsageOf(Parse(body)); }

std::string ReadErrorMessage(std::string_view body) {
  const json object = Parse(body);
  if (const json* error = Member(object, "error")) return OneLine(MessageOf(*error));
  if (object.is_object()) return OneLine(MessageOf(object));
  return OneLine(std::string(body));
}

}  // namespace quern::bench
