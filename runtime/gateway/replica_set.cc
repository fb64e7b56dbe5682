#include "runtime/gateway/replica_set.h"

#include <algorithm>
#include <cassert>
#include <tuple>

namespace quern::gateway {

ReplicaSet::Change ReplicaSet::SetAddresses(const std::set<Address>& addresses) {
  Change change;
  for (const Address& address : addresses) {
    const auto [found, is_new] = replicas_.try_emplace(address);
    if (!is_new && found->second.present) continue;
    found->second.present = true;
    change.added.push_back(address);
  }
  for (auto it = replicas_.begin(); it != replicas_.end();) {
    auto& [address, replica] = *it;
    if (addresses.count(address) > 0 || !replica.present) {
      ++it;
      continue;
    }
    change.removed.push_back(address);
    replica.present = replica.ready = false;
    it = replica.in_flight == 0 ? replicas_.erase(it) : std::next(it);
  }
  return change;
}

void ReplicaSet::SetReady(const Address& address, bool ready) {
  const auto found = replicas_.find(address);
  if (found != replicas_.end() && found->second.present) found->second.ready = ready;
}

std::optional<ReplicaSet::Address> ReplicaSet::Pick(const std::set<Address>& avoid) {
  auto best = replicas_.end();
  const auto cost = [&](const auto& entry) {
    return std::tuple(avoid.count(entry.first), entry.second.in_flight, entry.second.picked);
  };
  for (auto it = replicas_.begin(); it != replicas_.end(); ++it) {
    if (!it->second.ready) continue;
    if (best == replicas_.end() || cost(*it) < cost(*best)) best = it;
  }
  if (best == replicas_.end()) return std::nullopt;
  ++best->second.in_flight;
  best->second.picked = ++picks_;
  return best->first;
}

void ReplicaSet::Release(const Address& address) {
  const auto found = replicas_.find(address);
  assert(found != replicas_.end() && found->second.in_flight > 0);
  if (--found->second.in_flight == 0 && !found->second.present) replicas_.erase(found);
}

bool ReplicaSet::HasReady() const { return ready() > 0; }

bool ReplicaSet::IsReady(const Address& address) const {
  const auto found = replicas_.find(address);
  return found != replicas_.end() && found->second.ready;
}

bool ReplicaSet::Has(const Address& address) const {
  const auto found = replicas_.find(address);
  return found != replicas_.end() && found->second.present;
}

size_t ReplicaSet::size() const {
  return static_cast<size_t>(std::count_if(replicas_.begin(), replicas_.end(),
                                           [](const auto& entry) { return entry.second.present; }));
}

size_t ReplicaSet::ready() const {
  return static_cast<size_t>(std::count_if(replicas_.begin(), replicas_.end(),
                                           [](const auto& entry) { return entry.second.ready; }));
}

size_t ReplicaSet::in_flight() const {
  size_t count = 0;
  for (const auto& [address, replica] : replicas_) count += replica.in_flight;
  return count;
}

}  // namespace quern::gateway
