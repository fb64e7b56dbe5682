#include "runtime/scheduler/fair_queue.h"

#include <algorithm>
#include <cassert>
#include <limits>
#include <optional>

namespace quern {
namespace {

std::optional<double> LowestActive(const auto& accounts) {
  std::optional<double> lowest;
  for (const auto& [name, account] : accounts) {
    if (account.active()) lowest = std::min(lowest.value_or(account.counter), account.counter);
  }
  return lowest;
}

bool Earlier(const Sequence* a, const Sequence* b) { return a->arrival < b->arrival; }

}  // namespace

void FairQueue::Enter(Sequence* sequence) {
  assert(sequence->weight > 0 && sequence->account == nullptr);
  const std::optional<double> lowest = LowestActive(accounts_);
  TenantAccount& account = accounts_[sequence->tenant];
  if (!account.active() && lowest) account.counter = std::max(account.counter, *lowest);
  account.weight = sequence->weight;
  sequence->account = &account;
  sequence->waits = true;
  ++account.waiting;
  account.queues[sequence->priority].push_back(sequence);
  DropSettled();
}

void FairQueue::Start(Sequence* sequence) {
  TenantAccount& account = *sequence->account;
  const auto queue = account.queues.find(sequence->priority);
  assert(queue != account.queues.end() && queue->second.front() == sequence);
  queue->second.pop_front();
  if (queue->second.empty()) account.queues.erase(queue);
  sequence->waits = false;
  --account.waiting;
  ++account.running;
}

void FairQueue::Return(Sequence* sequence) {
  TenantAccount& account = *sequence->account;
  --account.running;
  ++account.waiting;
  sequence->waits = true;
  auto& queue = account.queues[sequence->priority];
  queue.insert(std::lower_bound(queue.begin(), queue.end(), sequence, Earlier), sequence);
}

void FairQueue::Leave(Sequence* sequence) {
  TenantAccount& account = *sequence->account;
  if (sequence->waits) {
    const auto queue = account.queues.find(sequence->priority);
    assert(queue != account.queues.end());
    const auto at = std::find(queue->second.begin(), queue->second.end(), sequence);
    assert(at != queue->second.end());
    queue->second.erase(at);
    if (queue->second.empty()) account.queues.erase(queue);
    --account.waiting;
  } else {
    --account.running;
  }
  sequence->account = nullptr;
  DropSettled();
}

void FairQueue::DropSettled() {
  const double lowest = LowestActive(accounts_).value_or(std::numeric_limits<double>::infinity());
  std::erase_if(accounts_,
                [&](const auto& it) { return !it.second.active() && it.second.counter <= lowest; });
}

void FairQueue::Charge(const Sequence& sequence, int64_t tokens) {
  sequence.account->counter += static_cast<double>(tokens) / sequence.account->weight;
}

bool FairQueue::Before(const Sequence& a, const Sequence& b) {
  if (a.priority != b.priority) return a.priority < b.priority;
  if (a.account != b.account) {
    if (a.account->counter != b.account->counter) return a.account->counter < b.account->counter;
    if (a.account->running != b.account->running) return a.account->running < b.account->running;
  } else if (a.waits != b.waits) {
    return b.waits;
  }
  return a.arrival < b.arrival;
}

Sequence* FairQueue::Next() const {
  Sequence* next = nullptr;
  for (const auto& [name, account] : accounts_) {
    if (account.queues.empty()) continue;
    Sequence* first = account.queues.begin()->second.front();
    if (next == nullptr || Before(*first, *next)) next = first;
  }
  return next;
}

size_t FairQueue::size() const {
  size_t size = 0;
  for (const auto& [name, account] : accounts_) size += static_cast<size_t>(account.waiting);
  return size;
}

double FairQueue::ActiveWeight() const {
  double sum = 0;
  for (const auto& [name, account] : accounts_) sum += account.active() ? account.weight : 0;
  return sum;
}

Status FairQueue::CheckIntegrity() const {
  for (const auto& [name, account] : accounts_) {
    size_t waiting = 0;
    for (const auto& [priority, queue] : account.queues) {
      waiting += queue.size();
      const Sequence* previous = nullptr;
      for (const Sequence* sequence : queue) {
        if (sequence->account != &account || sequence->priority != priority || !sequence->waits) {
          return MakeError(ErrorCode::kInternal, "sequence {} stands in a queue that is not its",
                           sequence->arrival);
        }
        if (previous != nullptr && previous->arrival >= sequence->arrival) {
          return MakeError(ErrorCode::kInternal, "sequence {} stands behind sequence {}",
                           sequence->arrival, previous->arrival);
        }
        previous = sequence;
      }
    }
    if (waiting != static_cast<size_t>(account.waiting) || account.running < 0) {
      return MakeError(ErrorCode::kInternal, "tenant '{}' has {} sequences waiting, not {}", name,
                       waiting, account.waiting);
    }
  }
  return {};
}

}  // namespace quern
