#include "runtime/scheduler/fair_queue.h"

#include <algorithm>
#include <cassert>
#include <optional>

namespace quern {
namespace {

bool Earlier(const Sequence* a, const Sequence* b) { return a->arrival < b->arrival; }

}  // namespace

void FairQueue::Enter(Sequence* sequence) {
  assert(sequence->weight > 0 && sequence->account == nullptr);
  TenantAccount& account = accounts_[sequence->tenant];
  if (account.waiting == 0) account.counter = std::max(account.counter, Floor(sequence->priority));
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
  last_started_ = &account;
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

// Where a tenant without waiting sequences starts that enters one of this class. Those that wait in
// a higher class do not count: they may have waited for long, with counters of long ago.
double FairQueue::Floor(int32_t priority) const {
  std::optional<double> lowest;
  for (const auto& [name, account] : accounts_) {
    if (account.queues.empty() || account.queues.begin()->first > priority) continue;
    lowest = std::min(lowest.value_or(account.counter), account.counter);
  }
  if (lowest) return *lowest;
  return last_started_ != nullptr ? last_started_->counter : last_counter_;
}

void FairQueue::DropSettled() {
  if (std::none_of(accounts_.begin(), accounts_.end(),
                   [](const auto& it) { return it.second.active(); })) {
    accounts_.clear();
    last_started_ = nullptr;
    last_counter_ = 0;
    return;
  }
  // Of all classes: the lowest that an account without sequences could be lifted to.
  double floor = last_started_ != nullptr ? last_started_->counter : last_counter_;
  for (const auto& [name, account] : accounts_) {
    if (account.waiting > 0) floor = std::min(floor, account.counter);
  }
  std::erase_if(accounts_, [&](const auto& it) {
    if (it.second.active() || it.second.counter > floor) return false;
    if (&it.second == last_started_) {
      last_counter_ = last_started_->counter;
      last_started_ = nullptr;
    }
    return true;
  });
}

void FairQueue::Charge(const Sequence& sequence, int64_t tokens) {
  sequence.account->counter += static_cast<double>(tokens) / sequence.account->weight;
}

void FairQueue::PassOver(const Sequence& passed, const Sequence& other) {
  if (passed.priority != other.priority) return;
  passed.account->counter = std::max(passed.account->counter, other.account->counter);
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

Sequence* FairQueue::Next(std::span<const Sequence* const> passed_over) const {
  Sequence* next = nullptr;
  for (const auto& [name, account] : accounts_) {
    if (account.queues.empty()) continue;
    Sequence* first = account.queues.begin()->second.front();
    if (std::find(passed_over.begin(), passed_over.end(), first) != passed_over.end()) continue;
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
