#include "runtime/server/number_overflow.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "runtime/server/fields.h"

namespace quern::server {
namespace {

using nlohmann::json;

constexpr int kOverflow = 406;  // nlohmann's id of the error
constexpr size_t kShownBytes = 40;

bool IsIdentifier(std::string_view name) {
  return !name.empty() && std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
  });
}

// Follows the parser to where it stops.
class OverflowFinder : public nlohmann::json_sax<json> {
 public:
  std::optional<NumberOverflow> found;

  bool null() override { return Next(); }
  bool boolean(bool) override { return Next(); }
  bool number_integer(number_integer_t) override { return Next(); }
  bool number_unsigned(number_unsigned_t) override { return Next(); }
  bool number_float(number_float_t, const string_t&) override { return Next(); }
  bool string(string_t&) override { return Next(); }
  bool binary(binary_t&) override { return Next(); }
  bool start_object(size_t) override { return Enter(/*array=*/false); }
  bool start_array(size_t) override { return Enter(/*array=*/true); }
  bool end_object() override { return Leave(); }
  bool end_array() override { return Leave(); }
  bool key(string_t& name) override {
    levels_.back().name = name.substr(0, kShownBytes);
    return true;
  }
  bool parse_error(size_t, const std::string& token, const json::exception& error) override {
    if (error.id != kOverflow || levels_.empty()) return false;
    found = {Path(),
             token.size() > kShownBytes ? fmt::format("one of {} digits", token.size()) : token};
    return false;
  }

 private:
  // An object or array that is open, and which of its values is being read.
  struct Level {
    bool array;
    size_t index = 0;
    std::string name;
  };

  bool Next() {
    if (!levels_.empty()) ++levels_.back().index;
    return true;
  }
  bool Enter(bool array) {
    levels_.push_back({.array = array});
    return true;
  }
  bool Leave() {
    levels_.pop_back();
    return Next();
  }
  std::string Path() const {
    std::string path;
    for (const Level& level : levels_) {
      if (level.array) {
        path += fmt::format("[{}]", level.index);
      } else if (IsIdentifier(level.name)) {
        path += (path.empty() ? "" : ".") + level.name;
      } else {
        path = MemberPath(path, level.name);
      }
    }
    return path;
  }

  std::vector<Level> levels_;
};

}  // namespace

std::optional<NumberOverflow> FindNumberOverflow(std::string_view text) {
  OverflowFinder finder;
  json::sax_parse(text, &finder);
  return std::move(finder.found);
}

}  // namespace quern::server
