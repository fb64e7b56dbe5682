#include "runtime/tokenizer/jinja/text.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <fmt/format.h>
#include <pcre2.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <iterator>
#include <memory>
#include <unordered_set>

#include "runtime/tokenizer/utf8.h"

namespace quern::jinja {
namespace {

// str.isspace(): the White_Space property and U+001C to U+001F.
bool IsPythonSpace(uint32_t c) {
  return (c >= 9 && c <= 13) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f ||
         c == 0x3000;
}

// Where str.splitlines() cuts.
bool EndsLine(uint32_t c) {
  return (c >= 10 && c <= 13) || (c >= 0x1c && c <= 0x1e) || c == 0x85 || c == 0x2028 ||
         c == 0x2029;
}

std::string Reversed(std::string_view text) { return {text.rbegin(), text.rend()}; }

char ToUpper(char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 32) : c; }
char ToLower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; }

// The last byte where it ends no character.
std::string_view LastCharacter(std::string_view text) {
  for (size_t length = 1; length <= std::min<size_t>(text.size(), 4); ++length) {
    const std::string_view end = text.substr(text.size() - length);
    if (Utf8CharBytes(end) == length) return end;
  }
  return text.substr(text.size() - 1);
}

// Tells characters that repr() shows as they are: str.isprintable(), by Unicode's categories.
class Printable {
 public:
  Printable() : data_(pcre2_match_data_create(1, nullptr)) {}
  ~Printable() { pcre2_match_data_free(data_); }
  Printable(const Printable&) = delete;
  Printable& operator=(const Printable&) = delete;

  bool Has(std::string_view character) const {
    static const pcre2_code* const code = Compile();
    return pcre2_match(code, reinterpret_cast<PCRE2_SPTR>(character.data()), character.size(), 0,
                       PCRE2_NO_UTF_CHECK, data_, nullptr) < 0;
  }

 private:
  static const pcre2_code* Compile() {
    int error = 0;
    PCRE2_SIZE at = 0;
    return pcre2_compile(reinterpret_cast<PCRE2_SPTR>("[\\p{C}\\p{Z}]"), PCRE2_ZERO_TERMINATED,
                         PCRE2_UTF | PCRE2_UCP, &error, &at, nullptr);
  }
  pcre2_match_data* data_;
};

void AppendEscaped(uint32_t code_point, std::string& out) {
  if (code_point < 0x100) {
    fmt::format_to(std::back_inserter(out), "\\x{:02x}", code_point);
  } else if (code_point < 0x10000) {
    fmt::format_to(std::back_inserter(out), "\\u{:04x}", code_point);
  } else {
    fmt::format_to(std::back_inserter(out), "\\U{:08x}", code_point);
  }
}

}  // namespace

size_t FindText(std::string_view text, std::string_view part, size_t from) {
  if (from > text.size()) return std::string_view::npos;
  const void* found = memmem(text.data() + from, text.size() - from, part.data(), part.size());
  return found ? static_cast<size_t>(static_cast<const char*>(found) - text.data())
               : std::string_view::npos;
}

size_t FindTextFromRight(std::string_view text, std::string_view part) {
  const size_t at = FindText(Reversed(text), Reversed(part));
  return at == std::string_view::npos ? at : text.size() - at - part.size();
}

std::string_view TakeCharacter(std::string_view* text) {
  const std::string_view character = text->substr(0, std::max<size_t>(Utf8CharBytes(*text), 1));
  text->remove_prefix(character.size());
  return character;
}

size_t CountCharacters(std::string_view text) {
  size_t count = 0;
  for (; !text.empty(); ++count) TakeCharacter(&text);
  return count;
}

bool IsSpaceCharacter(std::string_view character) {
  return IsPythonSpace(DecodeUtf8Char(character, std::max<size_t>(Utf8CharBytes(character), 1)));
}

std::string Strip(std::string_view text, bool left, bool right, const std::string* set) {
  std::array<bool, 256> wanted_bytes{};
  std::unordered_set<std::string_view> wanted;  // of more than one byte
  for (std::string_view rest = set ? *set : std::string_view(); !rest.empty();) {
    const std::string_view character = TakeCharacter(&rest);
    if (character.size() > 1) {
      wanted.insert(character);
    } else {
      wanted_bytes[static_cast<uint8_t>(character[0])] = true;
    }
  }
  const auto drops = [&](std::string_view character) {
    if (!set) return IsSpaceCharacter(character);
    return character.size() > 1 ? wanted.contains(character)
                                : wanted_bytes[static_cast<uint8_t>(character[0])];
  };
  while (left && !text.empty()) {
    const std::string_view first = text.substr(0, std::max<size_t>(Utf8CharBytes(text), 1));
    if (!drops(first)) break;
    text.remove_prefix(first.size());
  }
  while (right && !text.empty()) {
    const std::string_view last = LastCharacter(text);
    if (!drops(last)) break;
    text.remove_suffix(last.size());
  }
  return std::string(text);
}

void SplitSpaces(std::string_view text, int64_t limit, const TakePart& take) {
  for (int64_t parts = 0;; ++parts) {
    std::string_view rest = text;
    while (!rest.empty() && IsSpaceCharacter(TakeCharacter(&rest))) text = rest;
    if (text.empty()) return;
    if (parts == limit) return take(text);
    size_t length = 0;  // of what comes before the next space
    for (rest = text; !rest.empty() && !IsSpaceCharacter(TakeCharacter(&rest));)
      length = text.size() - rest.size();
    take(text.substr(0, length));
    text.remove_prefix(length);
  }
}

void SplitAt(std::string_view text, std::string_view separator, int64_t limit,
             const TakePart& take) {
  for (int64_t parts = 0; parts != limit; ++parts) {
    const size_t found = FindText(text, separator);
    if (found == std::string_view::npos) break;
    take(text.substr(0, found));
    text = text.substr(found + separator.size());
  }
  take(text);
}

// As from the left of what is written the other way round.
void SplitAtFromRight(std::string_view text, std::string_view separator, int64_t limit,
                      const TakePart& take) {
  size_t end = text.size();
  SplitAt(Reversed(text), Reversed(separator), limit, [&](std::string_view part) {
    take(text.substr(end - part.size(), part.size()));
    end -= std::min(end, part.size() + separator.size());
  });
}

void SplitLines(std::string_view text, const TakePart& take) {
  std::string_view rest = text;
  while (!rest.empty()) {
    const std::string_view c = TakeCharacter(&rest);
    if (!EndsLine(DecodeUtf8Char(c, c.size()))) {
      if (rest.empty()) take(text);
      continue;
    }
    take(text.substr(0, text.size() - rest.size() - c.size()));
    if (c == "\r" && rest.starts_with('\n')) rest.remove_prefix(1);
    text = rest;
  }
}

bool IsLetter(char c) { return ToLower(c) >= 'a' && ToLower(c) <= 'z'; }

std::string Upper(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), ToUpper);
  return text;
}

std::string Lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), ToLower);
  return text;
}

std::string Capitalize(std::string text) {
  text = Lower(std::move(text));
  if (!text.empty()) text[0] = ToUpper(text[0]);
  return text;
}

std::string TitleMethod(std::string text) {
  bool in_word = false;
  for (char& c : text) {
    const bool letter = IsLetter(c);
    c = in_word ? ToLower(c) : ToUpper(c);
    in_word = letter;
  }
  return text;
}

std::string TitleFilter(std::string text) {
  bool in_word = false;
  for (std::string_view rest = text; !rest.empty();) {
    const size_t at = text.size() - rest.size();
    const std::string_view c = TakeCharacter(&rest);
    text[at] = in_word ? ToLower(text[at]) : ToUpper(text[at]);
    in_word = !IsSpaceCharacter(c) && std::string_view("-({[<").find(c) == std::string_view::npos;
  }
  return text;
}

std::string EscapeHtml(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '\'':
        out += "&#39;";
        break;
      case '"':
        out += "&#34;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

// Single quotes, unless there are some inside and no double ones.
void AppendQuoted(std::string_view text, std::string& out) {
  const char quote = text.find('\'') != text.npos && text.find('"') == text.npos ? '"' : '\'';
  std::unique_ptr<Printable> printable;
  out += quote;
  while (!text.empty()) {
    const std::string_view c = TakeCharacter(&text);
    if (c.size() > 1) {
      if (!printable) printable = std::make_unique<Printable>();
      if (printable->Has(c)) {
        out += c;
      } else {
        AppendEscaped(DecodeUtf8Char(c, c.size()), out);
      }
    } else if (c == "\n") {
      out += "\\n";
    } else if (c == "\r") {
      out += "\\r";
    } else if (c == "\t") {
      out += "\\t";
    } else if (c[0] == '\\' || c[0] == quote) {
      out += '\\';
      out += c;
    } else if (static_cast<uint8_t>(c[0]) < 0x20 || c[0] == 0x7f) {
      AppendEscaped(static_cast<uint8_t>(c[0]), out);
    } else {
      out += c;
    }
  }
  out += quote;
}

}  // namespace quern::jinja
