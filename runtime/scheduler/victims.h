#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "runtime/kv_cache/block_pool.h"
#include "runtime/scheduler/fair_queue.h"
#include "runtime/scheduler/sequence.h"

namespace quern {

// What each tenant holds of the two things that are scarce, places in the batch and KV blocks, and
// who must give way. A tenant's share is that of whichever it holds more of (dominant resource
// fairness; Ghodsi et al. 2011), divided by its weight; of a block with several owners each holds
// its part. A copy of the counts, to plan with: nothing is taken from anyone here.
class Holdings {
 public:
  // `running`: in order of admission.
  Holdings(std::span<Sequence* const> running, int32_t max_sequences, const BlockPool& pool);

  // The one of running[first...] that should give way when blocks are short: of the highest class,
  // of the tenant with the largest share, the one admitted last.
  Sequence* VictimFrom(size_t first) const;

  // What a newcomer takes.
  struct Need {
    int32_t places = 0;  // beyond those that are free; at most 0: none
    int32_t blocks = 0;
  };
  // Whether the newcomer's tenant has no more than its fair share (weight / `all_weight`) with
  // `blocks` for it. Its first sequence is always due to a tenant.
  bool IsUnderServed(const Sequence& newcomer, int32_t blocks, double all_weight) const;
  // Who has to give way so that `newcomer`, which will hold `blocks`, gets what it needs: each from
  // a tenant that holds more than its fair share, and not of a lower class than the newcomer.
  // Without it that tenant still has its fair share, or else it is the newcomer's turn (it has the
  // lower counter) and its tenant's share stays the smaller one: so the only sequence of a tenant
  // that fills the cache gives way too. The tenant with the largest share gives first, what it
  // admitted last. What was preempted before stays until it has got on by as much as that cost, so
  // that no more than half of all work is ever lost to short newcomers. False, and `victims` means
  // nothing, when that is not enough, or when the newcomer's tenant is not under-served.
  // `yields`: blocks that a sequence's leaving makes free, promises to it included.
  template <typename Yields>
  bool MakeRoom(const Sequence& newcomer, int32_t blocks, double all_weight, Need need,
                Yields yields, std::vector<Sequence*>& victims) {
    victims.clear();
    if (!IsUnderServed(newcomer, blocks, all_weight)) return false;
    while (need.places > 0 || need.blocks > 0) {
      Sequence* victim = Give(newcomer, blocks, all_weight);
      if (victim == nullptr) return false;
      victims.push_back(victim);
      --need.places;
      need.blocks -= yields(*victim);
    }
    return true;
  }

 private:
  struct Held {
    int32_t places = 0;
    double blocks = 0;
  };
  double BlocksOf(const Sequence& sequence) const;
  Held With(const Sequence& newcomer, int32_t blocks) const;
  double Share(const Held& held, double weight) const;
  Sequence* Give(const Sequence& newcomer, int32_t blocks, double all_weight);

  const double max_sequences_;
  const BlockPool& pool_;
  std::vector<Sequence*> running_;
  std::map<const TenantAccount*, Held> held_;  // looked up, never walked: its order is by chance
};

}  // namespace quern
