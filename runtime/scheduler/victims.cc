#include "runtime/scheduler/victims.h"

#include <algorithm>

namespace quern {

Holdings::Holdings(std::span<Sequence* const> running, int32_t max_sequences, int32_t num_blocks)
    : max_sequences_(max_sequences),
      num_blocks_(num_blocks),
      running_(running.begin(), running.end()) {
  for (const Sequence* sequence : running) {
    Held& held = held_[sequence->account];
    ++held.places;
    held.blocks += sequence->blocks.size();
  }
}

double Holdings::Share(const Held& held, double weight) const {
  return std::max(held.places / max_sequences_, held.blocks / num_blocks_) / weight;
}

Sequence* Holdings::VictimFrom(size_t first) const {
  Sequence* victim = nullptr;
  double most = 0;
  for (size_t i = first; i < running_.size(); ++i) {
    Sequence* sequence = running_[i];
    const double share = Share(held_.at(sequence->account), sequence->account->weight);
    const bool worse = victim == nullptr || sequence->priority > victim->priority ||
                       (sequence->priority == victim->priority && share >= most);
    if (!worse) continue;
    victim = sequence;
    most = share;
  }
  return victim;
}

bool Holdings::IsUnderServed(const Sequence& newcomer, int32_t blocks, double all_weight) const {
  const auto it = held_.find(newcomer.account);
  if (it == held_.end()) return true;
  const Held after{it->second.places + 1, it->second.blocks + blocks};
  return Share(after, newcomer.account->weight) * all_weight <= 1;
}

Sequence* Holdings::Give(const Sequence& newcomer, double all_weight) {
  // Of each tenant, what would go first. Only that: within a tenant and class, what came earlier
  // never waits for what came later.
  std::vector<Sequence*> candidates;
  for (Sequence* sequence : running_) {
    if (sequence->account == newcomer.account || sequence->priority < newcomer.priority) continue;
    const auto same = std::find_if(candidates.begin(), candidates.end(), [&](const Sequence* it) {
      return it->account == sequence->account;
    });
    if (same == candidates.end()) {
      candidates.push_back(sequence);
    } else if (sequence->priority >= (*same)->priority) {
      *same = sequence;
    }
  }
  Sequence* victim = nullptr;
  double most = 0;
  for (Sequence* candidate : candidates) {
    const double weight = candidate->account->weight;
    const Held& held = held_.at(candidate->account);
    const Held after{held.places - 1, held.blocks - candidate->blocks.size()};
    const double share = Share(held, weight);
    if (share * all_weight <= 1 || Share(after, weight) * all_weight < 1) continue;
    if (victim != nullptr && share <= most) continue;
    victim = candidate;
    most = share;
  }
  if (victim == nullptr) return nullptr;
  Held& held = held_.at(victim->account);
  --held.places;
  held.blocks -= victim->blocks.size();
  running_.erase(std::find(running_.begin(), running_.end(), victim));
  return victim;
}

}  // namespace quern
