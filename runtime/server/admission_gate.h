#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

namespace quern::server {

// Bounds what the server holds of requests that the engine does not know yet: those whose bodies
// are being parsed, rendered and encoded. (The engine bounds its own queue.) Where there are
// tenants, none gets more while it holds as much as is left (dynamic thresholds; Choudhury and
// Hahne 1998): one alone holds half, two a third each, and those that flood shut out no other.
// Thread-safe.
class AdmissionGate {
 public:
  AdmissionGate(size_t max_requests, size_t max_bytes)
      : max_requests_(max_requests), max_bytes_(max_bytes) {}

  // A place in the gate, given back when the last copy goes. The gate outlives it.
  using Ticket = std::shared_ptr<void>;

  struct Entry {
    Ticket ticket;              // null when one more request, or its bytes, would exceed a bound
    bool tenant_limit = false;  // that bound is the tenant's own
  };

  // `tenant`: its name; "" where no keys are used, for which only the gate's own bounds hold. One
  // request alone, of all or of its tenant, is bounded in bytes by the body's own limit instead.
  Entry TryEnter(const std::string& tenant, size_t bytes) {
    std::lock_guard lock(mutex_);
    if (!tenant.empty()) {
      const auto held = tenants_.find(tenant);
      if (held != tenants_.end() && HoldsAsMuchAsIsLeft(held->second, bytes)) {
        return {nullptr, true};
      }
    }
    if (all_.requests >= max_requests_ || (all_.requests > 0 && all_.bytes + bytes > max_bytes_)) {
      return {};
    }
    all_.Add(bytes);
    if (!tenant.empty()) tenants_[tenant].Add(bytes);
    return {Ticket(this, [tenant, bytes](void* gate) {
      static_cast<AdmissionGate*>(gate)->Leave(tenant, bytes);
    })};
  }

  // Waits until nobody is in the gate, at most `timeout`; whether that came.
  bool WaitUntilEmpty(std::chrono::milliseconds timeout) const {
    std::unique_lock lock(mutex_);
    return left_.wait_for(lock, timeout, [this] { return all_.requests == 0; });
  }

 private:
  struct Held {
    size_t requests = 0;
    size_t bytes = 0;
    void Add(size_t more) {
      ++requests;
      bytes += more;
    }
    void Remove(size_t fewer) {
      --requests;
      bytes -= fewer;
    }
  };

  bool HoldsAsMuchAsIsLeft(const Held& held, size_t bytes) const {
    return held.requests + all_.requests >= max_requests_ ||
           held.bytes + all_.bytes + bytes > max_bytes_;
  }
  void Leave(const std::string& tenant, size_t bytes) {
    std::lock_guard lock(mutex_);
    all_.Remove(bytes);
    if (const auto held = tenants_.find(tenant); held != tenants_.end()) {
      held->second.Remove(bytes);
      if (held->second.requests == 0) tenants_.erase(held);
    }
    left_.notify_all();
  }

  const size_t max_requests_;
  const size_t max_bytes_;
  mutable std::mutex mutex_;
  mutable std::condition_variable left_;
  Held all_;
  std::map<std::string, Held> tenants_;  // those that hold something
};

}  // namespace quern::server
