#include "kernels/simt/shadow.h"

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
  if (count < 3) {
    first[count] = entry;
  } else {
    if (more == nullptr) more = std::make_unique<std::vector<Entry>>();
    more->resize(static_cast<size_t>(count - 3));
    more->push_back(entry);
  }
  ++count;
}

void Cell::Remove(int i) {
  for (; i + 1 < count; ++i) {
    (i < 3 ? first[i] : (*more)[static_cast<size_t>(i - 3)]) = At(i + 1);
  }
  --count;
}

bool Toucher::Knows(const Entry& entry) const {
  if (entry.block == block) {
    return entry.thread == thread || clock.known->own[entry.thread] >= entry.epoch;
  }
  if (clock.known->others == nullptr) return false;
  const auto found = clock.known->others->find(entry.block);
  return found != clock.known->others->end() && (*found->second)[entry.thread] >= entry.epoch;
}

bool Note(Cell& cell, const Toucher& toucher, Touch touch, uint16_t mask, Site site, int limit,
          Entry* conflict) {
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
  if (cell.count >= limit) {
    int oldest = 0;
    while (oldest + 1 < cell.count && IsWrite(cell.At(oldest).kind())) ++oldest;
    cell.Remove(oldest);
  }
  cell.Add({site, toucher.block, toucher.clock.epoch, mask,
            static_cast<uint16_t>(toucher.thread & 0x3fff),
            static_cast<uint16_t>(static_cast<int>(touch) & 3)});
  return false;
}

}  // namespace quern::simt
