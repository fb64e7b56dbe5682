#include "runtime/tokenizer/utf8.h"

#include <algorithm>
#include <cstring>

namespace quern {
namespace {

constexpr std::string_view kReplacement = "\xef\xbf\xbd";

struct LeadByte {
  size_t length;      // bytes of the character; 0 if the byte starts none
  uint8_t low, high;  // the range of the second byte
};

// Table 3-7 of the Unicode standard, "Well-Formed UTF-8 Byte Sequences".
LeadByte Classify(uint8_t byte) {
  if (byte < 0x80) return {1, 0, 0};
  if (byte < 0xc2) return {0, 0, 0};
  if (byte < 0xe0) return {2, 0x80, 0xbf};
  if (byte == 0xe0) return {3, 0xa0, 0xbf};
  if (byte == 0xed) return {3, 0x80, 0x9f};
  if (byte < 0xf0) return {3, 0x80, 0xbf};
  if (byte == 0xf0) return {4, 0x90, 0xbf};
  if (byte < 0xf4) return {4, 0x80, 0xbf};
  if (byte == 0xf4) return {4, 0x80, 0x8f};
  return {0, 0, 0};
}

struct Prefix {
  size_t bytes;   // that fit together, at least 1
  bool complete;  // they are a whole character
  bool open;      // they are the beginning of one, and the text ends
};

Prefix Scan(std::string_view text) {
  const LeadByte lead = Classify(static_cast<uint8_t>(text[0]));
  if (lead.length == 0) return {1, false, false};
  for (size_t i = 1; i < lead.length; ++i) {
    if (i == text.size()) return {i, false, true};
    const auto byte = static_cast<uint8_t>(text[i]);
    const uint8_t low = i == 1 ? lead.low : 0x80;
    const uint8_t high = i == 1 ? lead.high : 0xbf;
    if (byte < low || byte > high) return {i, false, false};
  }
  return {lead.length, true, false};
}

// How many bytes at the front are ASCII, eight at a time.
size_t AsciiRun(std::string_view text) {
  size_t i = 0;
  while (i + 8 <= text.size()) {
    uint64_t word;
    std::memcpy(&word, text.data() + i, 8);
    if (word & 0x8080808080808080u) break;
    i += 8;
  }
  return i;
}

}  // namespace

size_t Utf8CharBytes(std::string_view text) {
  const Prefix prefix = Scan(text);
  return prefix.complete ? prefix.bytes : 0;
}

std::optional<size_t> FindInvalidUtf8(std::string_view text) {
  size_t at = 0;
  while (at < text.size()) {
    at += AsciiRun(text.substr(at));
    if (at == text.size()) break;
    const size_t bytes = Utf8CharBytes(text.substr(at));
    if (bytes == 0) return at;
    at += bytes;
  }
  return std::nullopt;
}

size_t Utf8Length(std::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  }));
}

uint32_t DecodeUtf8Char(std::string_view text, size_t bytes) {
  const auto byte = [&](size_t i) { return static_cast<uint32_t>(static_cast<uint8_t>(text[i])); };
  switch (bytes) {
    case 1:
      return byte(0);
    case 2:
      return (byte(0) & 0x1f) << 6 | (byte(1) & 0x3f);
    case 3:
      return (byte(0) & 0x0f) << 12 | (byte(1) & 0x3f) << 6 | (byte(2) & 0x3f);
    default:
      return (byte(0) & 0x07) << 18 | (byte(1) & 0x3f) << 12 | (byte(2) & 0x3f) << 6 |
             (byte(3) & 0x3f);
  }
}

void AppendUtf8(uint32_t code_point, std::string& out) {
  const auto push = [&](uint32_t byte) { out.push_back(static_cast<char>(byte)); };
  if (code_point < 0x80) {
    push(code_point);
  } else if (code_point < 0x800) {
    push(0xc0 | code_point >> 6);
    push(0x80 | (code_point & 0x3f));
  } else if (code_point < 0x10000) {
    push(0xe0 | code_point >> 12);
    push(0x80 | (code_point >> 6 & 0x3f));
    push(0x80 | (code_point & 0x3f));
  } else {
    push(0xf0 | code_point >> 18);
    push(0x80 | (code_point >> 12 & 0x3f));
    push(0x80 | (code_point >> 6 & 0x3f));
    push(0x80 | (code_point & 0x3f));
  }
}

size_t AppendReplacingInvalid(std::string_view bytes, bool final, std::string& out) {
  size_t at = 0;
  while (at < bytes.size()) {
    const std::string_view rest = bytes.substr(at);
    if (const size_t run = AsciiRun(rest); run > 0) {
      out.append(rest.substr(0, run));
      at += run;
      continue;
    }
    const Prefix prefix = Scan(rest);
    if (prefix.open && !final) return at;
    out.append(prefix.complete ? rest.substr(0, prefix.bytes) : kReplacement);
    at += prefix.bytes;
  }
  return at;
}

}  // namespace quern
