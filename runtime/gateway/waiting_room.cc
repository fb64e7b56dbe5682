#include "runtime/gateway/waiting_room.h"

#include <algorithm>

namespace quern::gateway {

std::optional<WaitingRoom::Refusal> WaitingRoom::Enter(uint64_t number, size_t bytes,
                                                       SteadyTime arrived, bool comes_back) {
  if (!comes_back) {
    if (waiting_.size() >= limits_.max_requests) return Refusal::kRequests;
    if (bytes > limits_.max_bytes || bytes_ > limits_.max_bytes - bytes) return Refusal::kBytes;
  }
  if (waiting_.emplace(number, Place{bytes, arrived}).second) bytes_ += bytes;
  return std::nullopt;
}

void WaitingRoom::Free(Places::iterator place) {
  bytes_ -= place->second.bytes;
  waiting_.erase(place);
}

void WaitingRoom::Leave(uint64_t number) {
  const auto place = waiting_.find(number);
  if (place != waiting_.end()) Free(place);
}

std::optional<uint64_t> WaitingRoom::TakeFirst() {
  if (waiting_.empty()) return std::nullopt;
  const uint64_t number = waiting_.begin()->first;
  Free(waiting_.begin());
  return number;
}

std::vector<uint64_t> WaitingRoom::TakeExpired(SteadyTime now) {
  std::vector<uint64_t> expired;
  // Numbers ascend with the time of arrival.
  while (!waiting_.empty() && waiting_.begin()->second.arrived + limits_.max_wait <= now) {
    expired.push_back(waiting_.begin()->first);
    Free(waiting_.begin());
  }
  return expired;
}

std::optional<SteadyTime> WaitingRoom::NextExpiry() const {
  if (waiting_.empty()) return std::nullopt;
  return waiting_.begin()->second.arrived + limits_.max_wait;
}

}  // namespace quern::gateway
