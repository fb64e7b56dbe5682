#include "runtime/server/json_text.h"

#include <nlohmann/json.hpp>

namespace quern::server {
using nlohmann::json;
using nlohmann::ordered_json;

std::string JsonText(const json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

std::string JsonText(const ordered_json& value) {
  return value.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

}  // namespace quern::server
