#include "runtime/base/near_name.h"

#include <algorithm>
#include <vector>

namespace quern {
namespace {

constexpr size_t kMaxEdits = 2;
constexpr size_t kLeastLetters = 3;
constexpr size_t kMostLetters = 80;

// As people write names: maxTokens and max-tokens mean max_tokens.
std::string Plain(std::string_view name) {
  std::string plain(name);
  for (char& c : plain) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    if (c == '-') c = '_';
  }
  return plain;
}

}  // namespace

size_t EditDistance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t substitute = diagonal + (a[i - 1] != b[j - 1]);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, substitute});
    }
  }
  return row[b.size()];
}

const std::string* NearestName(std::string_view name, const std::set<std::string>& candidates) {
  const std::string* nearest = nullptr;
  size_t smallest = kMaxEdits + 1;
  if (name.size() < kLeastLetters || name.size() > kMostLetters) return nullptr;
  const std::string plain = Plain(name);
  for (const std::string& candidate : candidates) {
    if (candidate.size() < kLeastLetters) continue;
    const size_t distance = EditDistance(plain, Plain(candidate));
    if (distance >= smallest) continue;
    smallest = distance;
    nearest = &candidate;
  }
  return nearest;
}

}  // namespace quern
