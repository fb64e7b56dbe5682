#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "runtime/base/clock.h"
#include "runtime/base/result.h"
#include "runtime/constraints/constraint.h"

namespace quern {

// What the logits of tokens that a constraint forbids are set to: finite, as the sampler wants it,
// and still so after any penalty; its exp is 0 beside every logit of a model.
inline constexpr float kForbiddenLogit = -1e30f;

// The mask of one sequence's next token. Its owner keeps it from token to token. From Begin until
// it is ready the worker alone may touch it and its constraint; it may be let go of at any time.
struct MaskJob {
  MaskJob(std::shared_ptr<Constraint> its_constraint, std::string its_tenant)
      : constraint(std::move(its_constraint)), tenant(std::move(its_tenant)) {}

  const std::shared_ptr<Constraint> constraint;
  const std::string tenant;      // whose turn it takes
  std::function<void()> before;  // called first, on the worker's thread; tests hold it there

  // The worker's.
  enum class State { kIdle, kWanted, kReady };
  State state = State::kIdle;
  std::vector<uint32_t> mask;
  Status status;
};

// Computes the token masks of a step's constrained sequences on a thread of its own, while the step
// loop's thread is in Model::Forward. A mask is mostly a matter of microseconds, but a grammar that
// was made for it takes more than ten milliseconds for each (ConstraintLimits). So that this is not
// what every stream of the batch waits for, the step waits for late masks a bounded time only: the
// sequences that they belong to sit the step out, and the masks are ready in a later one. Tenants
// take turns, so that one's many slow masks delay another's mask by one of them at most.
//
// The thread starts with the first mask. Its members are called by one thread.
class MaskWorker {
 public:
  explicit MaskWorker(const Clock& clock = RealClock()) : clock_(clock) {}
  ~MaskWorker();
  MaskWorker(const MaskWorker&) = delete;
  MaskWorker& operator=(const MaskWorker&) = delete;

  // Begins with the masks of `rows`, which stay alive until the next Begin or the last Apply. A
  // null stands for a sequence without. A mask that an earlier step did not wait for goes on.
  void Begin(std::span<const std::shared_ptr<MaskJob>> rows);
  // Returns when all masks are there; after `patience`, when some row can go on: one that is ready
  // or has no mask, or, where `others`, any that the caller knows of.
  void Wait(std::chrono::milliseconds patience, bool others);
  // After Wait: whether the row has its mask, or none. It is used up by this step.
  bool Ready(size_t row) const { return rows_[row].ready; }
  // Forbids in `logits` [at least the constraint's vocabulary; what is beyond it is forbidden, too]
  // what the mask of a row that is ready does; or why there is no mask.
  Status Apply(size_t row, std::span<float> logits) const;
  // Whether the mask of a row that is ready allows none but `tokens`.
  bool AllowsOnly(size_t row, std::span<const int32_t> tokens) const;

 private:
  struct Row {
    MaskJob* job = nullptr;
    bool ready = false;
  };

  void Run();
  std::shared_ptr<MaskJob> TakeNext();

  const Clock& clock_;
  std::vector<Row> rows_;
  bool begun_ = false;
  std::thread thread_;

  std::mutex mutex_;  // of the rest, and of MaskJob::state
  std::condition_variable wanted_;
  std::condition_variable ready_;
  // By tenant; none is empty. A job that was let go of is passed over.
  std::map<std::string, std::deque<std::weak_ptr<MaskJob>>> queues_;
  std::deque<std::string> turns_;  // each tenant of queues_ once
  bool stop_ = false;
};

}  // namespace quern
