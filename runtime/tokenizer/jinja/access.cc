// What the interpreter does with values: items, attributes, order, membership.

#include <algorithm>

#include "runtime/tokenizer/jinja/interpreter.h"
#include "runtime/tokenizer/jinja/text.h"

namespace quern::jinja {

int Interpreter::Compare(const Value& a, const Value& b, int line) {
  int64_t ia, ib;
  if (a.AsInt(&ia) && b.AsInt(&ib)) return ia < ib ? -1 : ia > ib;
  double da, db;
  if (a.AsNumber(&da) && b.AsNumber(&db)) return da < db ? -1 : da > db;
  if (a.text() && b.text()) {
    Charge(std::min(a.text()->size(), b.text()->size()), line);
    const int order = a.text()->compare(*b.text());
    return order < 0 ? -1 : order > 0;
  }
  if (a.list() && b.list() && a.list_kind() == b.list_kind()) {
    for (size_t i = 0; i < std::min(a.list()->size(), b.list()->size()); ++i) {
      Step(line);
      const Value &left = (*a.list())[i], &right = (*b.list())[i];
      if (!Same(left, right, line)) return Compare(left, right, line);
    }
    return a.list()->size() < b.list()->size() ? -1 : a.list()->size() > b.list()->size();
  }
  Fail(ErrorCode::kInvalidArgument, line, "{} and {} have no order", a.TypeName(), b.TypeName());
}

bool Interpreter::Contains(const Value& container, const Value& item, int line) {
  if (container.text()) {
    if (!item.text()) {
      Fail(ErrorCode::kInvalidArgument, line, "'in' a string needs a string on its left, not {}",
           item.TypeName());
    }
    Charge(container.text()->size() + item.text()->size(), line);
    return FindText(*container.text(), *item.text()) != std::string::npos;
  }
  if (container.dict()) {
    const auto key = Key(item, line);
    return key && Find(*container.dict(), *key, line);
  }
  const List* list = container.list();
  const List items = list ? List{} : Iterate(container, line);
  for (const Value& one : list ? *list : items) {
    if (Same(one, item, line)) return true;
  }
  return false;
}

List Interpreter::Iterate(const Value& value, int line) {
  if (value.list()) {
    Charge(value.list()->size() * sizeof(Value), line);
    return *value.list();
  }
  if (value.is_undefined()) return {};
  List items;
  if (value.dict()) {
    Charge(DictBytes(*value.dict()), line);
    for (const auto& [key, item] : *value.dict()) items.push_back(KeyValue(key));
    return items;
  }
  if (value.text()) {
    Charge(CountCharacters(*value.text()) * (sizeof(Value) + sizeof(std::string)), line);
    for (std::string_view rest = *value.text(); !rest.empty();)
      items.push_back(Value::Text(std::string(TakeCharacter(&rest))));
    return items;
  }
  Fail(ErrorCode::kInvalidArgument, line, "a value of type {} cannot be gone through",
       value.TypeName());
}

Value Interpreter::GetAttribute(const Value& object, const std::string& name, int line) {
  if (const auto* undefined = object.As<Undefined>()) {
    Fail(ErrorCode::kInvalidArgument, line, "'{}' is undefined, so it has no '{}'", undefined->name,
         name);
  }
  if (const auto* space = object.As<std::shared_ptr<Namespace>>()) {
    const Value* value = Find((*space)->attributes, name, line);
    return value ? *value : Missing(name);
  }
  if (IsHiddenMethod(object, name)) return Missing(name);
  // Python's dict['from_keys'] is a generic type, which makes what dict makes; templates call it.
  const auto* callable = object.As<Callable>();
  if (callable && !callable->macro && !callable->object && callable->name == "dict") return object;
  if (HasMethod(object, name)) {
    return Value(Value::Data(Callable{.name = name, .object = std::make_shared<Value>(object)}));
  }
  if (object.dict()) {
    if (const Value* value = Find(*object.dict(), name, line)) return *value;
  }
  return Missing(name);
}

// Found by going through the text, which is what is charged.
Value Interpreter::CharacterAt(std::string_view text, int64_t index, int line) {
  int64_t at = index;
  if (index < 0) {
    Charge(text.size(), line);
    at += static_cast<int64_t>(CountCharacters(text));
  }
  std::string_view rest = text;
  for (int64_t i = 0; i < at && !rest.empty(); ++i) TakeCharacter(&rest);
  Charge(text.size() - rest.size(), line);
  if (at < 0 || rest.empty()) return Missing(fmt::format("item {}", index));
  return Value::Text(std::string(TakeCharacter(&rest)));
}

Value Interpreter::GetItem(const Value& object, const Value& key, int line) {
  if (const auto* undefined = object.As<Undefined>()) {
    Fail(ErrorCode::kInvalidArgument, line, "'{}' is undefined, so it has no items",
         undefined->name);
  }
  int64_t index;
  const List* list = object.list();
  if (object.list_kind() == ListKind::kIterator) return Missing(Text(key, line));
  if (key.AsInt(&index) && object.text()) return CharacterAt(*object.text(), index, line);
  if (key.AsInt(&index) && list) {
    const auto size = static_cast<int64_t>(list->size());
    const int64_t at = index < 0 ? index + size : index;
    if (at < 0 || at >= size) return Missing(fmt::format("item {}", index));
    return (*list)[static_cast<size_t>(at)];
  }
  if (key.text()) {
    Charge(key.text()->size(), line);
    if (object.dict()) {
      if (const Value* value = Find(*object.dict(), *key.text(), line)) return *value;
    }
    return GetAttribute(object, *key.text(), line);
  }
  if (const auto dict_key = DictKey(key); dict_key && object.dict()) {
    if (const Value* value = Find(*object.dict(), *dict_key, line)) return *value;
  }
  return Missing(Text(key, line));
}

}  // namespace quern::jinja
