#pragma once

#include <cstddef>
#include <set>
#include <string>
#include <string_view>

namespace quern {

// Levenshtein's distance: the fewest letters to insert, delete and replace. Time: the product of
// the lengths, which the caller bounds.
size_t EditDistance(std::string_view a, std::string_view b);

// The nearest of `candidates` within two edits, or null; upper and lower case are the same, and so
// are '-' and '_'. Names of one or two letters are within two edits of too much, and are not taken.
const std::string* NearestName(std::string_view name, const std::set<std::string>& candidates);

}  // namespace quern
