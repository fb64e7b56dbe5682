#pragma once

#include <cstdint>
#include <vector>

#include "runtime/base/result.h"
#include "runtime/kv_cache/block_pool.h"
#include "runtime/scheduler/fair_queue.h"
#include "runtime/scheduler/sequence.h"

namespace quern {

struct SchedulerOutput;

// The queues and the blocks: everything that Schedule() decides from. Sequences belong to the
// caller and must stay where they are until removed. Not thread-safe.
//
// Invariant: `running` is in order of admission, each queue of `waiting` in order of arrival; a
// waiting sequence holds no blocks and has nothing cached.
struct SchedulerState {
  // `hash_seed`, `hash`: PrefixIndex.
  SchedulerState(int32_t num_blocks, int32_t block_tokens, uint64_t hash_seed = 0,
                 const WindowLayout& window = {}, PrefixIndex::Hash hash = PrefixIndex::DefaultHash)
      : pool(num_blocks, hash_seed, hash, window), block_tokens(block_tokens) {}

  // Whether a sequence can ever run: alone, with `tokens` tokens in all, does it fit the pool? Only
  // such sequences may be added; that is what rules a deadlock out.
  bool FitsAlone(int32_t tokens) const {
    return BlocksFor(tokens, block_tokens) <= pool.num_blocks();
  }
  // To the end of its tenant's queue. Its arrival is later than that of every sequence added
  // before.
  void Add(Sequence* sequence);
  // Takes a finished or cancelled sequence out of whichever queue it is in, and frees its blocks.
  void Remove(Sequence* sequence);
  // From `running` to its queue, its blocks freed: all its tokens will be computed again, but for
  // those that are still in the prefix cache then.
  void Preempt(Sequence* victim);
  // Tells the state that a step has run: the K and V of its tokens are in the cache now, and blocks
  // that became full are there for who comes with the same tokens. What layers with a window will
  // not see again goes.
  void Commit(const SchedulerOutput& output);

  // What is held of this sequence's layers, if anything, is lost: they run again.
  void Release(Sequence& sequence);

  // What idle blocks hold is worth nothing from now on.
  void ForgetCached();

  bool empty() const { return running.empty() && waiting.empty(); }
  // kInternal when an invariant is broken, or a block is leaked or has an owner too many.
  // O(blocks): debug builds and tests.
  Status CheckIntegrity() const;

  BlockPool pool;
  int32_t block_tokens;
  std::vector<Sequence*> running;
  FairQueue waiting;
  Sequence* held = nullptr;  // the one with held_tokens, of those that run
};

}  // namespace quern
