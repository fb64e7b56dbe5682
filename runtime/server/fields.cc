#include "runtime/server/fields.h"

#include <algorithm>
#include <cmath>
#include <iterator>

#include "runtime/server/foreign_names.h"
#include "runtime/server/json_text.h"
#include "runtime/server/number_overflow.h"
#include "runtime/tokenizer/utf8.h"

namespace quern::server {
using nlohmann::json;

namespace {

constexpr size_t kShownNameBytes = 80;  // of a name that a client chose, in an error

struct Shape {
  int depth = 0;     // deepest nesting of brackets outside strings
  size_t parts = 0;  // objects, arrays and strings
};

// Right for valid JSON; for anything else the parser finds the fault.
Shape ShapeOf(std::string_view text) {
  Shape shape;
  int depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
    } else if (c == '"') {
      in_string = true;
      ++shape.parts;
    } else if (c == '[' || c == '{') {
      shape.depth = std::max(shape.depth, ++depth);
      ++shape.parts;
    } else if (c == ']' || c == '}') {
      --depth;
    }
  }
  return shape;
}

// nlohmann's "[json.exception...] parse error at line 1, column 2: syntax error while parsing value
// - REASON; last read: '...'": the reason alone. What was last read may be as long as the body.
std::string Reason(std::string_view what) {
  const size_t dash = what.find(" - ");
  if (dash != std::string_view::npos) what.remove_prefix(dash + 3);
  return std::string(what.substr(0, what.find("; last read")).substr(0, 200));
}

[[noreturn]] void ThrowNotJson(std::string_view body, size_t byte, std::string_view reason) {
  const size_t at = std::min(byte > 0 ? byte - 1 : 0, body.size());
  const std::string_view before = body.substr(0, at);
  const auto line = 1 + std::count(before.begin(), before.end(), '\n');
  const size_t line_start =
      before.rfind('\n') == std::string_view::npos ? 0 : before.rfind('\n') + 1;
  // What some languages write for numbers that JSON has not. The sign has been read by then.
  for (const std::string_view word : {"NaN", "Infinity"}) {
    if (!body.substr(at).starts_with(word)) continue;
    ThrowApiError("", "invalid_json",
                  fmt::format("the request's body is not valid JSON: line {}, column {} (byte {}): "
                              "{} is not a finite number, and JSON has no other",
                              line, at - line_start + 1, at, word));
  }
  ThrowApiError(
      "", "invalid_json",
      fmt::format("the request's body is not valid JSON: line {}, column {} (byte {}): {}", line,
                  at - line_start + 1, at, reason));
}

// The parser stops at a number that no double holds, and does not say where.
[[noreturn]] void ThrowNotFinite(std::string_view body, std::string_view reason) {
  const auto overflow = FindNumberOverflow(body);
  if (!overflow) {
    ThrowApiError("", "invalid_json",
                  fmt::format("the request's body is not valid JSON: {}", reason));
  }
  ThrowApiError(overflow->path, "invalid_value",
                fmt::format("'{}' must be a finite number, not {}: the largest are about 1.8e308",
                            overflow->path, overflow->number));
}

}  // namespace

std::string MemberPath(const std::string& object, std::string_view name) {
  return fmt::format("{}[{}]", object, JsonText(json(name.substr(0, kShownNameBytes))));
}

bool NumberRange::Has(double number) const {
  return (above_min ? number > min : number >= min) && (below_max ? number < max : number <= max);
}

std::string NumberRange::Describe() const {
  if (!above_min && !below_max) return fmt::format("a number from {} to {}", min, max);
  return fmt::format("a number {} {} and {} {}", above_min ? "greater than" : "of at least", min,
                     below_max ? "less than" : "at most", max);
}

json ParseJsonObject(std::string_view body) {
  if (body.find_first_not_of(" \t\r\n") == std::string_view::npos) {
    ThrowApiError("", "invalid_json", "the request has no body; send a JSON object");
  }
  const Shape shape = ShapeOf(body);
  if (shape.depth > kMaxJsonDepth) {
    ThrowApiError(
        "", "invalid_json",
        fmt::format("the request's JSON is nested more than {} levels deep", kMaxJsonDepth));
  }
  if (shape.parts > kMaxJsonParts) {
    ThrowApiError("", "invalid_json",
                  fmt::format("the request's JSON has {} strings, arrays and objects; at most {} "
                              "are taken",
                              shape.parts, kMaxJsonParts));
  }
  json value;
  try {
    value = json::parse(body);
  } catch (const json::parse_error& error) {
    ThrowNotJson(body, error.byte, Reason(error.what()));
  } catch (const json::exception& error) {  // a number outside a double's range
    ThrowNotFinite(body, Reason(error.what()));
  }
  if (!value.is_object()) {
    ThrowApiError("", "invalid_type",
                  fmt::format("the request's body must be a JSON object, not {}", Shown(value)));
  }
  return value;
}

std::string Shown(const json& value) {
  const char* type = value.type_name();
  if (value.is_null()) return "null";
  if (value.is_structured()) return fmt::format("an {}", type);  // array, object
  const std::string text = JsonText(value);
  if (text.size() > 60) return fmt::format("a {} of {} bytes", type, text.size());
  return fmt::format("the {} {}", type, text);
}

void CheckLength(std::string_view text, const std::string& path, size_t min, size_t max) {
  const size_t length = Utf8Length(text);
  if (length >= min && length <= max) return;
  ThrowApiError(
      path, "invalid_value",
      fmt::format("'{}' must have from {} to {} characters, not {}", path, min, max, length));
}

Fields::Fields(const json& object, std::string path) : object_(object), path_(std::move(path)) {
  if (!object.is_object()) {
    ThrowApiError(path_, "invalid_type",
                  fmt::format("'{}' must be an object, not {}", path_, Shown(object)));
  }
}

std::string Fields::Path(const std::string& name) const {
  return path_.empty() ? name : path_ + "." + name;
}

void Fields::WrongType(const std::string& name, std::string_view wanted, const json& value) const {
  ThrowApiError(Path(name), "invalid_type",
                fmt::format("'{}' must be {}, not {}", Path(name), wanted, Shown(value)));
}

const json* Fields::Find(const std::string& name) {
  known_.insert(name);
  const auto found = object_.find(name);
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

const json& Fields::Require(const std::string& name, std::string_view what) {
  const json* value = Find(name);
  if (!value) {
    ThrowApiError(Path(name), "missing_required_parameter",
                  fmt::format("'{}' is missing; it must be {}", Path(name), what));
  }
  return *value;
}

std::optional<bool> Fields::Bool(const std::string& name) {
  const json* value = Find(name);
  if (!value) return std::nullopt;
  if (!value->is_boolean()) WrongType(name, "true or false", *value);
  return value->get<bool>();
}

std::optional<double> Fields::Number(const std::string& name, const NumberRange& range,
                                     std::string_view hint) {
  const json* value = Find(name);
  if (!value) return std::nullopt;
  if (!value->is_number()) WrongType(name, range.Describe(), *value);
  const double number = value->get<double>();
  if (!range.Has(number)) {
    ThrowApiError(Path(name), "invalid_value",
                  fmt::format("'{}' must be {}, not {}{}", Path(name), range.Describe(),
                              value->dump(), hint));
  }
  return number;
}

std::optional<int64_t> Fields::Integer(const std::string& name, int64_t min, int64_t max) {
  const json* value = Find(name);
  if (!value) return std::nullopt;
  const double number = value->is_number() ? value->get<double>() : 0;
  // What is bounded by the type alone is told where that is met.
  const std::string wanted = max >= kInt32Max && number <= static_cast<double>(max)
                                 ? fmt::format("a whole number of at least {}", min)
                                 : fmt::format("a whole number from {} to {}", min, max);
  if (!value->is_number()) WrongType(name, wanted, *value);
  const bool whole = value->is_number_integer() || number == std::floor(number);
  // Doubles are compared first: a number beyond int64 must not be converted.
  bool inside = whole && number >= static_cast<double>(min) && number <= static_cast<double>(max);
  if (inside && value->is_number_unsigned()) {
    inside = value->get<uint64_t>() <= static_cast<uint64_t>(max);
  }
  if (inside && value->is_number_float()) inside = std::abs(number) < 9.0e15;
  if (!inside) {
    ThrowApiError(Path(name), "invalid_value",
                  fmt::format("'{}' must be {}, not {}", Path(name), wanted, value->dump()));
  }
  return value->is_number_float() ? static_cast<int64_t>(number) : value->get<int64_t>();
}

std::optional<std::string> Fields::String(const std::string& name) {
  const json* value = Find(name);
  if (!value) return std::nullopt;
  if (!value->is_string()) WrongType(name, "a string", *value);
  return value->get<std::string>();
}

std::optional<std::string> Fields::String(const std::string& name, size_t min, size_t max) {
  auto value = String(name);
  if (value) CheckLength(*value, Path(name), min, max);
  return value;
}

void Fields::IgnoreStrings(std::initializer_list<const char*> names) {
  for (const char* name : names) {
    const json* value = Find(name);
    if (value && !value->is_string()) WrongType(name, "a string", *value);
  }
}

void Fields::IgnoreObject(const std::string& name) {
  const json* value = Find(name);
  if (value && !value->is_object()) WrongType(name, "an object", *value);
}

void Fields::IgnoreArray(const std::string& name) {
  const json* value = Find(name);
  if (value && !value->is_array()) WrongType(name, "an array", *value);
}

void Fields::Ignore(std::initializer_list<const char*> names) {
  for (const char* name : names) known_.insert(name);
}

void Fields::OnlyNeutral(const std::string& name, std::initializer_list<json> neutral,
                         std::string_view instead) {
  refused_.insert(name);
  const json* value = Find(name);
  if (!value) return;
  if (std::find(neutral.begin(), neutral.end(), *value) != neutral.end()) return;
  std::string allowed = "leave it out";
  if (neutral.size() > 0) allowed += fmt::format(" or send {}", neutral.begin()->dump());
  if (!instead.empty()) allowed = std::string(instead);
  ThrowApiError(
      Path(name), "unsupported_parameter",
      fmt::format("'{}' is not supported by this server with the value that was sent ({}); {}",
                  Path(name), Shown(*value), allowed));
}

void Fields::RefuseUnknown() const {
  for (const auto& [name, value] : object_.items()) {
    if (known_.count(name) > 0) continue;
    std::set<std::string> useful;
    std::set_difference(known_.begin(), known_.end(), refused_.begin(), refused_.end(),
                        std::inserter(useful, useful.end()));
    const std::string shown = name.substr(0, kShownNameBytes);
    std::string hint;
    if (const std::string* meant = MeantName(name, useful)) {
      hint = fmt::format("; did you mean '{}'?", Path(*meant));
    }
    ThrowApiError(
        Path(shown), "unknown_parameter",
        fmt::format("'{}' is not a parameter that this server knows{}", Path(shown), hint));
  }
}

}  // namespace quern::server
