#include "runtime/server/json_text.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <vector>

namespace quern::server {
using nlohmann::json;
using nlohmann::ordered_json;

std::string JsonText(const json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

std::string JsonText(const ordered_json& value) {
  return value.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

size_t MostMembers(const json& value) {
  size_t most = value.is_object() ? value.size() : 0;
  if (!value.is_structured()) return most;
  for (const json& item : value) most = std::max(most, MostMembers(item));
  return most;
}

ordered_json ParseInOrder(std::string_view text, size_t most_members) {
  std::vector<size_t> written;  // names, of each object that is open
  bool too_many = false;
  const auto count = [&](int, ordered_json::parse_event_t event, ordered_json&) {
    if (too_many) return false;
    if (event == ordered_json::parse_event_t::object_start) written.push_back(0);
    if (event == ordered_json::parse_event_t::key) too_many = ++written.back() > most_members;
    if (event == ordered_json::parse_event_t::object_end) written.pop_back();
    return !too_many;
  };
  ordered_json ordered = ordered_json::parse(text, count, /*allow_exceptions=*/false);
  if (!too_many) return ordered;
  return json::parse(text, nullptr, /*allow_exceptions=*/false);
}

}  // namespace quern::server
