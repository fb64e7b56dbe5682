// What the tests of the prefix cache and of the windows' blocks look for.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "runtime/kv_cache/block_table.h"

namespace quern {

constexpr int32_t kBlock = 2;  // tokens
using Tokens = std::vector<int32_t>;

inline std::vector<BlockId> Find(const BlockPool& pool, const Tokens& tokens,
                                 std::string_view salt = "") {
  std::vector<BlockId> found;
  FindPrefix(tokens, static_cast<int32_t>(tokens.size()), salt, kBlock, pool, found);
  return found;
}

}  // namespace quern
