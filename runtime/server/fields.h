#pragma once

#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/server/api_error.h"

namespace quern::server {

// How deep a request's JSON may be nested. OpenAI's API needs less than ten levels.
constexpr int kMaxJsonDepth = 64;
// How many strings (names of members too), arrays and objects it may have. Each takes some hundred
// bytes of memory once parsed, however few it had in the body.
constexpr size_t kMaxJsonParts = 100'000;
// The most that a parameter may be which is kept in 32 bits.
constexpr int64_t kInt32Max = std::numeric_limits<int32_t>::max();

// A request's body as a JSON object. Throws ApiException: not JSON (line, column and byte), invalid
// UTF-8, nested too deeply or of too many parts (checked before parsing, without recursion), not an
// object.
nlohmann::json ParseJsonObject(std::string_view body);

// A JSON value as it may stand in an error message: its type, and the value if it is short.
std::string Shown(const nlohmann::json& value);

// Throws invalid_value about `path` unless `text`, which is well-formed UTF-8, has so many
// characters (code points, as JSON Schema counts).
void CheckLength(std::string_view text, const std::string& path, size_t min, size_t max);

// The place of a member whose name the client chose: `logit_bias["cat"]`. Long names are cut.
std::string MemberPath(const std::string& object, std::string_view name);

// The numbers that a parameter may be.
struct NumberRange {
  double min = 0;
  double max = 1;
  bool above_min = false;  // not `min` itself
  bool below_max = false;  // not `max` itself

  bool Has(double number) const;  // NaN is in none
  std::string Describe() const;   // "a number greater than 0 and at most 1"
};

// Reads the members of one JSON object, each with its type and range, and in the end names those
// that nobody asked for. A member that is null counts as absent. All throw ApiException, whose
// `param` is the member's path. `object` outlives this.
class Fields {
 public:
  // `path`: of the object, "" for the request itself, else for example "messages[2]".
  Fields(const nlohmann::json& object, std::string path);

  const nlohmann::json* Find(const std::string& name);
  // Whether it is there, which is not to ask for it.
  bool Has(const std::string& name) const { return object_.contains(name); }
  const nlohmann::json& Require(const std::string& name, std::string_view what);
  std::optional<bool> Bool(const std::string& name);
  // `hint`: what to add where it is out of its range, with the mark before it.
  std::optional<double> Number(const std::string& name, const NumberRange& range,
                               std::string_view hint = {});
  // Whole numbers, also such as 5.0.
  std::optional<int64_t> Integer(const std::string& name, int64_t min, int64_t max);
  std::optional<std::string> String(const std::string& name);
  // One of so many characters (code points).
  std::optional<std::string> String(const std::string& name, size_t min, size_t max);

  // These change nothing; what is no string, object or array there is a mistake all the same.
  void IgnoreStrings(std::initializer_list<const char*> names);
  void IgnoreObject(const std::string& name);
  void IgnoreArray(const std::string& name);
  // The same of members that may have any value.
  void Ignore(std::initializer_list<const char*> names);
  // The member would change the answer in a way that is not built: only `neutral` values (those
  // that mean "leave it") are taken. `instead`: what the client can do, may be empty.
  void OnlyNeutral(const std::string& name, std::initializer_list<nlohmann::json> neutral,
                   std::string_view instead = {});
  // Throws if the object has a member that was not asked for; suggests the likeliest name, but none
  // of those that are refused.
  void RefuseUnknown() const;

  // The members that were asked for.
  const std::set<std::string>& known() const { return known_; }

  std::string Path(const std::string& name) const;
  [[noreturn]] void WrongType(const std::string& name, std::string_view wanted,
                              const nlohmann::json& value) const;

 private:
  const nlohmann::json& object_;
  const std::string path_;
  std::set<std::string> known_;
  std::set<std::string> refused_;  // of these, the ones of OnlyNeutral
};

// Reads a body with `read(Fields&, body)`, whose ApiException becomes the error.
template <typename T>
ApiResult<T> ParseBody(std::string_view body, T (*read)(Fields&, std::string_view),
                       std::set<std::string>* known) {
  try {
    const nlohmann::json object = ParseJsonObject(body);
    Fields fields(object, "");
    T request = read(fields, body);
    if (known) known->insert(fields.known().begin(), fields.known().end());
    return request;
  } catch (ApiException& exception) {
    return std::move(exception.error);
  }
}

}  // namespace quern::server
