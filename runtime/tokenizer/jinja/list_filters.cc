// Filters of lists and dicts:
// https://jinja.palletsprojects.com/en/stable/templates/#builtin-filters

#include <algorithm>

#include "runtime/tokenizer/jinja/filters.h"
#include "runtime/tokenizer/jinja/text.h"

namespace quern::jinja {
namespace {

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

std::string AttributeName(const Arguments& arguments, int line) {
  const Value* name = arguments.Get(0, "attribute");
  if (!name || !name->text())
    Fail(ErrorCode::kInvalidArgument, line, "selectattr and rejectattr need an attribute's name");
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

template <bool keeps, bool by_attribute>
Value SelectItems(Interpreter& interpreter, const Value& input, const Arguments& arguments,
                  int line) {
  constexpr size_t test_at = by_attribute ? 1 : 0;
  const std::string attribute = by_attribute ? AttributeName(arguments, line) : std::string();
  const Value* test = arguments.Get(test_at, "test");
  List kept;
  if (!input.Truth()) return Value::Of(std::move(kept), ListKind::kIterator);  // also none
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
  return Value::Of(std::move(kept), ListKind::kIterator);
}

Value MapItems(Interpreter& interpreter, const Value& input, const Arguments& arguments, int line) {
  List mapped;
  if (!input.Truth()) return Value::Of(std::move(mapped), ListKind::kIterator);  // also none
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
  return Value::Of(std::move(mapped), ListKind::kIterator);
}

// What sort, unique, min and max go by.
Value SortKey(Interpreter& interpreter, const Value& item, const Value* attribute,
              bool case_sensitive, int line) {
  Value key =
      attribute ? AttributeOf(interpreter, item, interpreter.Text(*attribute, line), line) : item;
  if (!key.text() || case_sensitive) return key;
  interpreter.Charge(key.text()->size(), line);
  return Value::Text(Lower(*key.text()));
}

// Insertion into a sorted list: stable, and an error in the order comes out before it can break an
// algorithm.
List Sorted(Interpreter& interpreter, const List& items, const Value* attribute,
            bool case_sensitive, bool reverse, int line) {
  std::vector<std::pair<Value, const Value*>> sorted;
  for (const Value& item : items) {
    Value key = SortKey(interpreter, item, attribute, case_sensitive, line);
    size_t at = sorted.size();
    while (at > 0) {
      interpreter.Step(line);
      const int order = interpreter.Compare(sorted[at - 1].first, key, line);
      if (reverse ? order >= 0 : order <= 0) break;
      --at;
    }
    sorted.insert(sorted.begin() + static_cast<long>(at), {std::move(key), &item});
  }
  List values;
  for (const auto& [key, item] : sorted) values.push_back(*item);
  return values;
}

Value Sort(Interpreter& interpreter, const Value& input, const Arguments& arguments, int line) {
  return Value::Of(Sorted(interpreter, interpreter.Iterate(input, line),
                          arguments.Get(2, "attribute"), IsTrue(arguments.Get(1, "case_sensitive")),
                          IsTrue(arguments.Get(0, "reverse")), line));
}

Value Items(Interpreter& interpreter, const Value& input, const Arguments&, int line) {
  if (input.is_undefined()) return Value::Of(List(), ListKind::kIterator);
  if (!input.dict()) {
    Fail(ErrorCode::kInvalidArgument, line, "items and dictsort need a dict, not {}",
         input.TypeName());
  }
  return Value::Of(*interpreter.CallMethod(input, "items", {}, line).list(), ListKind::kIterator);
}

Value DictSort(Interpreter& interpreter, const Value& input, const Arguments& arguments, int line) {
  const Value* by = arguments.Get(1, "by");
  const bool by_value = by && by->text() && *by->text() == "value";
  const Value position = Value::Int(by_value ? 1 : 0);
  if (input.is_undefined()) Fail(ErrorCode::kInvalidArgument, line, "dictsort needs a dict");
  return Value::Of(Sorted(interpreter, *Items(interpreter, input, {}, line).list(), &position,
                          IsTrue(arguments.Get(0, "case_sensitive")),
                          IsTrue(arguments.Get(2, "reverse")), line));
}

Value Unique(Interpreter& interpreter, const Value& input, const Arguments& arguments, int line) {
  const bool case_sensitive = IsTrue(arguments.Get(0, "case_sensitive"));
  List keys, once;
  for (const Value& item : interpreter.Iterate(input, line)) {
    Value key = SortKey(interpreter, item, arguments.Get(1, "attribute"), case_sensitive, line);
    if (std::any_of(keys.begin(), keys.end(),
                    [&](const Value& known) { return interpreter.Same(known, key, line); }))
      continue;
    keys.push_back(std::move(key));
    once.push_back(item);
  }
  return Value::Of(std::move(once), ListKind::kIterator);
}

template <bool largest>
Value Extreme(Interpreter& interpreter, const Value& input, const Arguments& arguments, int line) {
  const bool case_sensitive = IsTrue(arguments.Get(0, "case_sensitive"));
  Value found = Missing("the extreme of nothing"), found_key;
  bool is_first = true;
  for (const Value& item : interpreter.Iterate(input, line)) {
    Value key = SortKey(interpreter, item, arguments.Get(1, "attribute"), case_sensitive, line);
    const int order = is_first ? 0 : interpreter.Compare(key, found_key, line);
    if (is_first || (largest ? order > 0 : order < 0)) {
      found = item;
      found_key = std::move(key);
    }
    is_first = false;
  }
  return found;
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

Value Length(Interpreter& interpreter, const Value& input, const Arguments&, int line) {
  if (input.list_kind() == ListKind::kIterator) {
    Fail(ErrorCode::kInvalidArgument, line, "what a filter yields has no length: use | list first");
  }
  if (input.list()) return Value::Int(static_cast<int64_t>(input.list()->size()));
  if (input.dict()) return Value::Int(static_cast<int64_t>(input.dict()->size()));
  if (input.text()) return Value::Int(static_cast<int64_t>(CountCharacters(*input.text())));
  return Value::Int(static_cast<int64_t>(interpreter.Iterate(input, line).size()));
}

Value Reverse(Interpreter& interpreter, const Value& input, const Arguments&, int line) {
  if (!input.text()) {
    List items = interpreter.Iterate(input, line);
    std::reverse(items.begin(), items.end());
    return Value::Of(std::move(items), ListKind::kIterator);
  }
  std::string out(input.text()->size(), '\0');
  for (std::string_view rest = *input.text(); !rest.empty();) {
    const std::string_view character = TakeCharacter(&rest);
    std::copy(character.begin(), character.end(),
              out.begin() + static_cast<std::ptrdiff_t>(rest.size()));
  }
  return Value::Text(std::move(out));
}

Value First(Interpreter& interpreter, const Value& input, const Arguments&, int line) {
  if (std::string_view text = input.text() ? *input.text() : std::string_view(); !text.empty())
    return Value::Text(std::string(TakeCharacter(&text)));
  const List items = interpreter.Iterate(input, line);
  return items.empty() ? Missing("the first of nothing") : items.front();
}

Value Last(Interpreter& interpreter, const Value& input, const Arguments&, int line) {
  if (input.list_kind() == ListKind::kIterator) {
    Fail(ErrorCode::kInvalidArgument, line, "last needs a list, not what a filter yields");
  }
  if (input.text() && !input.text()->empty())
    return interpreter.GetItem(input, Value::Int(-1), line);
  const List items = interpreter.Iterate(input, line);
  return items.empty() ? Missing("the last of nothing") : items.back();
}

Value ToList(Interpreter& interpreter, const Value& input, const Arguments&, int line) {
  return Value::Of(interpreter.Iterate(input, line));
}

}  // namespace

const Filters& ListFilters() {
  static const Filters filters = {
      {"count", Length},
      {"dictsort", DictSort},
      {"first", First},
      {"items", Items},
      {"join", Join},
      {"last", Last},
      {"length", Length},
      {"list", ToList},
      {"map", MapItems},
      {"max", Extreme<true>},
      {"min", Extreme<false>},
      {"reject", SelectItems<false, false>},
      {"rejectattr", SelectItems<false, true>},
      {"reverse", Reverse},
      {"select", SelectItems<true, false>},
      {"selectattr", SelectItems<true, true>},
      {"sort", Sort},
      {"unique", Unique},
  };
  return filters;
}

}  // namespace quern::jinja
