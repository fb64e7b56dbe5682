#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

namespace quern::server {

// What may stand between the parts of a JSON text.
inline constexpr std::string_view kJsonBlanks = " \t\r\n";

// A value's text on one line. Bytes of its strings that are not valid UTF-8 become U+FFFD.
std::string JsonText(const nlohmann::json& value);
std::string JsonText(const nlohmann::ordered_json& value);

}  // namespace quern::server
