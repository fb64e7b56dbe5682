// Source: https://jinja.palletsprojects.com/en/stable/templates/#whitespace-control

#include "runtime/tokenizer/jinja/lexer.h"

#include <algorithm>

#include "runtime/tokenizer/jinja/text.h"
#include "runtime/tokenizer/jinja/value.h"
#include "runtime/tokenizer/utf8.h"

namespace quern::jinja {
namespace {

constexpr size_t kMaxNameBytes = 256;

bool IsSpace(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsNameStart(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }

class Lexer {
 public:
  explicit Lexer(std::string source) : source_(std::move(source)) {}

  std::vector<Token> Run() {
    while (at_ < source_.size()) {
      const size_t begin = FindDelimiter(at_);
      if (begin == std::string::npos) {
        AddText(source_.substr(at_));
        at_ = source_.size();
        break;
      }
      const char kind = source_[begin + 1];
      const char sign = begin + 2 < source_.size() ? source_[begin + 2] : '\0';
      std::string text = source_.substr(at_, begin - at_);
      const int lines = static_cast<int>(std::count(text.begin(), text.end(), '\n'));
      if (sign == '-') {
        text = Strip(text, false, true);
      } else if (sign != '+' && kind != '{') {
        StripLineStart(text);
      }
      AddText(text, lines);
      at_ = begin + 2 + (sign == '-' || sign == '+' ? 1 : 0);
      if (kind == '#') {
        SkipComment();
      } else if (kind == '%' && ReadRaw()) {
        continue;
      } else {
        Add(kind == '{' ? Token::Kind::kOutputBegin : Token::Kind::kBlockBegin, "");
        ReadExpression(kind == '{' ? '}' : '%');
      }
    }
    Add(Token::Kind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  size_t FindDelimiter(size_t from) const {
    for (size_t i = source_.find('{', from); i != std::string::npos; i = source_.find('{', i + 1)) {
      const char next = i + 1 < source_.size() ? source_[i + 1] : '\0';
      if (next == '{' || next == '%' || next == '#') return i;
    }
    return std::string::npos;
  }

  // lstrip_blocks: blanks between the start of the line and a block are dropped.
  void StripLineStart(std::string& text) const {
    const size_t newline = text.rfind('\n');
    if (newline == std::string::npos && !line_starting_) return;
    const size_t start = newline == std::string::npos ? 0 : newline + 1;
    if (Strip(std::string_view(text).substr(start), true, false).empty()) text.resize(start);
  }

  void Add(Token::Kind kind, std::string text) {
    tokens_.push_back({kind, std::move(text), line_});
  }
  void AddText(const std::string& text) {
    AddText(text, static_cast<int>(std::count(text.begin(), text.end(), '\n')));
  }
  void AddText(const std::string& text, int lines) {
    if (!text.empty()) Add(Token::Kind::kText, text);
    line_ += lines;
  }

  // Behind a closing delimiter: "-" drops all white space, otherwise trim_blocks drops one newline.
  void AfterEnd(char sign, bool trims_newline) {
    line_starting_ = false;
    if (sign == '-') {
      for (std::string_view rest = std::string_view(source_).substr(at_); !rest.empty();) {
        const std::string_view c = TakeCharacter(&rest);
        if (!IsSpaceCharacter(c)) break;
        line_starting_ = c == "\n";
        line_ += c == "\n";
        at_ += c.size();
      }
    } else if (sign != '+' && trims_newline && at_ < source_.size() && source_[at_] == '\n') {
      ++at_;
      ++line_;
      line_starting_ = true;
    }
  }

  void SkipComment() {
    const size_t end = source_.find("#}", at_);
    if (end == std::string::npos)
      Fail(ErrorCode::kInvalidArgument, line_, "a comment {{# is not closed by #}}");
    line_ += static_cast<int>(std::count(source_.begin() + static_cast<long>(at_),
                                         source_.begin() + static_cast<long>(end), '\n'));
    const char sign = end > at_ ? source_[end - 1] : '\0';
    at_ = end + 2;
    AfterEnd(sign, true);
  }

  // A tag without expressions, from behind its opening to its end: `name`, blanks, and a closing
  // delimiter, whose sign is given back. False: it is another tag.
  bool TakeTag(std::string_view name, char& sign) {
    size_t at = at_;
    const auto skip = [&] {
      while (at < source_.size() && IsSpace(source_[at])) ++at;
    };
    skip();
    if (source_.compare(at, name.size(), name) != 0) return false;
    at += name.size();
    skip();
    sign = at < source_.size() && (source_[at] == '-' || source_[at] == '+') ? source_[at] : '\0';
    if (sign != '\0') ++at;
    if (source_.compare(at, 2, "%}") != 0) return false;
    line_ += static_cast<int>(std::count(source_.begin() + static_cast<std::ptrdiff_t>(at_),
                                         source_.begin() + static_cast<std::ptrdiff_t>(at), '\n'));
    at_ = at + 2;
    return true;
  }

  // {% raw %} up to {% endraw %}: text as it is.
  bool ReadRaw() {
    char sign;
    if (!TakeTag("raw", sign)) return false;
    AfterEnd(sign, false);
    const int line = line_;
    const size_t begin = at_;
    for (size_t end = source_.find("{%", at_); end != std::string::npos;
         end = source_.find("{%", end + 2)) {
      const char before = end + 2 < source_.size() ? source_[end + 2] : '\0';
      const bool is_signed = before == '-' || before == '+';
      at_ = end + (is_signed ? 3 : 2);
      if (!TakeTag("endraw", sign)) continue;
      std::string text = source_.substr(begin, end - begin);
      const int lines = static_cast<int>(std::count(text.begin(), text.end(), '\n'));
      if (before == '-') {
        text = Strip(text, false, true);
      } else if (before != '+') {
        StripLineStart(text);
      }
      AddText(text, lines);
      AfterEnd(sign, true);
      return true;
    }
    Fail(ErrorCode::kInvalidArgument, line, "{{% raw %}} is not closed by {{% endraw %}}");
  }

  void ReadExpression(char closing) {
    int depth = 0;  // of brackets: "}}" closes a dict inside them
    while (true) {
      while (at_ < source_.size() && IsSpace(source_[at_])) line_ += source_[at_++] == '\n';
      if (at_ >= source_.size()) {
        Fail(ErrorCode::kInvalidArgument, line_, "the template ends inside a tag: {}}} is missing",
             closing);
      }
      const char c = source_[at_];
      const bool signed_end = (c == '-' || c == '+') && at_ + 2 < source_.size() &&
                              source_[at_ + 1] == closing && source_[at_ + 2] == '}';
      const bool plain_end = c == closing && at_ + 1 < source_.size() && source_[at_ + 1] == '}';
      if (depth == 0 && (signed_end || plain_end)) {
        Add(closing == '}' ? Token::Kind::kOutputEnd : Token::Kind::kBlockEnd, "");
        at_ += signed_end ? 3 : 2;
        AfterEnd(signed_end ? c : '\0', closing == '%');
        return;
      }
      if (c == '\'' || c == '"') {
        ReadString(c);
      } else if (IsDigit(c)) {
        ReadNumber();
      } else if (IsNameStart(c)) {
        const size_t begin = at_;
        while (at_ < source_.size() && (IsNameStart(source_[at_]) || IsDigit(source_[at_]))) ++at_;
        // Names are copied and hashed at every use, which counts as one step.
        if (at_ - begin > kMaxNameBytes) {
          Fail(ErrorCode::kUnsupported, line_, "a name of {} bytes: at most {} are supported",
               at_ - begin, kMaxNameBytes);
        }
        Add(Token::Kind::kName, source_.substr(begin, at_ - begin));
      } else {
        ReadOperator(depth);
      }
    }
  }

  void ReadOperator(int& depth) {
    for (const std::string_view two : {"==", "!=", "<=", ">=", "//", "**"}) {
      if (source_.compare(at_, 2, two) == 0) {
        Add(Token::Kind::kOperator, std::string(two));
        at_ += 2;
        return;
      }
    }
    const char c = source_[at_];
    if (std::string_view("+-*/%~<>=()[]{},.:|").find(c) == std::string_view::npos) {
      Fail(ErrorCode::kInvalidArgument, line_,
           "the character '{}' (0x{:02x}) is no part of an expression",
           c >= ' ' && c < 0x7f ? c : '?', static_cast<uint8_t>(c));
    }
    if (c == '(' || c == '[' || c == '{') ++depth;
    if ((c == ')' || c == ']' || c == '}') && depth > 0) --depth;
    Add(Token::Kind::kOperator, std::string(1, c));
    ++at_;
  }

  void ReadNumber() {
    const size_t begin = at_;
    const auto digits = [&] {
      while (at_ < source_.size() && (IsDigit(source_[at_]) || source_[at_] == '_')) ++at_;
    };
    digits();
    bool is_float = false;
    if (at_ + 1 < source_.size() && source_[at_] == '.' && IsDigit(source_[at_ + 1])) {
      is_float = true;
      ++at_;
      digits();
    }
    if (at_ < source_.size() && (source_[at_] | 0x20) == 'e') {
      size_t exponent = at_ + 1;
      if (exponent < source_.size() && (source_[exponent] == '+' || source_[exponent] == '-'))
        ++exponent;
      if (exponent < source_.size() && IsDigit(source_[exponent])) {
        is_float = true;
        at_ = exponent;
        digits();
      }
    }
    std::string text = source_.substr(begin, at_ - begin);
    std::erase(text, '_');
    if (text.size() > 18)
      Fail(ErrorCode::kUnsupported, line_, "the number {} is too long", text.substr(0, 40));
    Add(is_float ? Token::Kind::kFloat : Token::Kind::kInt, std::move(text));
  }

  void ReadString(char quote) {
    const int line = line_;
    std::string text;
    for (++at_; at_ < source_.size() && source_[at_] != quote; ++at_) {
      const char c = source_[at_];
      line_ += c == '\n';
      if (c != '\\' || at_ + 1 >= source_.size()) {
        text += c;
        continue;
      }
      ReadEscape(source_[++at_], text);
    }
    if (at_ >= source_.size())
      Fail(ErrorCode::kInvalidArgument, line, "a string is not closed by {}", quote);
    ++at_;
    tokens_.push_back({Token::Kind::kString, std::move(text), line});
  }

  void ReadEscape(char c, std::string& text) {
    switch (c) {
      case 'n':
        text += '\n';
        return;
      case 't':
        text += '\t';
        return;
      case 'r':
        text += '\r';
        return;
      case 'b':
        text += '\b';
        return;
      case 'f':
        text += '\f';
        return;
      case '\\':
      case '\'':
      case '"':
        text += c;
        return;
      case '\n':
        ++line_;
        return;  // a continued line
      case 'x':
        return ReadCodePoint(2, text);
      case 'u':
        return ReadCodePoint(4, text);
      default:
        text += '\\';
        text += c;
    }
  }

  void ReadCodePoint(size_t digits, std::string& text) {
    uint32_t code = 0;
    for (size_t i = 0; i < digits; ++i) {
      const char c = at_ + 1 < source_.size() ? source_[at_ + 1] : '\0';
      const char* hex = "0123456789abcdef";
      const char* found =
          c ? std::find(hex, hex + 16, static_cast<char>(c | (c >= 'A' ? 0x20 : 0))) : hex + 16;
      if (found == hex + 16)
        Fail(ErrorCode::kInvalidArgument, line_, "a \\x or \\u needs {} hex digits", digits);
      code = code << 4 | static_cast<uint32_t>(found - hex);
      ++at_;
    }
    AppendUtf8(code >= 0xd800 && code <= 0xdfff ? 0xfffd : code, text);
  }

  std::string source_;
  size_t at_ = 0;
  int line_ = 1;
  bool line_starting_ = true;
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> Tokenize(std::string_view source) {
  std::string text;
  text.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {  // newlines become \n
    if (source[i] == '\r') {
      text += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      text += source[i];
    }
  }
  if (text.ends_with('\n')) text.pop_back();
  return Lexer(std::move(text)).Run();
}

}  // namespace quern::jinja
