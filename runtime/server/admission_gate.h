#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <memory>
#include <mutex>
#include <optional>

namespace quern::server {

// Bounds what the server holds of requests that the engine does not know yet: those whose bodies
// are being parsed, rendered and encoded. (The engine bounds its own queue.) Thread-safe.
class AdmissionGate {
 public:
  AdmissionGate(size_t max_requests, size_t max_bytes)
      : max_requests_(max_requests), max_bytes_(max_bytes) {}

  // A place in the gate, given back when the last copy goes. The gate outlives it.
  using Ticket = std::shared_ptr<void>;

  // Null when one more request, or its `bytes`, would exceed a bound. One request alone may always
  // enter, however large: the body's own limit bounds it.
  Ticket TryEnter(size_t bytes) {
    std::lock_guard lock(mutex_);
    if (requests_ >= max_requests_ || (requests_ > 0 && bytes_ + bytes > max_bytes_))
      return nullptr;
    ++requests_;
    bytes_ += bytes;
    return Ticket(this, [bytes](void* gate) { static_cast<AdmissionGate*>(gate)->Leave(bytes); });
  }

  // Waits until nobody is in the gate, at most `timeout`; whether that came.
  bool WaitUntilEmpty(std::chrono::milliseconds timeout) const {
    std::unique_lock lock(mutex_);
    return left_.wait_for(lock, timeout, [this] { return requests_ == 0; });
  }

 private:
  void Leave(size_t bytes) {
    std::lock_guard lock(mutex_);
    --requests_;
    bytes_ -= bytes;
    left_.notify_all();
  }

  const size_t max_requests_;
  const size_t max_bytes_;
  mutable std::mutex mutex_;
  mutable std::condition_variable left_;
  size_t requests_ = 0;
  size_t bytes_ = 0;
};

}  // namespace quern::server
