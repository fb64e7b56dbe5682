// Filters and tests: https://jinja.palletsprojects.com/en/stable/templates/#builtin-filters

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "runtime/tokenizer/jinja/interpreter.h"

namespace quern::jinja {
namespace {

char Upper(char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 32) : c; }
char Lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; }
bool IsLetter(char c) { return Lower(c) >= 'a' && Lower(c) <= 'z'; }

// Letters beyond ASCII are left as they are; no chat template changes the case of what people
// write.
std::string ChangeCase(std::string text, const std::string& how) {
  bool in_word = false;
  for (char& c : text) {
    const bool capital = how == "upper" || (how == "capitalize" && &c == text.data()) ||
                         (how == "title" && !in_word);
    in_word = IsLetter(c);
    c = capital ? Upper(c) : Lower(c);
  }
  return text;
}

// With each value's attribute by a dotted path, as map(attribute="a.b") does.
Value AttributeOf(Interpreter& interpreter, const Value& value, const std::string& path, int line) {
  Value result = value;
  interpreter.Charge(path.size(), line);
  size_t begin = 0;
  while (begin <= path.size()) {
    interpreter.Step(line);
    const size_t end = std::min(path.find('.', begin), path.size());
    const std::string part = path.substr(begin, end - begin);
    const bool is_index = !part.empty() && part.size() < 10 &&
                          part.find_first_not_of("0123456789") == std::string::npos;
    result = interpreter.GetItem(result,
                                 is_index ? Value::Int(std::stoll(part)) : Value::Text(part), line);
    begin = end + 1;
  }
  return result;
}

std::string AttributeName(const Arguments& arguments, const std::string& filter, int line) {
  const Value* name = arguments.Get(0, "attribute");
  if (!name || !name->text())
    Fail(ErrorCode::kInvalidArgument, line, "{} needs the name of an attribute", filter);
  return *name->text();
}

Arguments Rest(Interpreter& interpreter, const Arguments& arguments, size_t skip, int line) {
  interpreter.Charge(arguments.positional.size() * sizeof(Value) + DictBytes(arguments.named),
                     line);
  Arguments rest;
  for (size_t i = skip; i < arguments.positional.size(); ++i)
    rest.positional.push_back(arguments.positional[i]);
  rest.named = arguments.named;
  return rest;
}

std::string Replace(Interpreter& interpreter, const std::string& text, const Arguments& arguments,
                    int line) {
  const Value* from = arguments.Get(0, "old");
  const Value* to = arguments.Get(1, "new");
  if (!from || !to || !from->text() || !to->text() || from->text()->empty()) {
    Fail(ErrorCode::kInvalidArgument, line, "replace needs two strings, the first not empty");
  }
  int64_t limit = INT64_MAX;
  if (const Value* given = arguments.Get(2, "count"); given && !given->is_none())
    given->AsInt(&limit);
  std::string out;
  size_t at = 0;
  for (size_t found = FindText(text, *from->text()); found != std::string::npos && limit-- > 0;
       found = FindText(text, *from->text(), at)) {
    interpreter.Charge(to->text()->size(), line);
    out.append(text, at, found - at).append(*to->text());
    at = found + from->text()->size();
  }
  return out.append(text, at, std::string::npos);
}

std::string Indent(Interpreter& interpreter, const std::string& text, const Arguments& arguments,
                   int line) {
  int64_t width = 4;
  if (const Value* given = arguments.Get(0, "width")) given->AsInt(&width);
  width = std::clamp<int64_t>(width, 0, 1000);
  const Value* first = arguments.Get(1, "first");
  const Value* blank = arguments.Get(2, "blank");
  std::string out;
  size_t at = 0;
  for (bool is_first = true; at <= text.size(); is_first = false) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const bool indents = is_first ? first && first->Truth() : end > at || (blank && blank->Truth());
    interpreter.Charge(static_cast<uint64_t>(width), line);
    if (indents) out.append(static_cast<size_t>(width), ' ');
    out.append(text, at, end - at);
    if (end < text.size()) out += '\n';
    at = end + 1;
  }
  return out;
}

Value SelectItems(Interpreter& interpreter, const std::string& name, const Value& input,
                  const Arguments& arguments, int line) {
  const bool by_attribute = name.ends_with("attr");
  const bool keeps = name.starts_with("select");
  const size_t test_at = by_attribute ? 1 : 0;
  const std::string attribute = by_attribute ? AttributeName(arguments, name, line) : std::string();
  const Value* test = arguments.Get(test_at, "test");
  List kept;
  for (const Value& item : interpreter.Iterate(input, line)) {
    interpreter.Step(line);
    const Value value = by_attribute ? AttributeOf(interpreter, item, attribute, line) : item;
    const bool holds =
        test && test->text()
            ? interpreter.ApplyTest(*test->text(), value,
                                    Rest(interpreter, arguments, test_at + 1, line), line)
            : value.Truth();
    if (holds == keeps) kept.push_back(item);
  }
  return Value::Of(std::move(kept));
}

Value MapItems(Interpreter& interpreter, const Value& input, const Arguments& arguments, int line) {
  List mapped;
  const Value* filter = arguments.Get(0, "");
  const Value* attribute = arguments.Get(SIZE_MAX, "attribute");
  const Value* otherwise = arguments.Get(SIZE_MAX, "default");
  if (!attribute && !(filter && filter->text())) {
    Fail(ErrorCode::kInvalidArgument, line, "map needs a filter's name or attribute=");
  }
  const std::string path = attribute ? interpreter.Text(*attribute, line) : std::string();
  for (const Value& item : interpreter.Iterate(input, line)) {
    interpreter.Step(line);
    if (attribute) {
      Value value = AttributeOf(interpreter, item, path, line);
      if (value.is_undefined() && otherwise) value = *otherwise;
      mapped.push_back(std::move(value));
    } else {
      mapped.push_back(interpreter.ApplyFilter(*filter->text(), item,
                                               Rest(interpreter, arguments, 1, line), line));
    }
  }
  return Value::Of(std::move(mapped));
}

Value SortItems(Interpreter& interpreter, const Value& input, const Arguments& arguments,
                int line) {
  List items = interpreter.Iterate(input, line);
  const Value* reverse = arguments.Get(0, "reverse");
  const Value* attribute = arguments.Get(2, "attribute");
  const std::string path = attribute ? interpreter.Text(*attribute, line) : std::string();
  const auto key = [&](const Value& item) {
    Value value = attribute ? AttributeOf(interpreter, item, path, line) : item;
    if (!value.text()) return value;
    interpreter.Charge(value.text()->size(), line);
    return Value::Text(ChangeCase(*value.text(), "lower"));
  };
  // Insertion into a sorted list: stable, and an error in the order comes out before it can break
  // an algorithm.
  List sorted;
  for (Value& item : items) {
    const Value item_key = key(item);
    size_t at = sorted.size();
    while (at > 0) {
      interpreter.Step(line);
      const int order = interpreter.Compare(key(sorted[at - 1]), item_key, line);
      if (reverse && reverse->Truth() ? order >= 0 : order <= 0) break;
      --at;
    }
    sorted.insert(sorted.begin() + static_cast<long>(at), std::move(item));
  }
  return Value::Of(std::move(sorted));
}

Value Join(Interpreter& interpreter, const Value& input, const Arguments& arguments, int line) {
  const Value* separator = arguments.Get(0, "d");
  const Value* attribute = arguments.Get(1, "attribute");
  const std::string between = separator ? interpreter.Text(*separator, line) : std::string();
  const std::string path = attribute ? interpreter.Text(*attribute, line) : std::string();
  std::string out;
  bool first = true;
  for (const Value& item : interpreter.Iterate(input, line)) {
    interpreter.Charge(between.size(), line);
    if (!first) out += between;
    first = false;
    out += interpreter.Text(attribute ? AttributeOf(interpreter, item, path, line) : item, line);
  }
  return Value::Text(std::move(out));
}

Value Length(Interpreter& interpreter, const Value& input, int line) {
  if (input.list()) return Value::Int(static_cast<int64_t>(input.list()->size()));
  if (input.dict()) return Value::Int(static_cast<int64_t>(input.dict()->size()));
  if (input.text()) return Value::Int(static_cast<int64_t>(CountCharacters(*input.text())));
  return Value::Int(static_cast<int64_t>(interpreter.Iterate(input, line).size()));
}

Value ToNumber(const Value& input, const Arguments& arguments, bool integer, int line) {
  double number = 0;
  const Value* otherwise = arguments.Get(0, "default");
  int64_t whole;
  if (integer && input.AsInt(&whole)) return Value::Int(whole);
  if (!input.AsNumber(&number)) {
    const std::string text = input.text() ? Strip(*input.text(), true, true) : std::string();
    char* end = nullptr;
    number = std::strtod(text.c_str(), &end);
    if (text.empty() || *end != '\0') {
      return otherwise ? *otherwise : integer ? Value::Int(0) : Value(Value::Data(0.0));
    }
  }
  if (!integer) return Value(Value::Data(number));
  if (!(std::fabs(number) < 9e18)) Fail(ErrorCode::kUnsupported, line, "an integer beyond 64 bits");
  return Value::Int(static_cast<int64_t>(number));
}

}  // namespace

Value Interpreter::ApplyFilter(const std::string& name, const Value& input,
                               const Arguments& arguments, int line) {
  const Depth depth(*this, line);  // map('map', 'map', ...)
  Step(line);
  if (input.text()) Charge(input.text()->size(), line);
  if (name == "default" || name == "d") {
    const Value* otherwise = arguments.Get(0, "default_value");
    const Value* also_false = arguments.Get(1, "boolean");
    const bool missing =
        input.is_undefined() || (also_false && also_false->Truth() && !input.Truth());
    return missing ? (otherwise ? *otherwise : Value::Text("")) : input;
  }
  if (name == "trim") {
    const Value* set = arguments.Get(0, "chars");
    return Value::Text(Strip(Text(input, line), true, true, set ? set->text() : nullptr));
  }
  if (name == "upper" || name == "lower" || name == "title" || name == "capitalize") {
    return Value::Text(ChangeCase(Text(input, line), name));
  }
  if (name == "length" || name == "count") return Length(*this, input, line);
  if (name == "join") return Join(*this, input, arguments, line);
  if (name == "tojson") {
    int64_t indent = -1;
    if (const Value* given = arguments.Get(0, "indent")) given->AsInt(&indent);
    return Value::Text(Json(input, static_cast<int>(std::clamp<int64_t>(indent, -1, 16)), line));
  }
  if (name == "string") return Value::Text(Text(input, line));
  if (name == "safe") return input;
  if (name == "replace") return Value::Text(Replace(*this, Text(input, line), arguments, line));
  if (name == "indent") return Value::Text(Indent(*this, Text(input, line), arguments, line));
  if (name == "int" || name == "float") return ToNumber(input, arguments, name == "int", line);
  if (name == "map") return MapItems(*this, input, arguments, line);
  if (name == "select" || name == "reject" || name == "selectattr" || name == "rejectattr") {
    return SelectItems(*this, name, input, arguments, line);
  }
  if (name == "sort") return SortItems(*this, input, arguments, line);
  if (name == "abs") {
    int64_t whole;
    double number = 0;
    if (input.AsInt(&whole) && whole != INT64_MIN) return Value::Int(whole < 0 ? -whole : whole);
    if (input.AsNumber(&number)) return Value(Value::Data(std::fabs(number)));
    Fail(ErrorCode::kInvalidArgument, line, "abs needs a number, not {}", input.TypeName());
  }
  if (name == "items" || name == "dictsort") {
    if (input.is_undefined()) return Value::Of(List());
    if (!input.dict())
      Fail(ErrorCode::kInvalidArgument, line, "{} needs a dict, not {}", name, input.TypeName());
    Value items = CallMethod(input, "items", {}, line);
    if (name == "items") return items;
    Arguments by_key;
    by_key.named.emplace_back("attribute", Value::Text("0"));
    return SortItems(*this, items, by_key, line);
  }
  if (name == "reverse" && input.text()) {
    std::string out(input.text()->size(), '\0');
    for (std::string_view rest = *input.text(); !rest.empty();) {
      const std::string_view character = TakeCharacter(&rest);
      std::copy(character.begin(), character.end(),
                out.begin() + static_cast<std::ptrdiff_t>(rest.size()));
    }
    return Value::Text(std::move(out));
  }
  if (name == "first" || name == "last" || name == "list" || name == "reverse" ||
      name == "unique") {
    List items = Iterate(input, line);
    if (name == "first") return items.empty() ? Value() : items.front();
    if (name == "last") return items.empty() ? Value() : items.back();
    if (name == "reverse") std::reverse(items.begin(), items.end());
    if (name == "unique") {
      List once;
      for (const Value& item : items) {
        if (std::none_of(once.begin(), once.end(),
                         [&](const Value& known) { return Same(known, item, line); })) {
          once.push_back(item);
        }
      }
      items = std::move(once);
    }
    return Value::Of(std::move(items));
  }
  Fail(ErrorCode::kUnsupported, line, "the filter '{}' is not supported", name);
}

bool Interpreter::ApplyTest(const std::string& name, const Value& input, const Arguments& arguments,
                            int line) {
  Step(line);
  const bool is_bool = input.As<bool>() != nullptr;
  const bool is_int = input.As<int64_t>() != nullptr;
  const bool is_float = input.As<double>() != nullptr;
  if (name == "defined") return !input.is_undefined();
  if (name == "undefined") return input.is_undefined();
  if (name == "none") return input.is_none();
  if (name == "string") return input.text() != nullptr;
  if (name == "boolean") return is_bool;
  if (name == "integer") return is_int;
  if (name == "float") return is_float;
  if (name == "number") return is_bool || is_int || is_float;
  if (name == "true") return is_bool && input.Truth();
  if (name == "false") return is_bool && !input.Truth();
  if (name == "mapping") return input.dict() != nullptr;
  if (name == "sequence")
    return input.list() || input.text() || input.dict() || input.is_undefined();
  if (name == "iterable")
    return input.list() || input.text() || input.dict() || input.is_undefined();
  if (name == "callable") return input.As<Callable>() != nullptr;
  if (name == "lower" || name == "upper") {
    const std::string text = Text(input, line);
    return std::any_of(text.begin(), text.end(), IsLetter) && ChangeCase(text, name) == text;
  }
  int64_t number;
  if ((name == "odd" || name == "even") && input.AsInt(&number))
    return (number % 2 != 0) == (name == "odd");
  const Value* other = arguments.Get(0, "other");
  if (other) {
    int64_t divisor;
    if (name == "divisibleby" && input.AsInt(&number) && other->AsInt(&divisor) && divisor != 0) {
      return divisor == -1 || number % divisor == 0;
    }
    if (name == "in") return Contains(*other, input, line);
    if (name == "equalto" || name == "eq" || name == "==" || name == "sameas")
      return Same(input, *other, line);
    if (name == "ne" || name == "!=") return !Same(input, *other, line);
    if (name == "gt" || name == "greaterthan" || name == ">")
      return Compare(input, *other, line) > 0;
    if (name == "ge" || name == ">=") return Compare(input, *other, line) >= 0;
    if (name == "lt" || name == "lessthan" || name == "<") return Compare(input, *other, line) < 0;
    if (name == "le" || name == "<=") return Compare(input, *other, line) <= 0;
  }
  Fail(ErrorCode::kUnsupported, line, "the test '{}' of {} is not supported", name,
       input.TypeName());
}

}  // namespace quern::jinja
