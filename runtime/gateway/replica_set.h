#pragma once

#include <cstddef>
#include <map>
#include <optional>
#include <set>
#include <vector>

#include "runtime/http/loop.h"

namespace quern::gateway {

// The replicas of an endpoint: which are ready, and how many requests each has in flight. Pure. Not
// thread-safe.
class ReplicaSet {
 public:
  using Address = http::Address;

  // The replicas that there are now. One that is gone is not picked any more, and forgotten once
  // nothing is in flight to it; a new one is not ready.
  struct Change {
    std::vector<Address> added, removed;
  };
  Change SetAddresses(const std::set<Address>& addresses);

  // Of a replica that is not there: nothing.
  void SetReady(const Address& address, bool ready);

  // The ready one with the fewest requests in flight, of several each in turn; one that is in
  // `avoid` only where there is no other. Counts the request in. nullopt: none is ready.
  std::optional<Address> Pick(const std::set<Address>& avoid = {});
  void Release(const Address& address);  // of a Pick

  bool HasReady() const;
  bool IsReady(const Address& address) const;
  bool Has(const Address& address) const;
  size_t size() const;
  size_t ready() const;
  size_t in_flight() const;

 private:
  struct Replica {
    bool present = true;
    bool ready = false;
    size_t in_flight = 0;
    uint64_t picked = 0;  // when last, in picks
  };
  std::map<Address, Replica> replicas_;
  uint64_t picks_ = 0;
};

}  // namespace quern::gateway
