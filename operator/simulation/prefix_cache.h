#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <unordered_map>
#include <vector>

namespace quern::simulation {

// The prompt blocks that a replica has in its KV cache, by the names that the trace gives them.
// The least recently used one goes first. Not thread-safe.
class PrefixCache {
 public:
  explicit PrefixCache(size_t capacity) : capacity_(capacity) {}

  // How many of `blocks` are there, from the first on; they count as used.
  size_t Match(const std::vector<int64_t>& blocks) {
    size_t hits = 0;
    for (; hits < blocks.size(); ++hits) {
      const auto found = places_.find(blocks[hits]);
      if (found == places_.end()) break;
      order_.splice(order_.begin(), order_, found->second);
    }
    return hits;
  }
  void Insert(const std::vector<int64_t>& blocks) {
    for (const int64_t block : blocks) {
      const auto found = places_.find(block);
      if (found != places_.end()) {
        order_.splice(order_.begin(), order_, found->second);
        continue;
      }
      order_.push_front(block);
      places_.emplace(block, order_.begin());
      if (order_.size() <= capacity_) continue;
      places_.erase(order_.back());
      order_.pop_back();
    }
  }

 private:
  size_t capacity_;
  std::list<int64_t> order_;  // the most recently used first
  std::unordered_map<int64_t, std::list<int64_t>::iterator> places_;
};

}  // namespace quern::simulation
