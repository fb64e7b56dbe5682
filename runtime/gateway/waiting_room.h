#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "runtime/base/clock.h"

namespace quern::gateway {

struct WaitingLimits {
  size_t max_requests = 256;
  size_t max_bytes = size_t{64} << 20;  // of their bodies
  std::chrono::milliseconds max_wait{300'000};
};

// The requests that wait until a replica is ready: first come, first served, bounded in number, in
// bytes and in time. Pure: the time is passed in. Not thread-safe.
class WaitingRoom {
 public:
  explicit WaitingRoom(const WaitingLimits& limits) : limits_(limits) {}

  enum class Refusal { kRequests, kBytes };

  // `number`: the request's place in the order of arrival, unlike any other's; `arrived`: when it
  // first came, from which max_wait counts. nullopt: it waits now. One that has waited before and
  // comes back takes its old place, and is not refused: it had been let in.
  std::optional<Refusal> Enter(uint64_t number, size_t bytes, SteadyTime arrived,
                               bool comes_back = false);
  // Frees its place. Nothing if it does not wait.
  void Leave(uint64_t number);
  // The one that came first, whose place is free then.
  std::optional<uint64_t> TakeFirst();
  // Those that have waited for max_wait, the first first. Their places are free then.
  std::vector<uint64_t> TakeExpired(SteadyTime now);
  // When the next one will have. nullopt: nobody waits.
  std::optional<SteadyTime> NextExpiry() const;

  size_t size() const { return waiting_.size(); }
  size_t bytes() const { return bytes_; }

 private:
  struct Place {
    size_t bytes;
    SteadyTime arrived;
  };
  using Places = std::map<uint64_t, Place>;
  void Free(Places::iterator place);

  const WaitingLimits limits_;
  Places waiting_;
  size_t bytes_ = 0;
};

}  // namespace quern::gateway
