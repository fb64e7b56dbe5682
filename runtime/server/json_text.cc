#include "runtime/server/json_text.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

namespace quern::server {
using nlohmann::json;
using nlohmann::ordered_json;

namespace {

size_t AllMembers(const json& value) {
  size_t all = value.is_object() ? value.size() : 0;
  if (!value.is_structured()) return all;
  for (const json& item : value) all += AllMembers(item);
  return all;
}

}  // namespace

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
  size_t written = 0;
  const auto count = [&written](int, json::parse_event_t event, json&) {
    if (event == json::parse_event_t::key) ++written;
    return true;
  };
  json parsed = json::parse(text, count, /*allow_exceptions=*/false);
  const bool keeps_order = !parsed.is_discarded() && MostMembers(parsed) <= most_members &&
                           AllMembers(parsed) == written;
  return keeps_order ? ordered_json::parse(text, nullptr, /*allow_exceptions=*/false)
                     : ordered_json(std::move(parsed));
}

}  // namespace quern::server
