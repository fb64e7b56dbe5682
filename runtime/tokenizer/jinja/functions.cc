// The functions that a chat template's surroundings offer, and what str's format() and % do.

#include <array>
#include <ctime>

#include "runtime/tokenizer/jinja/interpreter.h"
#include "runtime/tokenizer/jinja/text.h"

namespace quern::jinja {
namespace {

constexpr int64_t kMaxRange = 100'000;  // as Jinja's sandbox has it
constexpr size_t kMaxTimeBytes = 1024;  // of a strftime() and its format
constexpr size_t kMaxSpecBytes = 4;     // between a '%' and its letter: three digits of width

// range(end), range(begin, end), range(begin, end, step)
Value Range(Interpreter& interpreter, const Arguments& arguments, int line) {
  int64_t bounds[3] = {0, 0, 1};
  const size_t count = arguments.positional.size();
  if (count < 1 || count > 3)
    Fail(ErrorCode::kInvalidArgument, line, "range() takes 1 to 3 integers");
  for (size_t i = 0; i < count; ++i) {
    if (!arguments.positional[i].AsInt(&bounds[count == 1 ? 1 : i])) {
      Fail(ErrorCode::kInvalidArgument, line, "range() takes integers");
    }
  }
  if (bounds[2] == 0) Fail(ErrorCode::kInvalidArgument, line, "range()'s step cannot be 0");
  List list;
  for (int64_t i = bounds[0]; bounds[2] > 0 ? i < bounds[1] : i > bounds[1];) {
    if (static_cast<int64_t>(list.size()) >= kMaxRange) {
      Fail(ErrorCode::kResourceExhausted, line, "range() is longer than {}", kMaxRange);
    }
    list.push_back(Value::Int(i));
    if (__builtin_add_overflow(i, bounds[2], &i)) break;
  }
  interpreter.Charge(list.size() * sizeof(Value), line);
  return Value::Of(std::move(list));
}

Dict Attributes(Interpreter& interpreter, const std::string& name, const Arguments& arguments,
                int line) {
  Dict attributes;
  if (arguments.positional.size() > 1)
    Fail(ErrorCode::kInvalidArgument, line, "{}() takes one dict, and named values", name);
  for (const Value& value : arguments.positional) {
    if (value.list()) {  // of keys with their values
      for (const Value& pair : interpreter.Iterate(value, line)) {
        const auto key = pair.list() && pair.list()->size() == 2
                             ? interpreter.Key((*pair.list())[0], line)
                             : std::nullopt;
        if (!key) Fail(ErrorCode::kInvalidArgument, line, "{}() needs a key and a value", name);
        attributes.emplace_back(*key, (*pair.list())[1]);
      }
      continue;
    }
    if (!value.dict())
      Fail(ErrorCode::kInvalidArgument, line, "{}() takes dicts and named values", name);
    interpreter.Charge(DictBytes(*value.dict()), line);
    attributes.insert(attributes.end(), value.dict()->begin(), value.dict()->end());
  }
  attributes.insert(attributes.end(), arguments.named.begin(), arguments.named.end());
  interpreter.Charge(DictBytes(attributes), line);
  return attributes;
}

// datetime.now().strftime(format), in the machine's time zone.
Value TimeNow(std::chrono::system_clock::time_point now, const Arguments& arguments, int line) {
  const Value* format = arguments.Get(0, "format");
  if (!format || !format->text())
    Fail(ErrorCode::kInvalidArgument, line, "strftime_now() needs a format");
  const std::string& text = *format->text();
  if (text.size() > kMaxTimeBytes || text.find('\0') != std::string::npos)
    Fail(ErrorCode::kUnsupported, line, "strftime_now() takes a format of at most {} bytes",
         kMaxTimeBytes);
  const std::time_t seconds = std::chrono::system_clock::to_time_t(now);
  std::tm local;
  localtime_r(&seconds, &local);
  std::array<char, 8 * kMaxTimeBytes> out;
  // With a character in front that tells an empty result from one that is too long.
  const size_t size = std::strftime(out.data(), out.size(), (' ' + text).c_str(), &local);
  if (size == 0)
    Fail(ErrorCode::kUnsupported, line, "strftime_now()'s result is longer than {} bytes",
         out.size());
  return Value::Text(std::string(out.data() + 1, size - 1));
}

}  // namespace

Value Interpreter::CallFunction(const std::string& name, const Arguments& arguments, int line) {
  if (name == "raise_exception") {
    const Value* message = arguments.Get(0, "message");
    throw TemplateError{{ErrorCode::kInvalidArgument,
                         message ? Text(*message, line) : "the chat template refused"}};
  }
  if (name == "strftime_now") return TimeNow(now_, arguments, line);
  if (name == "range") return Range(*this, arguments, line);
  Dict attributes = Attributes(*this, name, arguments, line);
  if (name == "namespace") return MakeNamespace(std::move(attributes));
  Dict once;
  for (auto& [key, value] : attributes) {
    Charge(LookupBytes(once, key), line);
    SetKey(once, key, std::move(value));
  }
  return Value::Of(std::move(once));
}

std::string Interpreter::ReplaceText(const std::string& text, const std::string& from,
                                     const std::string& to, int64_t limit, int line) {
  std::string out;
  size_t at = 0;
  for (size_t found; limit != 0; --limit) {
    if (from.empty()) {  // in front of every character, and at the end
      Charge(to.size() + 1, line);
      out += to;
      if (at >= text.size()) return out;
      std::string_view rest = std::string_view(text).substr(at);
      out += TakeCharacter(&rest);
      at = text.size() - rest.size();
      continue;
    }
    found = FindText(text, from, at);
    if (found == std::string::npos) break;
    Charge(to.size(), line);
    out.append(text, at, found - at).append(to);
    at = found + from.size();
  }
  return out.append(text, at, std::string::npos);
}

// One value as "%05.1f" and the like write it: `spec` has flags, width and precision, `kind` the
// letter at the end.
std::string Interpreter::FormatOne(const std::string& spec, char kind, const Value& value,
                                   int line) {
  int64_t whole;
  double number;
  std::array<char, 512> out;
  int size = -1;
  if (kind == 's') {
    std::string text = Text(value, line);
    if (!spec.empty()) Fail(ErrorCode::kUnsupported, line, "'%{}s' is not supported", spec);
    return text;
  }
  if (std::string_view("dixX").find(kind) != std::string_view::npos) {
    if (!value.AsInt(&whole)) {
      if (!value.AsNumber(&number) || !(number > -9e18 && number < 9e18) || kind == 'x' ||
          kind == 'X') {
        Fail(ErrorCode::kInvalidArgument, line, "'%{}' needs a number, not {}", kind,
             value.TypeName());
      }
      whole = static_cast<int64_t>(number);
    }
    const std::string format = "%" + spec + "ll" + kind;
    size = std::snprintf(out.data(), out.size(), format.c_str(), static_cast<long long>(whole));
  } else if (std::string_view("fFeEgG").find(kind) != std::string_view::npos) {
    if (!value.AsNumber(&number))
      Fail(ErrorCode::kInvalidArgument, line, "'%{}' needs a number", kind);
    size = std::snprintf(out.data(), out.size(), ("%" + spec + kind).c_str(), number);
  } else {
    Fail(ErrorCode::kUnsupported, line, "'%{}' is not supported", kind);
  }
  if (size < 0 || static_cast<size_t>(size) >= out.size())
    Fail(ErrorCode::kUnsupported, line, "'%{}{}' is too long", spec, kind);
  return {out.data(), static_cast<size_t>(size)};
}

Value Interpreter::FormatPercent(const std::string& text, const List& values, int line) {
  Charge(text.size(), line);
  std::string out;
  size_t next = 0;
  for (size_t at = 0; at < text.size(); ++at) {
    if (text[at] != '%') {
      out += text[at];
      continue;
    }
    const size_t end = std::min(text.find_first_not_of("-+ #0123456789.", at + 1), text.size());
    if (end == text.size() || end - at > kMaxSpecBytes)
      Fail(ErrorCode::kInvalidArgument, line, "a '%' is the beginning of no format");
    if (text[end] == '%') {
      out += '%';
    } else {
      if (next >= values.size())
        Fail(ErrorCode::kInvalidArgument, line, "there are more '%' than values");
      const std::string piece =
          FormatOne(text.substr(at + 1, end - at - 1), text[end], values[next++], line);
      Charge(piece.size(), line);
      out += piece;
    }
    at = end;
  }
  if (next < values.size())
    Fail(ErrorCode::kInvalidArgument, line, "there are more values than '%'");
  return Value::Text(std::move(out));
}

Value Interpreter::FormatBraces(const std::string& text, const Arguments& arguments, int line) {
  Charge(text.size(), line);
  std::string out;
  size_t next = 0;
  for (size_t at = 0; at < text.size(); ++at) {
    const char c = text[at];
    if (c != '{' && c != '}') {
      out += c;
      continue;
    }
    if (at + 1 < text.size() && text[at + 1] == c) {
      out += c;
      ++at;
      continue;
    }
    const size_t end = c == '{' ? text.find('}', at) : std::string::npos;
    if (end == std::string::npos)
      Fail(ErrorCode::kInvalidArgument, line, "format(): a brace is alone");
    const std::string name = text.substr(at + 1, end - at - 1);
    if (name.find_first_of(":!.[{") != std::string::npos)
      Fail(ErrorCode::kUnsupported, line, "format(): only {{}}, {{0}} and {{name}} are supported");
    const bool is_place = name.find_first_not_of("0123456789") == std::string::npos;
    const size_t place = name.empty()      ? next++
                         : name.size() > 4 ? SIZE_MAX
                         : is_place        ? std::stoul(name)
                                           : SIZE_MAX;
    const Value* value = arguments.Get(place, is_place ? "" : name);
    if (!value) Fail(ErrorCode::kInvalidArgument, line, "format(): there is no value '{}'", name);
    const std::string piece = Text(*value, line);
    Charge(piece.size(), line);
    out += piece;
    at = end;
  }
  return Value::Text(std::move(out));
}

}  // namespace quern::jinja
