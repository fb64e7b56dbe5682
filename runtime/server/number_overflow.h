#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace quern::server {

// A number of a JSON text that is beyond what a double holds.
struct NumberOverflow {
  std::string path;    // of the member or element: "temperature", "prompt[2]"
  std::string number;  // as it was written; its length where it is long
};

// The one at which a JSON parser stops; nullopt where it stops elsewhere or not at all. The caller
// bounds the text's length and depth.
std::optional<NumberOverflow> FindNumberOverflow(std::string_view text);

}  // namespace quern::server
