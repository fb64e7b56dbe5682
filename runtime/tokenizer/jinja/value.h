#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
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

using List = std::vector<Value>;
// In the order of insertion, as in Python. Keys are strings.
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
};
// namespace(...): the one value that a template may change from inside a loop.
struct Namespace {
  Dict attributes;
};

// A Python value as far as templates need it. Texts, lists and dicts are shared and never change,
// so that copies are cheap.
class Value {
 public:
  using Data = std::variant<Undefined, None, bool, int64_t, double,
                            std::shared_ptr<const std::string>, std::shared_ptr<const List>,
                            std::shared_ptr<const Dict>, std::shared_ptr<Namespace>, Callable>;

  Value() : data_(Undefined{}) {}
  Value(Data data) : data_(std::move(data)) {}  // NOLINT: implicit on purpose
  static Value Text(std::string text) {
    return Value(Data(std::make_shared<const std::string>(std::move(text))));
  }
  static Value Bool(bool value) { return Value(Data(value)); }
  static Value Int(int64_t value) { return Value(Data(value)); }
  static Value Of(List list) { return Value(Data(std::make_shared<const List>(std::move(list)))); }
  static Value Of(Dict dict) { return Value(Data(std::make_shared<const Dict>(std::move(dict)))); }
  static Value OfNone() { return Value(Data(None{})); }
  static Value FromJson(const nlohmann::json& json);

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
  // The number, also of a bool (which is one in Python).
  bool AsNumber(double* number) const;
  bool AsInt(int64_t* number) const;

  bool Truth() const;
  std::string ToString() const;  // str(value)
  std::string Repr() const;      // repr(value)
  // json.dumps(value, ensure_ascii=False, indent=indent); indent < 0: on one line.
  std::string ToJson(int indent) const;
  const char* TypeName() const;  // Python's

 private:
  void AppendRepr(std::string& out) const;
  void AppendJson(int indent, int depth, std::string& out) const;

  Data data_;
};

bool Equal(const Value& a, const Value& b);
const Value* FindKey(const Dict& dict, std::string_view key);
// Bytes of text and values that `value` holds, roughly: for limits.
size_t Weight(const Value& value);

}  // namespace quern::jinja
