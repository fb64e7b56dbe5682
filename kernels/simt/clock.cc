#include "kernels/simt/clock.h"

#include <algorithm>

namespace quern::simt {
namespace {

void MergeInto(Epochs& into, const Epochs& from) {
  for (size_t i = 0; i < into.size(); ++i) into[i] = std::max(into[i], from[i]);
}

}  // namespace

BlocksRef Join(const BlocksRef& a, const BlocksRef& b) {
  if (a == nullptr || a == b) return b;
  if (b == nullptr) return a;
  auto joined = std::make_shared<Blocks>(*a);
  for (const auto& [block, epochs] : *b) {
    std::shared_ptr<const Epochs>& known = (*joined)[block];
    if (known == nullptr || known == epochs) {
      known = epochs;
    } else {
      auto merged = std::make_shared<Epochs>(*known);
      MergeInto(*merged, *epochs);
      known = std::move(merged);
    }
  }
  return joined;
}

ClockRef JoinParticipants(const std::vector<Participant>& participants) {
  auto joined = std::make_shared<Clock>(*participants[0].clock->known);
  const Clock* last = participants[0].clock->known.get();
  for (const Participant& one : participants) {
    const Clock* known = one.clock->known.get();
    if (known == last) continue;  // most share one
    last = known;
    MergeInto(joined->own, known->own);
    joined->others = Join(joined->others, known->others);
  }
  for (const Participant& one : participants) {
    joined->own[static_cast<size_t>(one.thread)] = one.clock->epoch;
  }
  return joined;
}

void Fence(ThreadClock& clock, uint32_t block, int thread) {
  if (clock.seen != nullptr) {
    auto known = std::make_shared<Clock>(*clock.known);
    const auto own = clock.seen->find(block);
    if (own != clock.seen->end()) MergeInto(known->own, *own->second);
    known->others = Join(known->others, clock.seen);
    clock.known = std::move(known);
    clock.seen = nullptr;
  }
  auto own = std::make_shared<Epochs>(clock.known->own);
  (*own)[static_cast<size_t>(thread)] = clock.epoch;
  auto just_this = std::make_shared<Blocks>();
  just_this->emplace(block, std::move(own));
  clock.released = Join(clock.known->others, BlocksRef(std::move(just_this)));
  ++clock.epoch;
}

}  // namespace quern::simt
