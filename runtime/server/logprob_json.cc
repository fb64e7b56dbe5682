#include "runtime/server/logprob_json.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <nlohmann/json.hpp>
#include <set>

#include "runtime/server/json_text.h"
#include "runtime/tokenizer/utf8.h"

namespace quern::server {

namespace {

// {"token":"a","logprob":-0.5,"bytes":[97] -- and no closing brace.
void AppendChatToken(const TokenLogprob& entry, const Tokenizer& tokenizer, std::string& out) {
  const std::string bytes = tokenizer.TokenBytes(entry.token, /*render_special=*/true);
  out += fmt::format(R"({{"token":{},"logprob":{},"bytes":[)", QuotedJson(bytes), entry.logprob);
  for (size_t i = 0; i < bytes.size(); ++i) {
    fmt::format_to(std::back_inserter(out), "{}{}", i > 0 ? "," : "",
                   static_cast<unsigned char>(bytes[i]));
  }
  out += ']';
}

std::string NameOf(TokenId token, const Tokenizer& tokenizer) {
  std::string bytes = tokenizer.TokenBytes(token, /*render_special=*/true);
  if (!FindInvalidUtf8(bytes)) return bytes;
  std::string name = "bytes:";
  for (const char byte : bytes) {
    name += fmt::format("\\x{:02x}", static_cast<unsigned char>(byte));
  }
  return name;
}

// {"a":-0.5,"b":-1.5}: a map, so that of two tokens with one name the likelier stays.
std::string TopMap(const GeneratedLogprobs& generated, const Tokenizer& tokenizer) {
  std::set<std::string> names;
  std::string map = "{";
  const auto add = [&](const TokenLogprob& entry) {
    const auto [name, is_new] = names.insert(NameOf(entry.token, tokenizer));
    if (!is_new) return;
    map += fmt::format("{}{}:{}", map.size() > 1 ? "," : "", QuotedJson(*name), entry.logprob);
  };
  for (const TokenLogprob& entry : generated.top) add(entry);
  add(generated.token);
  return map + "}";
}

// "[" what `write` makes of each "]"
template <typename Write>
std::string Array(std::span<const GeneratedLogprobs> logprobs, const Write& write) {
  std::string array = "[";
  for (const GeneratedLogprobs& generated : logprobs) {
    if (array.size() > 1) array += ',';
    array += write(generated);
  }
  return array + "]";
}

}  // namespace

std::string QuotedJson(std::string_view text) { return JsonText(nlohmann::json(text)); }

int64_t QuotedBytes(std::string_view text) {
  const int64_t high_byte = FindInvalidUtf8(text) ? 3 : 1;  // what is invalid becomes U+FFFD
  int64_t bytes = 0;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x80) {
      bytes += high_byte;
    } else if (byte < 0x20) {
      bytes += std::string_view("\b\t\n\f\r").find(c) != std::string_view::npos ? 2 : 6;
    } else {
      bytes += c == '"' || c == '\\' ? 2 : 1;
    }
  }
  return bytes;
}

TokenSizes TokenSizesOf(const Tokenizer& tokenizer) {
  constexpr int64_t kAround = 80;             // names of members, the number, commas and brackets
  TokenSizes sizes{.text = 4, .logprob = 0};  // a character without a token is written, too
  for (TokenId id = 0; id < tokenizer.vocab_size(); ++id) {
    const std::string bytes = tokenizer.TokenBytes(id, /*render_special=*/true);
    const int64_t quoted = QuotedBytes(bytes);
    int64_t listed = 0;  // 9,10,195
    for (const char c : bytes) {
      const auto byte = static_cast<unsigned char>(c);
      listed += byte < 10 ? 2 : byte < 100 ? 3 : 4;
    }
    // The name of what is not valid UTF-8: "bytes:\\xc3\\xa9".
    const int64_t name = FindInvalidUtf8(bytes) ? 6 + 5 * std::ssize(bytes) : quoted;
    sizes.text = std::max(sizes.text, quoted);
    sizes.logprob = std::max(sizes.logprob, kAround + std::max(quoted + listed, name));
  }
  return sizes;
}

std::string TokenLogprobs(std::span<const GeneratedLogprobs> logprobs, const Tokenizer& tokenizer) {
  return Array(logprobs, [&](const GeneratedLogprobs& generated) {
    std::string entry;
    AppendChatToken(generated.token, tokenizer, entry);
    entry += R"(,"top_logprobs":[)";
    for (size_t i = 0; i < generated.top.size(); ++i) {
      if (i > 0) entry += ',';
      AppendChatToken(generated.top[i], tokenizer, entry);
      entry += '}';
    }
    return entry + "]}";
  });
}

std::string ChatLogprobs(std::span<const GeneratedLogprobs> logprobs, const Tokenizer& tokenizer) {
  return R"({"content":)" + TokenLogprobs(logprobs, tokenizer) + R"(,"refusal":null})";
}

std::string CompletionLogprobs(std::span<const GeneratedLogprobs> logprobs,
                               const Tokenizer& tokenizer) {
  return fmt::format(
      R"({{"tokens":{},"token_logprobs":{},"top_logprobs":{},"text_offset":{}}})",
      Array(logprobs, [&](const auto& g) { return QuotedJson(NameOf(g.token.token, tokenizer)); }),
      Array(logprobs,
            [](const auto& g) {
              return g.predicted ? fmt::format("{}", g.token.logprob) : std::string("null");
            }),
      Array(
          logprobs,
          [&](const auto& g) { return g.predicted ? TopMap(g, tokenizer) : std::string("null"); }),
      Array(logprobs, [](const auto& g) { return std::to_string(g.text_offset); }));
}

}  // namespace quern::server
