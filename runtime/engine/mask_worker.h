#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <span>
#include <thread>
#include <vector>

#include "runtime/base/result.h"
#include "runtime/constraints/constraint.h"

namespace quern {

// What the logits of tokens that a constraint forbids are set to: finite, as the sampler wants it,
// and still so after any penalty; its exp is 0 beside every logit of a model.
inline constexpr float kForbiddenLogit = -1e30f;

// Computes the token masks of a step's constrained sequences on a thread of its own, while the step
// loop's thread is in Model::Forward. The thread starts with the first mask. Its members are called
// by one thread.
class MaskWorker {
 public:
  MaskWorker() = default;
  ~MaskWorker();
  MaskWorker(const MaskWorker&) = delete;
  MaskWorker& operator=(const MaskWorker&) = delete;

  // Begins with the masks of `constraints`, which nobody else may touch until Wait. A null stands
  // for a sequence without. Nothing of an earlier Begin may be left.
  void Begin(std::span<Constraint* const> constraints);
  // Returns when all masks are there.
  void Wait();
  // After Wait: forbids in `logits` [at least the constraint's vocabulary; what is beyond it is
  // forbidden, too] what the mask of constraint `index` does; or why there is no mask.
  Status Apply(size_t index, std::span<float> logits) const;

 private:
  struct Job {
    Constraint* constraint = nullptr;
    std::vector<uint32_t> mask;
    Status status;
  };

  void Run();

  std::vector<Job> jobs_;  // the worker's between Begin and the end of Wait
  bool begun_ = false;
  std::thread thread_;

  std::mutex mutex_;
  std::condition_variable changed_;
  bool work_ = false;  // Begin: true; done: false
  bool stop_ = false;
};

}  // namespace quern
