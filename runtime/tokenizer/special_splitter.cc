#include "runtime/tokenizer/special_splitter.h"

#include <algorithm>
#include <functional>
#include <map>
#include <tuple>

namespace quern {
namespace {

struct Found {
  size_t begin;
  uint32_t length;
  TokenId token;
};

std::vector<Fragment> Cut(std::string_view text, std::vector<Found> found) {
  std::sort(found.begin(), found.end(),
            [](const Found& a, const Found& b) { return a.begin < b.begin; });
  std::vector<Fragment> fragments;
  size_t at = 0;
  for (const Found& one : found) {
    if (one.begin > at) fragments.push_back({text.substr(at, one.begin - at), -1});
    fragments.push_back({{}, one.token});
    at = one.begin + one.length;
  }
  if (at < text.size()) fragments.push_back({text.substr(at), -1});
  return fragments;
}

}  // namespace

SpecialSplitter::SpecialSplitter(const Vocabulary& vocabulary) {
  struct Entry {
    std::string_view text;
    TokenId token;
  };
  std::vector<Entry> entries;
  for (TokenId id = 0; id < vocabulary.size(); ++id) {
    if (IsSpecial(vocabulary.kind(id))) entries.push_back({vocabulary.text(id), id});
  }
  std::sort(entries.begin(), entries.end(),
            [](const Entry& a, const Entry& b) { return a.text < b.text; });

  // Breadth first, so that a node's children are added together. `begin` to `end` are the entries
  // below it.
  struct Range {
    size_t node, begin, end, depth;
  };
  nodes_.emplace_back();
  std::vector<Range> ranges = {{0, 0, entries.size(), 0}};
  for (size_t next = 0; next < ranges.size(); ++next) {
    auto [node, begin, end, depth] = ranges[next];
    if (begin < end && entries[begin].text.size() == depth) {
      const TokenKind kind = vocabulary.kind(entries[begin].token);
      nodes_[node].token = entries[begin].token;
      nodes_[node].only_when_parsing = kind != TokenKind::kUserDefined;
      ++begin;
    }
    nodes_[node].first_child = static_cast<uint32_t>(nodes_.size());
    while (begin < end) {
      const char byte = entries[begin].text[depth];
      size_t last = begin;
      while (last < end && entries[last].text[depth] == byte) ++last;
      ranges.push_back({nodes_.size(), begin, last, depth + 1});
      nodes_.emplace_back().byte = static_cast<uint8_t>(byte);
      ++nodes_[node].children;
      begin = last;
    }
  }
}

const SpecialSplitter::Node* SpecialSplitter::Child(const Node& node, uint8_t byte) const {
  const Node* first = nodes_.data() + node.first_child;
  const Node* last = first + node.children;
  const Node* child =
      std::lower_bound(first, last, byte, [](const Node& n, uint8_t b) { return n.byte < b; });
  return child != last && child->byte == byte ? child : nullptr;
}

SpecialSplitter::Match SpecialSplitter::Longest(std::string_view text, size_t limit,
                                                bool parse_special) const {
  Match longest;
  const Node* node = nodes_.data();
  for (size_t i = 0; i < std::min(limit, text.size()); ++i) {
    node = Child(*node, static_cast<uint8_t>(text[i]));
    if (!node) break;
    if (node->token >= 0 && (parse_special || !node->only_when_parsing)) {
      longest = {node->token, static_cast<uint32_t>(i + 1)};
    }
  }
  return longest;
}

std::vector<Fragment> SpecialSplitter::Split(std::string_view text, bool parse_special) const {
  // Candidates by length, so that the longest are taken first; each position is in one bucket at a
  // time, with the longest token that may still fit there.
  std::map<uint32_t, std::vector<Found>, std::greater<>> buckets;
  for (size_t at = 0; at < text.size(); ++at) {
    const Match match = Longest(text.substr(at), SIZE_MAX, parse_special);
    if (match.token >= 0) buckets[match.length].push_back({at, match.length, match.token});
  }
  if (buckets.empty()) return Cut(text, {});

  std::vector<bool> taken(text.size(), false);
  std::vector<Found> accepted;
  while (!buckets.empty()) {
    std::vector<Found> bucket = std::move(buckets.begin()->second);
    buckets.erase(buckets.begin());
    std::sort(bucket.begin(), bucket.end(), [](const Found& a, const Found& b) {
      return std::tie(a.token, a.begin) < std::tie(b.token, b.begin);
    });
    for (const Found& one : bucket) {
      size_t room = 0;
      while (room < one.length && !taken[one.begin + room]) ++room;
      if (room == one.length) {
        std::fill_n(taken.begin() + static_cast<long>(one.begin), one.length, true);
        accepted.push_back(one);
      } else if (const Match shorter = Longest(text.substr(one.begin), room, parse_special);
                 shorter.token >= 0) {
        buckets[shorter.length].push_back({one.begin, shorter.length, shorter.token});
      }
    }
  }
  return Cut(text, std::move(accepted));
}

}  // namespace quern
