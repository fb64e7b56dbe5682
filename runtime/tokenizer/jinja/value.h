#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "runtime/base/result.h"

namespace quern::jinja {

// What parsing and rendering throw inside this folder; ChatTemplate turns it into the Error it
// carries.
struct TemplateError {
  Error error;
};

template <typename... Args>
[[noreturn]] void Fail(ErrorCode code, int line, fmt::format_string<Args...> format,
                       Args&&... args) {
  throw TemplateError{{code, fmt::format("chat template, line {}: {}", line,
                                         fmt::format(format, std::forward<Args>(args)...))}};
}

struct Statement;
class Value;

// Pays for going through a value, which can be far larger than what was paid for making it: its
// parts may be shared. Called for every value met, with the bytes that are written or compared
// there; throws TemplateError when it is too much.
class Meter {
 public:
  virtual ~Meter() = default;
  virtual void Pay(size_t bytes) const = 0;
};

using List = std::vector<Value>;
// In the order of insertion, as in Python. Keys are strings, or integers as DictKey() writes them.
using Dict = std::vector<std::pair<std::string, Value>>;

struct Undefined {
  std::string name;  // for messages
};
struct None {};
// A macro, a method with its object, or a function of the template's surroundings.
struct Callable {
  std::string name;
  const Statement* macro = nullptr;
  std::shared_ptr<Value> object;
  // Of a macro: the scope it was defined in, and which of those that had this place.
  size_t scope = 0;
  uint64_t scope_id = 0;
};
// namespace(...): the one value that a template may change from inside a loop. It may come to hold
// itself: the interpreter keeps all of them and empties them in the end.
struct Namespace {
  Dict attributes;
};

// How json.dumps() writes; `indent` null: all on one line.
struct JsonStyle {
  bool ascii = false;
  bool sort_keys = false;
  const std::string* indent = nullptr;  // of one level
  std::string_view item_separator = ", ";
  std::string_view key_separator = ": ";
};

// What a List is to Python.
enum class ListKind : uint8_t {
  kList,
  kTuple,
  kIterator,  // what a filter such as map yields: always true, without a length
};

// A Python value as far as templates need it. Texts, lists and dicts are shared and never change,
// so that copies are cheap. Lists, dicts and bound methods nest at most kMaxDepth deep (making one
// throws), so that whatever goes through a value may recurse.
class Value {
 public:
  static constexpr int kMaxDepth = 100;

  using Data = std::variant<Undefined, None, bool, int64_t, double,
                            std::shared_ptr<const std::string>, std::shared_ptr<const List>,
                            std::shared_ptr<const Dict>, std::shared_ptr<Namespace>, Callable>;

  Value() : data_(Undefined{}) {}
  Value(Data data) : data_(std::move(data)) { SetDepth(); }  // NOLINT: implicit on purpose
  static Value Text(std::string text) {
    return Value(Data(std::make_shared<const std::string>(std::move(text))));
  }
  // A text that the filter `safe` has marked: what is added to it is escaped for HTML.
  static Value Markup(std::string text) {
    Value value = Text(std::move(text));
    value.is_markup_ = true;
    return value;
  }
  static Value Bool(bool value) { return Value(Data(value)); }
  static Value Int(int64_t value) { return Value(Data(value)); }
  static Value Of(List list, ListKind kind = ListKind::kList) {
    Value value(Data(std::make_shared<const List>(std::move(list))));
    value.list_kind_ = kind;
    return value;
  }
  static Value Of(Dict dict) { return Value(Data(std::make_shared<const Dict>(std::move(dict)))); }
  static Value OfNone() { return Value(Data(None{})); }
  static Value FromJson(const nlohmann::ordered_json& json);

  template <typename T>
  const T* As() const {
    return std::get_if<T>(&data_);
  }
  const std::string* text() const {
    const auto* text = As<std::shared_ptr<const std::string>>();
    return text ? text->get() : nullptr;
  }
  const List* list() const {
    const auto* list = As<std::shared_ptr<const List>>();
    return list ? list->get() : nullptr;
  }
  const Dict* dict() const {
    const auto* dict = As<std::shared_ptr<const Dict>>();
    return dict ? dict->get() : nullptr;
  }
  bool is_undefined() const { return As<Undefined>() != nullptr; }
  bool is_none() const { return As<None>() != nullptr; }
  ListKind list_kind() const { return list_kind_; }
  bool is_markup() const { return is_markup_; }
  // The number, also of a bool (which is one in Python).
  bool AsNumber(double* number) const;
  bool AsInt(int64_t* number) const;

  bool Truth() const;
  std::string ToString(const Meter& meter) const;  // str(value)
  std::string ToJson(const JsonStyle& style, const Meter& meter) const;
  const char* TypeName() const;  // Python's

 private:
  void SetDepth();
  void AppendRepr(const Meter& meter, std::string& out) const;
  void AppendJson(const JsonStyle& style, size_t depth, const Meter& meter, std::string& out) const;

  Data data_;
  int depth_ = 0;  // 1 for a list of texts
  ListKind list_kind_ = ListKind::kList;
  bool is_markup_ = false;
};

bool Equal(const Value& a, const Value& b, const Meter& meter);
// How a Dict has a key: a string as it is, an integer behind a byte that no text begins with;
// nullopt: it cannot have one of this type.
std::optional<std::string> DictKey(const Value& key);
Value KeyValue(const std::string& key);  // the way back
const Value* FindKey(const Dict& dict, std::string_view key);
// What FindKey and SetKey go through at most: the keys of the same size are compared byte by byte.
size_t LookupBytes(const Dict& dict, std::string_view key);
// Takes the place of what the key has, or comes last.
void SetKey(Dict& dict, std::string_view key, Value value);
// Bytes that a copy of the dict itself takes, its keys included, its values' own not.
size_t DictBytes(const Dict& dict);

}  // namespace quern::jinja
