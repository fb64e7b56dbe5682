#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "operator/autoscaling/windows.h"
#include "operator/simulation/gaps.h"
#include "operator/simulation/load.h"
#include "operator/simulation/prefix_cache.h"
#include "operator/simulation/profile.h"

namespace quern::simulation {

// What became of a request. Times are seconds of the simulation.
struct Outcome {
  double first_token = -1;
  double finish = -1;
  bool refused = false;  // it can never fit the KV cache
};

// A replica as the runtime schedules it: continuous batching, first come first served, with
// chunked prefill bounded by PrefillBudget; the sequence admitted last is preempted when the KV
// cache is full. Steps take as long as the profile's coefficients say. Differences from the
// runtime: no layered prefill, a prompt's KV space is taken as a whole at its admission, cached
// prefixes are shared in the trace's blocks and take no space of those that run.
//
// Time goes from event to event: steps in which nothing but decodes happens are taken together, in
// closed form. Not thread-safe.
class SimReplica {
 public:
  // `load`, `outcomes` (as long as the load) and `gaps` must outlive the replica.
  SimReplica(const ReplicaProfile& profile, const Load& load, std::vector<Outcome>& outcomes,
             GapHistogram& gaps);

  // A request arrives at its time, to which the replica has been advanced.
  void Add(uint32_t request);
  // Runs all steps that end by `time`.
  void AdvanceTo(double time) {
    if (time >= next_end_) Advance(time);
  }

  int64_t outstanding() const { return outstanding_; }
  int64_t running() const { return static_cast<int64_t>(prefilling_.size() + decoding_.size()); }
  int64_t waiting() const { return outstanding_ - running(); }
  const control::PodCounters& counters() const { return counters_; }
  // Requests in the replica, over time: seconds x requests from the start to `time`, to which the
  // replica has been advanced.
  double ActiveIntegral(double time) const {
    return finished_seconds_ + static_cast<double>(outstanding_) * time - outstanding_arrivals_;
  }
  double last_finish() const { return last_finish_; }
  int64_t preemptions() const { return preemptions_; }
  double busy_seconds() const { return busy_seconds_; }

 private:
  struct Waiting {
    uint32_t request;
    int32_t generated = 0;   // before it was preempted
    double last_token = -1;  // when it had its last token then
  };
  struct Active {
    Waiting from;
    uint64_t rank;  // order of admission
    int32_t prompt = 0;
    int32_t cached = 0;
    int64_t finish_clock = 0;  // the decode step after which it is finished
  };
  struct Chunk {
    size_t place;  // in prefilling_
    int32_t tokens;
  };

  void Advance(double time);
  bool Prefills() const;  // whether a step that begins now has prompt tokens in it
  void Plan();
  void Commit();
  void Admit();
  bool CanAdmit() const;
  void RunDecodes(double time);
  void MakeRoom();
  void Preempt();
  void AddGaps(double first, double growth, int64_t steps);
  void FinishDecodes();
  void Finish(uint32_t request);
  void StartDecoding(Active active);
  int64_t Held() const { return decode_context_ + reserved_; }

  const ReplicaProfile& profile_;
  const Load& load_;
  std::vector<Outcome>& outcomes_;
  GapHistogram& gaps_;
  double now_ = 0;       // when the next step begins, or began
  double next_end_ = 0;  // nothing changes before
  std::deque<Waiting> waiting_;
  std::vector<Active> prefilling_;  // in order of admission
  std::vector<Active> decoding_;    // a heap: the first to finish on top
  int64_t clock_ = 0;               // decode steps so far
  int64_t decode_context_ = 0;      // tokens of those that decode
  int64_t reserved_ = 0;            // tokens kept for those that prefill
  uint64_t next_rank_ = 0;
  PrefixCache prefixes_;
  // A step with prompt tokens that is under way.
  bool planned_ = false;
  double planned_seconds_ = 0;
  std::vector<Chunk> chunks_;

  int64_t outstanding_ = 0;
  double outstanding_arrivals_ = 0;
  double finished_seconds_ = 0;
  double last_finish_ = 0;
  double busy_seconds_ = 0;
  int64_t preemptions_ = 0;
  control::PodCounters counters_;
};

}  // namespace quern::simulation
