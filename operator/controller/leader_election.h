#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>

#include "operator/kube/client.h"
#include "runtime/base/clock.h"
#include "runtime/base/result.h"

namespace quern::control {

using kube::json;

struct LeaderElectionOptions {
  std::string ns;
  std::string name;      // of the Lease
  std::string identity;  // of this candidate: unique, such as the pod's name and a random part
  std::chrono::milliseconds lease_duration{15'000};
  std::chrono::milliseconds renew_deadline{10'000};  // must be shorter
  std::chrono::milliseconds retry_period{2'000};     // must be shorter still
  bool release_on_exit = true;
};

// How long one call for the lease may take at most: a quarter of the renew deadline, so that one
// that hangs (a connection that is half dead) leaves time for another attempt. The client that is
// given to LeaderElector should be made with it, and be its own: others' calls may be slow for good
// reasons.
std::chrono::milliseconds LeaseCallTimeout(const LeaderElectionOptions& options);

// One of several candidates leads: the one that holds a Lease (coordination.k8s.io/v1). As in
// client-go, a holder is judged by when this process last saw the lease change, never by the times
// written in it, so clocks of different machines may differ. It is no fence: a leader that is
// stopped (SIGSTOP, a long pause) past its lease may still finish what it had begun, so writes must
// stand being done twice.
class LeaderElector {
 public:
  // Errors, at Run: kInvalidArgument for options that cannot work.
  LeaderElector(kube::Client& client, LeaderElectionOptions options,
                const Clock& clock = RealClock());

  // Waits for the lead, then calls `lead` with a token that asks it to stop when the lead is lost
  // or `stop` is asked for, and renews meanwhile on a thread of its own. Returns when `lead` has
  // returned: success when stopped from outside (the lease is then released), kUnavailable when the
  // lead was lost: the process should then end and start afresh.
  Status Run(std::stop_token stop, const std::function<void(std::stop_token)>& lead);

  // One attempt: true when this candidate holds the lease afterwards. What Run repeats; for tests.
  Result<bool> TryAcquireOrRenew();
  // Gives the lease up, when held, so that the next need not wait.
  Status Release();

  bool IsLeader() const { return leader_.load(); }
  // Who holds the lease, as last seen; "" where nobody. Any thread.
  std::string Holder() const;

 private:
  Status CheckOptions() const;
  json MakeSpec(const json& before) const;
  bool HeldByAnother(const json& spec);
  void Observe(const json& spec);
  bool Acquire(std::stop_token stop);
  void Renew(std::stop_token stop);
  void LoseWhenOverdue(std::stop_token stop, std::stop_source& lost);

  kube::Client& client_;
  const LeaderElectionOptions options_;
  const Clock& clock_;
  std::atomic<bool> leader_{false};
  mutable std::mutex mutex_;
  json observed_;             // the lease's spec as last seen
  SteadyTime observed_at_{};  // when it was last seen to change
  std::condition_variable_any renewed_;
  SteadyTime held_since_{};  // the start of the last attempt that succeeded (real clock)
  std::string holder_;
};

}  // namespace quern::control
