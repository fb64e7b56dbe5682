#include "runtime/scheduler/victims.h"

#include <algorithm>

namespace quern {

Holdings::Holdings(std::span<Sequence* const> running, int32_t max_sequences, const BlockPool& pool)
    : max_sequences_(max_sequences), pool_(pool), running_(running.begin(), running.end()) {
  for (const Sequence* sequence : running) {
    Held& held = held_[sequence->account];
    ++held.places;
    held.blocks += BlocksOf(*sequence);
  }
}

double Holdings::BlocksOf(const Sequence& sequence) const {
  double parts = 0;
  for (const BlockId block : sequence.blocks.blocks()) parts += 1.0 / pool_.Owners(block);
  return parts;
}

// What the newcomer's tenant holds once it is admitted.
Holdings::Held Holdings::With(const Sequence& newcomer, int32_t blocks) const {
  const auto it = held_.find(newcomer.account);
  const Held held = it == held_.end() ? Held{} : it->second;
  return {held.places + 1, held.blocks + blocks};
}

double Holdings::Share(const Held& held, double weight) const {
  return std::max(held.places / max_sequences_, held.blocks / pool_.num_blocks()) / weight;
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
  if (!held_.contains(newcomer.account)) return true;
  return Share(With(newcomer, blocks), newcomer.account->weight) * all_weight <= 1;
}

Sequence* Holdings::Give(const Sequence& newcomer, int32_t blocks, double all_weight) {
  const double share_then = Share(With(newcomer, blocks), newcomer.account->weight);
  // Of each tenant, what would go first.
  std::vector<Sequence*> candidates;
  for (Sequence* sequence : running_) {
    if (sequence->account == newcomer.account || sequence->priority < newcomer.priority) continue;
    if (sequence->cached_tokens < 2 * sequence->recomputed_tokens) continue;
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
    const Held after{held.places - 1, held.blocks - BlocksOf(*candidate)};
    const double share = Share(held, weight);
    if (share * all_weight <= 1) continue;
    const bool swap = newcomer.account->counter < candidate->account->counter && share_then < share;
    if (Share(after, weight) * all_weight < 1 && !swap) continue;
    if (victim != nullptr && share <= most) continue;
    victim = candidate;
    most = share;
  }
  if (victim == nullptr) return nullptr;
  Held& held = held_.at(victim->account);
  --held.places;
  held.blocks -= BlocksOf(*victim);
  running_.erase(std::find(running_.begin(), running_.end(), victim));
  return victim;
}

}  // namespace quern
