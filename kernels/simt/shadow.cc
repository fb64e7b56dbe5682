#include "kernels/simt/shadow.h"

#include <algorithm>

namespace quern::simt {
namespace {

constexpr bool Conflict(Touch a, Touch b) {
  return (IsWrite(a) || IsWrite(b)) && !(IsAtomic(a) && IsAtomic(b));
}

// Whether everything that conflicts with `old` also conflicts with `now`, so that `old`, ordered
// before `now`, need not be remembered.
constexpr bool Covers(Touch now, Touch old) {
  switch (now) {
    case Touch::kWrite:
      return true;
    case Touch::kRead:
      return !IsWrite(old);
    case Touch::kAtomicWrite:
      return IsAtomic(old);
    case Touch::kAtomicRead:
      return old == Touch::kAtomicRead;
  }
  return false;
}

// Atomics on one address have an order that all see: who has made one of its own after `entry` is
// ordered after it, as far as these bytes go.
bool MetAtomically(const Cell& cell, int at, const Toucher& toucher, uint16_t mask) {
  if (!IsAtomic(cell.At(at).kind())) return false;
  for (int i = at + 1; i < cell.count; ++i) {
    const Entry& entry = cell.At(i);
    if (entry.block == toucher.block && entry.thread == toucher.thread && IsAtomic(entry.kind()) &&
        (mask & ~entry.mask) == 0) {
      return true;
    }
  }
  return false;
}

}  // namespace

void Cell::Add(const Entry& entry) {
  if (count < kFirst) {
    first[count] = entry;
  } else {
    if (more == nullptr) more = std::make_unique<std::vector<Entry>>();
    more->resize(static_cast<size_t>(count - kFirst));
    more->push_back(entry);
  }
  ++count;
}

void Cell::Remove(int i) {
  for (; i + 1 < count; ++i) {
    (i < kFirst ? first[i] : (*more)[static_cast<size_t>(i - kFirst)]) = At(i + 1);
  }
  --count;
}

void Cell::Forget() {
  count = now_read = now_written = now_atomic = 0;
  if (readers != nullptr && readers->live > 0) {
    readers->live = 0;
    std::fill(readers->of.begin(), readers->of.end(), Readers::Read{});
  }
}

bool Toucher::Knows(const Entry& entry) const {
  if (entry.block == block) {
    return entry.thread == thread || clock.known->own[entry.thread] >= entry.epoch;
  }
  if (clock.known->others == nullptr) return false;
  const auto found = clock.known->others->find(entry.block);
  return found != clock.known->others->end() && (*found->second)[entry.thread] >= entry.epoch;
}

namespace {

// From this many accesses on, reads are kept by thread.
constexpr int kManyAccesses = 4;

Entry EntryOf(const Toucher& toucher, Touch touch, uint16_t mask, Site site) {
  return {site,
          toucher.block,
          toucher.clock.epoch,
          mask,
          static_cast<uint16_t>(toucher.thread & 0x3fff),
          static_cast<uint16_t>(static_cast<int>(touch) & 3)};
}

// A write, or an atomic, after the reads that are kept by thread.
bool MeetsReaders(Readers& readers, const Toucher& toucher, Touch touch, uint16_t mask,
                  Entry* conflict) {
  if (!IsWrite(touch)) return false;
  for (size_t thread = 0; thread < readers.of.size() && readers.live > 0; ++thread) {
    Readers::Read& read = readers.of[thread];
    if (read.epoch == 0 || (read.mask & mask) == 0) continue;
    if (static_cast<int>(thread) != toucher.thread &&
        toucher.clock.known->own[thread] < read.epoch) {
      *conflict = {read.site,
                   toucher.block,
                   read.epoch,
                   read.mask,
                   static_cast<uint16_t>(thread & 0x3fff),
                   static_cast<uint16_t>(Touch::kRead)};
      return true;
    }
    if ((read.mask & ~mask) == 0 && Covers(touch, Touch::kRead)) {
      read = {};
      --readers.live;
    }
  }
  return false;
}

// Keeps the read by thread. False if another one of the thread's is there that it does not replace.
bool KeepByThread(Cell& cell, const Entry& entry, size_t threads) {
  if (cell.readers == nullptr || cell.readers->of.size() != threads) {
    cell.readers = std::make_unique<Readers>(threads);
  }
  Readers::Read& read = cell.readers->of[entry.thread];
  if (read.epoch != 0 && read.epoch != entry.epoch && (read.mask & ~entry.mask) != 0) return false;
  if (read.epoch == 0) ++cell.readers->live;
  if (read.epoch != entry.epoch) read.mask = 0;
  read.epoch = entry.epoch;
  read.site = entry.site;
  read.mask = static_cast<uint16_t>(read.mask | entry.mask);
  return true;
}

}  // namespace

bool Note(Cell& cell, const Toucher& toucher, Touch touch, uint16_t mask, Site site,
          const Memory& memory, Entry* conflict) {
  Readers* readers = cell.readers.get();
  if (readers != nullptr && readers->live > 0) {
    if (touch == Touch::kRead) {
      // Read before, and not yet told anyone: a write since then would have been a race.
      const Readers::Read& read = readers->of[static_cast<size_t>(toucher.thread)];
      if (read.epoch == toucher.clock.epoch && (mask & ~read.mask) == 0) return false;
    } else if (MeetsReaders(*readers, toucher, touch, mask, conflict)) {
      return true;
    }
  }
  for (int i = 0; i < cell.count; ++i) {
    const Entry& old = cell.At(i);
    if ((old.mask & mask) == 0) continue;
    const bool own = old.block == toucher.block && old.thread == toucher.thread;
    if (own && old.epoch == toucher.clock.epoch && (mask & ~old.mask) == 0 && !IsAtomic(touch) &&
        Covers(old.kind(), touch)) {
      return false;
    }
    if (!own && !toucher.Knows(old)) {
      if (Conflict(touch, old.kind()) && !MetAtomically(cell, i, toucher, mask)) {
        *conflict = old;
        return true;
      }
      continue;
    }
    if ((old.mask & ~mask) == 0 && Covers(touch, old.kind())) cell.Remove(i--);
  }
  const Entry entry = EntryOf(toucher, touch, mask, site);
  if (memory.threads != 0 && touch == Touch::kRead && cell.count >= kManyAccesses &&
      KeepByThread(cell, entry, memory.threads)) {
    return false;
  }
  if (cell.count >= memory.limit) {
    int oldest = 0;
    while (oldest + 1 < cell.count && IsWrite(cell.At(oldest).kind())) ++oldest;
    cell.Remove(oldest);
  }
  cell.Add(entry);
  return false;
}

}  // namespace quern::simt
