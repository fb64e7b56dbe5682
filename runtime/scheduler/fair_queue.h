#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <span>
#include <string>

#include "runtime/base/result.h"
#include "runtime/scheduler/sequence.h"

namespace quern {

// What a tenant has waiting and running, and the service that it has had.
struct TenantAccount {
  double weight = 1;
  double counter = 0;  // virtual tokens: service so far / weight
  int32_t running = 0;
  int32_t waiting = 0;
  std::map<int32_t, std::deque<Sequence*>> queues;  // by class; none is empty; in order of arrival

  bool active() const { return running + waiting > 0; }
};

// The sequences that wait, by tenant and class, and the account of every tenant: virtual token
// counters (VTC; Sheng et al. 2024, "Fairness in Serving Large Language Models"). Each tenant's
// counter goes up by what it is served, divided by its weight; who has the lowest is served next.
// A tenant that has nothing waiting starts at the lowest counter of those that have, or, where none
// has, at that of the tenant served last: it has no claim on what it did not ask for, however long
// a stream of its own runs beside.
//
// Bounded: an account without sequences is dropped once its counter is not above where it would be
// lifted to anyway; what stays are debts of tenants that left while over-served, one for each name.
// Deterministic. Not thread-safe.
class FairQueue {
 public:
  // A sequence that is new: to the end of its queue.
  void Enter(Sequence* sequence);
  // Next() goes into the batch.
  void Start(Sequence* sequence);
  // One that was preempted: from the batch to its place by arrival.
  void Return(Sequence* sequence);
  // One that ends, whether it waits or runs.
  void Leave(Sequence* sequence);

  // Its tenant was served `tokens` virtual tokens; negative: they were taken back.
  static void Charge(const Sequence& sequence, int64_t tokens);
  // `other`, of the same class, was served although `passed` was next: what did not fit beside the
  // others' is no debt of theirs.
  static void PassOver(const Sequence& passed, const Sequence& other);

  // Who is to be served before whom: the lower class; then the tenant with the lower counter, and
  // of two alike the one that runs less; within a tenant what runs before what waits, then by
  // arrival.
  static bool Before(const Sequence& a, const Sequence& b);
  // Of those that wait, but for those of `passed_over`; null: none does.
  Sequence* Next(std::span<const Sequence* const> passed_over = {}) const;

  size_t size() const;
  bool empty() const { return size() == 0; }
  double ActiveWeight() const;  // sum over tenants with sequences
  size_t num_accounts() const { return accounts_.size(); }

  // Calls `visit` with every waiting sequence: by tenant, class and arrival.
  template <typename Visit>
  void ForEach(Visit visit) const {
    for (const auto& [name, account] : accounts_) {
      for (const auto& [priority, queue] : account.queues) {
        for (Sequence* sequence : queue) visit(sequence);
      }
    }
  }

  // kInternal when queues, accounts and sequences contradict each other.
  Status CheckIntegrity() const;

 private:
  double Floor(int32_t priority) const;
  void DropSettled();

  // Of the tenant that Start() was last called for; null: its account was dropped, at
  // last_counter_.
  const TenantAccount* last_started_ = nullptr;
  double last_counter_ = 0;
  std::map<std::string, TenantAccount, std::less<>> accounts_;  // nodes stay where they are
};

}  // namespace quern
