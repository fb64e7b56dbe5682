#include "runtime/gateway/usage.h"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace quern::gateway {
namespace {

constexpr char kKey[] = "\"usage\"";
constexpr double kFading = 0.99;
constexpr double kLeastTokensPerByte = 0.001, kMostTokensPerByte = 2;
constexpr int64_t kMostTokens = 1'000'000'000;

size_t SkipSpace(std::string_view text, size_t at) {
  while (at < text.size() &&
         (text[at] == ' ' || text[at] == '\t' || text[at] == '\n' || text[at] == '\r')) {
    ++at;
  }
  return at;
}

// The object that begins at `text`'s first byte, or nothing if its end is not there.
std::string_view WholeObject(std::string_view text) {
  int depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\')
        ++i;
      else if (c == '"')
        in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{') {
      ++depth;
    } else if (c == '}' && --depth == 0) {
      return text.substr(0, i + 1);
    }
  }
  return {};
}

std::optional<int64_t> Count(const nlohmann::json& object, const char* name) {
  const auto found = object.find(name);
  if (found == object.end() || !found->is_number_unsigned()) return std::nullopt;
  const auto value = found->get<uint64_t>();
  if (value > static_cast<uint64_t>(kMostTokens)) return std::nullopt;
  return static_cast<int64_t>(value);
}

// `text` begins with an object's first byte.
std::optional<Usage> ReadUsage(std::string_view text) {
  const std::string_view whole = WholeObject(text);
  if (whole.empty()) return std::nullopt;
  const auto object = nlohmann::json::parse(whole, nullptr, /*allow_exceptions=*/false);
  if (!object.is_object()) return std::nullopt;
  for (const auto& [prompt, generation] : {std::pair{"prompt_tokens", "completion_tokens"},
                                           std::pair{"input_tokens", "output_tokens"}}) {
    if (const auto count = Count(object, prompt)) {
      return Usage{*count, Count(object, generation).value_or(0)};
    }
  }
  return std::nullopt;
}

}  // namespace

void UsageTail::Feed(std::string_view bytes) {
  if (bytes.size() >= kTailBytes) {
    tail_ = bytes.substr(bytes.size() - kTailBytes);
    return;
  }
  tail_ += bytes;
  // Not moved with every piece.
  if (tail_.size() > 2 * kTailBytes) tail_.erase(0, tail_.size() - kTailBytes);
}

// A quotation mark within a JSON string has a backslash before it, so what looks like a key of an
// object is one.
std::optional<Usage> UsageTail::Find() const {
  const std::string_view tail = tail_;
  size_t before = std::string_view::npos;
  while (true) {
    const size_t key = tail.rfind(kKey, before);
    if (key == std::string_view::npos) return std::nullopt;
    size_t at = SkipSpace(tail, key + sizeof kKey - 1);
    if (at < tail.size() && tail[at] == ':') {
      at = SkipSpace(tail, at + 1);
      if (at < tail.size() && tail[at] == '{') {
        if (auto usage = ReadUsage(tail.substr(at))) return usage;
      }
    }
    if (key == 0) return std::nullopt;
    before = key - 1;
  }
}

void TokenEstimator::Learn(size_t body_bytes, int64_t prompt_tokens) {
  if (body_bytes == 0) return;
  const auto bytes = static_cast<double>(body_bytes);
  const double tokens = std::clamp(static_cast<double>(prompt_tokens), bytes * kLeastTokensPerByte,
                                   bytes * kMostTokensPerByte);
  bytes_ = bytes_ * kFading + bytes;
  tokens_ = tokens_ * kFading + tokens;
}

}  // namespace quern::gateway
