#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
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
// A tenant that comes back from idling starts at the lowest counter of the active ones: it has no
// claim on what it did not ask for.
//
// Bounded: an account without sequences is dropped once its counter is not above that lowest one,
// where it would be lifted to anyway; what stays are debts of tenants that left while over-served,
// one for each name. Deterministic. Not thread-safe.
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

  // Who is to be served before whom: the lower class; then the tenant with the lower counter, and
  // of two alike the one that runs less; within a tenant what runs before what waits, then by
  // arrival.
  static bool Before(const Sequence& a, const Sequence& b);
  Sequence* Next() const;  // of those that wait; null: none does

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
  void DropSettled();

  std::map<std::string, TenantAccount, std::less<>> accounts_;  // nodes stay where they are
};

}  // namespace quern
