#pragma once

#include <cstddef>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

namespace quern::server {

// What may stand between the parts of a JSON text.
inline constexpr std::string_view kJsonBlanks = " \t\r\n";

// A value's text on one line. Bytes of its strings that are not valid UTF-8 become U+FFFD.
std::string JsonText(const nlohmann::json& value);
std::string JsonText(const nlohmann::ordered_json& value);

// How many members the largest object has: ordered_json looks for each of them among all.
size_t MostMembers(const nlohmann::json& value);

// `text` with its members in the order in which they are written. All sorted by name if an object
// has more than `most_members`, with those that are written twice: to keep the order would take
// long. Discarded if it is no JSON. The caller bounds its length and depth.
nlohmann::ordered_json ParseInOrder(std::string_view text, size_t most_members);

}  // namespace quern::server
