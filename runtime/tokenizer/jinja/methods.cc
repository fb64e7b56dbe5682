// The methods of str and dict, and the functions, that chat templates call.

#include <algorithm>
#include <unordered_set>

#include "runtime/tokenizer/jinja/interpreter.h"
#include "runtime/tokenizer/utf8.h"

namespace quern::jinja {
namespace {

constexpr int64_t kMaxRange = 100'000;  // as Jinja's sandbox has it

constexpr std::string_view kTextMethods[] = {
    "strip", "lstrip", "rstrip",     "split",      "rsplit",  "startswith",   "endswith",
    "upper", "lower",  "title",      "capitalize", "replace", "find",         "rfind",
    "count", "join",   "splitlines", "isdigit",    "isspace", "removeprefix", "removesuffix"};
constexpr std::string_view kDictMethods[] = {"items", "keys", "values", "get"};

// str.isspace(): the White_Space property and U+001C to U+001F.
bool IsPythonSpace(uint32_t c) {
  return (c >= 9 && c <= 13) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f ||
         c == 0x3000;
}

bool IsSpaceCharacter(std::string_view character) {
  return IsPythonSpace(DecodeUtf8Char(character, std::max<size_t>(Utf8CharBytes(character), 1)));
}

const std::string& NeedText(const Arguments& arguments, size_t index, std::string_view name,
                            std::string_view method, int line) {
  const Value* value = arguments.Get(index, name);
  if (!value || !value->text()) {
    Fail(ErrorCode::kInvalidArgument, line, "{}() needs a string as argument {}", method,
         index + 1);
  }
  return *value->text();
}

// With one text, or any text of a list.
bool StartsOrEnds(Interpreter& interpreter, const std::string& text, const Value* part, bool starts,
                  int line) {
  const auto fits = [&](const Value& one) {
    interpreter.Step(line);
    if (!one.text())
      Fail(ErrorCode::kInvalidArgument, line, "startswith and endswith need a string");
    interpreter.Charge(std::min(text.size(), one.text()->size()), line);
    return starts ? text.starts_with(*one.text()) : text.ends_with(*one.text());
  };
  if (part && part->list()) return std::any_of(part->list()->begin(), part->list()->end(), fits);
  return fits(part ? *part : Value());
}

std::vector<std::string> SplitSpaces(std::string_view text, int64_t limit) {
  std::vector<std::string> parts;
  while (true) {
    std::string_view rest = text;
    while (!rest.empty() && IsSpaceCharacter(TakeCharacter(&rest))) text = rest;
    if (text.empty()) return parts;
    if (limit >= 0 && static_cast<int64_t>(parts.size()) == limit) {
      parts.push_back(Strip(text, false, true));
      return parts;
    }
    size_t length = 0;  // of what comes before the next space
    for (rest = text; !rest.empty() && !IsSpaceCharacter(TakeCharacter(&rest));)
      length = text.size() - rest.size();
    parts.emplace_back(text.substr(0, length));
    text.remove_prefix(length);
  }
}

std::string Reversed(std::string_view text) { return {text.rbegin(), text.rend()}; }

std::vector<std::string> SplitAt(std::string_view text, std::string_view separator, int64_t limit) {
  std::vector<std::string> parts;
  while (limit < 0 || static_cast<int64_t>(parts.size()) < limit) {
    const size_t found = FindText(text, separator);
    if (found == std::string_view::npos) break;
    parts.emplace_back(text.substr(0, found));
    text = text.substr(found + separator.size());
  }
  parts.emplace_back(text);
  return parts;
}

// From the right, as from the left of what is written the other way round.
std::vector<std::string> SplitAtFromRight(std::string_view text, std::string_view separator,
                                          int64_t limit) {
  std::vector<std::string> parts = SplitAt(Reversed(text), Reversed(separator), limit);
  std::reverse(parts.begin(), parts.end());
  for (std::string& part : parts) std::reverse(part.begin(), part.end());
  return parts;
}

std::vector<std::string> SplitLines(std::string_view text) {
  std::vector<std::string> lines;
  while (!text.empty()) {
    const size_t end = text.find_first_of("\r\n");
    lines.emplace_back(text.substr(0, end));
    if (end == std::string_view::npos) break;
    text.remove_prefix(end + (text.substr(end).starts_with("\r\n") ? 2 : 1));
  }
  return lines;
}

// The last byte where it ends no character.
std::string_view LastCharacter(std::string_view text) {
  for (size_t length = 1; length <= std::min<size_t>(text.size(), 4); ++length) {
    const std::string_view end = text.substr(text.size() - length);
    if (Utf8CharBytes(end) == length) return end;
  }
  return text.substr(text.size() - 1);
}

Value ListOf(std::vector<std::string> texts) {
  List list;
  for (std::string& text : texts) list.push_back(Value::Text(std::move(text)));
  return Value::Of(std::move(list));
}

}  // namespace

std::string Strip(std::string_view text, bool left, bool right, const std::string* set) {
  std::unordered_set<std::string_view> wanted;
  if (set) {
    for (std::string_view rest = *set; !rest.empty();) wanted.insert(TakeCharacter(&rest));
  }
  const auto drops = [&](std::string_view character) {
    return set ? wanted.contains(character) : IsSpaceCharacter(character);
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

bool Interpreter::HasMethod(const Value& object, std::string_view name) {
  if (object.text())
    return std::find(std::begin(kTextMethods), std::end(kTextMethods), name) !=
           std::end(kTextMethods);
  if (object.dict())
    return std::find(std::begin(kDictMethods), std::end(kDictMethods), name) !=
           std::end(kDictMethods);
  return false;
}

Value Interpreter::CallMethod(const Value& object, const std::string& name,
                              const Arguments& arguments, int line) {
  if (object.dict()) {
    if (name == "keys") return Value::Of(Iterate(object, line));
    if (name == "get") {
      const std::string& key = NeedText(arguments, 0, "key", name, line);
      if (const Value* value = Find(*object.dict(), key, line)) return *value;
      const Value* otherwise = arguments.Get(1, "default");
      return otherwise ? *otherwise : Value::OfNone();
    }
    List list;
    Charge(DictBytes(*object.dict()) + object.dict()->size() * 3 * sizeof(Value), line);
    for (const auto& [key, value] : *object.dict()) {
      list.push_back(name == "values" ? value : Value::Of(List{Value::Text(key), value}));
    }
    return Value::Of(std::move(list));
  }
  int64_t cycle_index;
  if (name == "cycle" && object.AsInt(&cycle_index)) {
    if (arguments.positional.empty())
      Fail(ErrorCode::kInvalidArgument, line, "loop.cycle() needs arguments");
    return arguments.positional[static_cast<size_t>(cycle_index) % arguments.positional.size()];
  }
  if (!object.text())
    Fail(ErrorCode::kUnsupported, line, "'{}' of {} is not supported", name, object.TypeName());

  const std::string& text = *object.text();
  Charge(text.size(), line);
  if (name == "strip" || name == "lstrip" || name == "rstrip") {
    const Value* set = arguments.Get(0, "chars");
    return Value::Text(
        Strip(text, name != "rstrip", name != "lstrip", set ? set->text() : nullptr));
  }
  if (name == "startswith")
    return Value::Bool(StartsOrEnds(*this, text, arguments.Get(0, "prefix"), true, line));
  if (name == "endswith")
    return Value::Bool(StartsOrEnds(*this, text, arguments.Get(0, "suffix"), false, line));
  if (name == "split" || name == "rsplit") {
    Charge(text.size() * (sizeof(Value) + sizeof(std::string)), line);  // at most
    const Value* separator = arguments.Get(0, "sep");
    const Value* limit_given = arguments.Get(1, "maxsplit");
    int64_t limit = -1;
    if (limit_given && !limit_given->AsInt(&limit))
      Fail(ErrorCode::kInvalidArgument, line, "maxsplit must be an integer");
    if (!separator || separator->is_none()) {
      if (name == "rsplit" && limit >= 0)
        Fail(ErrorCode::kUnsupported, line, "rsplit at spaces is not supported");
      return ListOf(SplitSpaces(text, limit));
    }
    if (!separator->text() || separator->text()->empty())
      Fail(ErrorCode::kInvalidArgument, line, "split() needs a separator");
    return ListOf(name == "split" ? SplitAt(text, *separator->text(), limit)
                                  : SplitAtFromRight(text, *separator->text(), limit));
  }
  if (name == "splitlines") {
    Charge(text.size() * (sizeof(Value) + sizeof(std::string)), line);
    return ListOf(SplitLines(text));
  }
  if (name == "find" || name == "rfind" || name == "count") {
    const std::string& part = NeedText(arguments, 0, "sub", name, line);
    if (name == "count") {
      if (part.empty()) return Value::Int(static_cast<int64_t>(CountCharacters(text)) + 1);
      int64_t count = 0;
      for (size_t at = FindText(text, part); at != std::string::npos;
           at = FindText(text, part, at + part.size()))
        ++count;
      return Value::Int(count);
    }
    size_t at =
        FindText(name == "find" ? text : Reversed(text), name == "find" ? part : Reversed(part));
    if (at == std::string::npos) return Value::Int(-1);
    if (name == "rfind") at = text.size() - at - part.size();
    return Value::Int(static_cast<int64_t>(CountCharacters(std::string_view(text).substr(0, at))));
  }
  if (name == "removeprefix" || name == "removesuffix") {
    const std::string& part = NeedText(arguments, 0, "prefix", name, line);
    const bool prefix = name == "removeprefix";
    if (prefix ? !text.starts_with(part) : !text.ends_with(part)) return object;
    return Value::Text(prefix ? text.substr(part.size())
                              : text.substr(0, text.size() - part.size()));
  }
  if (name == "join") {
    Arguments separator;
    separator.positional.push_back(object);
    const Value* items = arguments.Get(0, "iterable");
    if (!items) Fail(ErrorCode::kInvalidArgument, line, "join() needs a list");
    return ApplyFilter("join", *items, separator, line);
  }
  if (name == "isdigit" || name == "isspace") {
    bool all = !text.empty();
    for (std::string_view rest = text; all && !rest.empty();) {
      const std::string_view c = TakeCharacter(&rest);
      all = name == "isdigit" ? c[0] >= '0' && c[0] <= '9' : IsSpaceCharacter(c);
    }
    return Value::Bool(all);
  }
  return ApplyFilter(name, object, arguments, line);  // upper, lower, title, capitalize, replace
}

Value Interpreter::CallFunction(const std::string& name, const Arguments& arguments, int line) {
  if (name == "raise_exception") {
    const Value* message = arguments.Get(0, "message");
    throw TemplateError{{ErrorCode::kInvalidArgument,
                         message ? Text(*message, line) : "the chat template refused"}};
  }
  if (name == "namespace" || name == "dict") {
    Dict attributes;
    for (const Value& value : arguments.positional) {
      if (!value.dict())
        Fail(ErrorCode::kInvalidArgument, line, "{}() takes dicts and named values", name);
      Charge(DictBytes(*value.dict()), line);
      attributes.insert(attributes.end(), value.dict()->begin(), value.dict()->end());
    }
    attributes.insert(attributes.end(), arguments.named.begin(), arguments.named.end());
    Charge(DictBytes(attributes), line);
    return name == "dict" ? Value::Of(std::move(attributes)) : MakeNamespace(std::move(attributes));
  }
  // range(end), range(begin, end), range(begin, end, step)
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
  Charge(list.size() * sizeof(Value), line);
  return Value::Of(std::move(list));
}

}  // namespace quern::jinja
