// The methods of str, list and dict that chat templates call.

#include <algorithm>
#include <unordered_map>

#include "runtime/tokenizer/jinja/interpreter.h"
#include "runtime/tokenizer/jinja/text.h"

namespace quern::jinja {
namespace {

// A method's call: its object, and what it is given.
struct Call {
  Interpreter& interpreter;
  const Value& object;
  const Arguments& arguments;
  int line;

  const std::string& text() const { return *object.text(); }
  const std::string& NeedText(size_t index, std::string_view name) const {
    const Value* value = arguments.Get(index, name);
    if (!value || !value->text()) {
      Fail(ErrorCode::kInvalidArgument, line, "argument {} of a method must be a string",
           index + 1);
    }
    return *value->text();
  }
};

// Adds a part of a text to a list, paid for before it is made.
TakePart AppendTo(List& list, const Call& call) {
  return [&list, &call](std::string_view part) {
    call.interpreter.Charge(sizeof(Value) + sizeof(std::string) + part.size(), call.line);
    list.push_back(Value::Text(std::string(part)));
  };
}

template <bool left, bool right>
Value StripCall(const Call& call) {
  const Value* set = call.arguments.Get(0, "chars");
  if (set && !set->is_none() && !set->text()) {
    Fail(ErrorCode::kInvalidArgument, call.line, "strip() takes a string, not {}", set->TypeName());
  }
  return Value::Text(Strip(call.text(), left, right, set ? set->text() : nullptr));
}

// With one text, or any text of a tuple.
template <bool starts>
Value StartsOrEnds(const Call& call) {
  const std::string& text = call.text();
  const auto fits = [&](const Value& one) {
    call.interpreter.Step(call.line);
    if (!one.text())
      Fail(ErrorCode::kInvalidArgument, call.line, "startswith() and endswith() need a string");
    call.interpreter.Charge(std::min(text.size(), one.text()->size()), call.line);
    return starts ? text.starts_with(*one.text()) : text.ends_with(*one.text());
  };
  if (call.arguments.positional.size() > 1)
    Fail(ErrorCode::kUnsupported, call.line, "startswith() and endswith() of a part");
  const Value* part = call.arguments.Get(0, "prefix");
  if (part && part->list_kind() == ListKind::kTuple) {
    return Value::Bool(std::any_of(part->list()->begin(), part->list()->end(), fits));
  }
  return Value::Bool(fits(part ? *part : Value()));
}

template <bool from_right>
Value Split(const Call& call) {
  const Value* separator = call.arguments.Get(0, "sep");
  const Value* limit_given = call.arguments.Get(1, "maxsplit");
  int64_t limit = -1;
  if (limit_given && !limit_given->AsInt(&limit))
    Fail(ErrorCode::kInvalidArgument, call.line, "maxsplit must be an integer");
  List list;
  if (!separator || separator->is_none()) {
    if (from_right && limit >= 0)
      Fail(ErrorCode::kUnsupported, call.line, "rsplit() at spaces is not supported");
    SplitSpaces(call.text(), limit, AppendTo(list, call));
    return Value::Of(std::move(list));
  }
  if (!separator->text() || separator->text()->empty())
    Fail(ErrorCode::kInvalidArgument, call.line, "split() needs a separator");
  if (from_right) {
    call.interpreter.Charge(call.text().size(), call.line);  // a copy, while it is searched
    SplitAtFromRight(call.text(), *separator->text(), limit, AppendTo(list, call));
    std::reverse(list.begin(), list.end());
  } else {
    SplitAt(call.text(), *separator->text(), limit, AppendTo(list, call));
  }
  return Value::Of(std::move(list));
}

Value SplitLinesCall(const Call& call) {
  List list;
  SplitLines(call.text(), AppendTo(list, call));
  return Value::Of(std::move(list));
}

// The place of a part in characters; -1 if it is not there.
template <bool from_right>
int64_t Place(const Call& call) {
  if (call.arguments.positional.size() > 1)
    Fail(ErrorCode::kUnsupported, call.line, "a search from or up to a place");
  const std::string& part = call.NeedText(0, "sub");
  const size_t at = from_right ? FindTextFromRight(call.text(), part) : FindText(call.text(), part);
  if (at == std::string::npos) return -1;
  return static_cast<int64_t>(CountCharacters(std::string_view(call.text()).substr(0, at)));
}

template <bool from_right>
Value Find(const Call& call) {
  return Value::Int(Place<from_right>(call));
}

template <bool from_right>
Value Index(const Call& call) {
  const int64_t place = Place<from_right>(call);
  if (place < 0) Fail(ErrorCode::kInvalidArgument, call.line, "index(): the part is not there");
  return Value::Int(place);
}

Value Count(const Call& call) {
  const std::string& part = call.NeedText(0, "sub");
  if (part.empty()) return Value::Int(static_cast<int64_t>(CountCharacters(call.text())) + 1);
  int64_t count = 0;
  for (size_t at = FindText(call.text(), part); at != std::string::npos;
       at = FindText(call.text(), part, at + part.size()))
    ++count;
  return Value::Int(count);
}

Value RemovePrefix(const Call& call) {
  const std::string& part = call.NeedText(0, "prefix");
  return call.text().starts_with(part) ? Value::Text(call.text().substr(part.size())) : call.object;
}

Value RemoveSuffix(const Call& call) {
  const std::string& part = call.NeedText(0, "suffix");
  if (!call.text().ends_with(part)) return call.object;
  return Value::Text(call.text().substr(0, call.text().size() - part.size()));
}

Value ReplaceCall(const Call& call) {
  const Value* count = call.arguments.Get(2, "count");
  int64_t limit = -1;
  if (count && !count->AsInt(&limit))
    Fail(ErrorCode::kInvalidArgument, call.line, "replace()'s count must be an integer");
  return Value::Text(call.interpreter.ReplaceText(call.text(), call.NeedText(0, "old"),
                                                  call.NeedText(1, "new"), limit, call.line));
}

Value Join(const Call& call) {
  const Value* items = call.arguments.Get(0, "iterable");
  std::string out;
  bool first = true;
  for (const Value& item : call.interpreter.Iterate(items ? *items : Value(), call.line)) {
    if (!item.text())
      Fail(ErrorCode::kInvalidArgument, call.line, "join() takes strings, not {}", item.TypeName());
    call.interpreter.Charge(item.text()->size() + call.text().size(), call.line);
    if (!first) out += call.text();
    out += *item.text();
    first = false;
  }
  return Value::Text(std::move(out));
}

template <bool (*holds)(std::string_view)>
Value AllCharacters(const Call& call) {
  bool all = !call.text().empty();
  for (std::string_view rest = call.text(); all && !rest.empty();)
    all = holds(TakeCharacter(&rest));
  return Value::Bool(all);
}

bool IsDigitCharacter(std::string_view c) { return c[0] >= '0' && c[0] <= '9'; }
bool IsLetterCharacter(std::string_view c) { return IsLetter(c[0]); }

template <std::string (*change)(std::string)>
Value Change(const Call& call) {
  return Value::Text(change(call.text()));
}

Value FormatCall(const Call& call) {
  return call.interpreter.FormatBraces(call.text(), call.arguments, call.line);
}

using Method = Value (*)(const Call&);
using Methods = std::unordered_map<std::string_view, Method>;

const Methods& TextMethods() {
  static const Methods methods = {
      {"capitalize", Change<Capitalize>},
      {"count", Count},
      {"endswith", StartsOrEnds<false>},
      {"find", Find<false>},
      {"format", FormatCall},
      {"index", Index<false>},
      {"isalpha", AllCharacters<IsLetterCharacter>},
      {"isdigit", AllCharacters<IsDigitCharacter>},
      {"isspace", AllCharacters<IsSpaceCharacter>},
      {"join", Join},
      {"lower", Change<Lower>},
      {"lstrip", StripCall<true, false>},
      {"removeprefix", RemovePrefix},
      {"removesuffix", RemoveSuffix},
      {"replace", ReplaceCall},
      {"rfind", Find<true>},
      {"rindex", Index<true>},
      {"rsplit", Split<true>},
      {"rstrip", StripCall<false, true>},
      {"split", Split<false>},
      {"splitlines", SplitLinesCall},
      {"startswith", StartsOrEnds<true>},
      {"strip", StripCall<true, true>},
      {"title", Change<TitleMethod>},
      {"upper", Change<Upper>},
  };
  return methods;
}

Value Keys(const Call& call) { return Value::Of(call.interpreter.Iterate(call.object, call.line)); }

Value Get(const Call& call) {
  const Value* key = call.arguments.Get(0, "key");
  if (!key) Fail(ErrorCode::kInvalidArgument, call.line, "get() needs a key");
  const auto dict_key = call.interpreter.Key(*key, call.line);
  const Value* found =
      dict_key ? call.interpreter.Find(*call.object.dict(), *dict_key, call.line) : nullptr;
  if (found) return *found;
  const Value* otherwise = call.arguments.Get(1, "default");
  return otherwise ? *otherwise : Value::OfNone();
}

template <bool with_keys>
Value Values(const Call& call) {
  const Dict& dict = *call.object.dict();
  call.interpreter.Charge(DictBytes(dict) + dict.size() * 3 * sizeof(Value), call.line);
  List list;
  for (const auto& [key, value] : dict) {
    list.push_back(with_keys ? Value::Of(List{KeyValue(key), value}, ListKind::kTuple) : value);
  }
  return Value::Of(std::move(list));
}

Value Copy(const Call& call) { return call.object; }  // nothing can be changed

const Methods& DictMethods() {
  static const Methods methods = {
      {"copy", Copy},
      {"get", Get},
      {"items", Values<true>},
      {"keys", Keys},
      {"values", Values<false>},
  };
  return methods;
}

Value CountItems(const Call& call) {
  const Value* wanted = call.arguments.Get(0, "value");
  int64_t count = 0;
  for (const Value& item : *call.object.list())
    count += call.interpreter.Same(item, wanted ? *wanted : Value(), call.line);
  return Value::Int(count);
}

Value IndexOfItem(const Call& call) {
  const Value* wanted = call.arguments.Get(0, "value");
  const List& list = *call.object.list();
  for (size_t i = 0; wanted && i < list.size(); ++i) {
    if (call.interpreter.Same(list[i], *wanted, call.line))
      return Value::Int(static_cast<int64_t>(i));
  }
  Fail(ErrorCode::kInvalidArgument, call.line, "index(): the value is not in the list");
}

const Methods& ListMethods() {
  static const Methods methods = {{"copy", Copy}, {"count", CountItems}, {"index", IndexOfItem}};
  return methods;
}

Method FindMethod(const Value& object, std::string_view name) {
  const Methods* methods = object.text()   ? &TextMethods()
                           : object.dict() ? &DictMethods()
                           : object.list() ? &ListMethods()
                                           : nullptr;
  if (!methods) return nullptr;
  const auto found = methods->find(name);
  return found == methods->end() ? nullptr : found->second;
}

}  // namespace

bool Interpreter::HasMethod(const Value& object, std::string_view name) {
  return FindMethod(object, name) != nullptr;
}

// The sandbox hides them, also where the dict has a key of the name.
bool Interpreter::IsHiddenMethod(const Value& object, std::string_view name) {
  return object.dict() && (name == "clear" || name == "pop" || name == "popitem" ||
                           name == "setdefault" || name == "update");
}

Value Interpreter::CallMethod(const Value& object, const std::string& name,
                              const Arguments& arguments, int line) {
  int64_t cycle_index;
  if (name == "cycle" && object.AsInt(&cycle_index)) {  // loop.cycle
    if (arguments.positional.empty())
      Fail(ErrorCode::kInvalidArgument, line, "loop.cycle() needs arguments");
    return arguments.positional[static_cast<size_t>(cycle_index) % arguments.positional.size()];
  }
  const Method method = FindMethod(object, name);
  if (!method)
    Fail(ErrorCode::kUnsupported, line, "'{}' of {} is not supported", name, object.TypeName());
  if (object.text()) Charge(object.text()->size(), line);
  ChargeTexts(arguments, line);
  return method(Call{*this, object, arguments, line});
}

}  // namespace quern::jinja
