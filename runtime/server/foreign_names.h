#pragma once

#include <set>
#include <string>

namespace quern::server {

// Which of `candidates` a client may have meant by a name that is not among them: what other
// servers' APIs call the same (max_new_tokens, repeat_penalty), else a name that is written nearly
// alike. Null: none. Pure.
const std::string* MeantName(const std::string& name, const std::set<std::string>& candidates);

}  // namespace quern::server
