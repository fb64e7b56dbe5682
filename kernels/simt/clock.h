#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

// Vector clocks: what a thread knows of the others' progress (Lamport's happens-before, as Flanagan
// and Freund 2009, "FastTrack", use it to find races). A thread's epoch grows each time it lets
// others know of it: at a barrier, a __syncwarp or a fence. Whatever it did up to the epoch that
// another thread knows of is ordered before what that one does now.
namespace quern::simt {

using Epochs = std::vector<uint32_t>;  // [thread of a block]

// What is known of several blocks, by their number in the grid; never changed once shared.
using Blocks = std::map<uint32_t, std::shared_ptr<const Epochs>>;
using BlocksRef = std::shared_ptr<const Blocks>;

// What is known of one's own block, and of others through fences and atomics (null: nothing).
struct Clock {
  Epochs own;
  BlocksRef others;
};
using ClockRef = std::shared_ptr<const Clock>;

struct ThreadClock {
  ClockRef known;
  uint32_t epoch = 1;
  BlocksRef released;  // what the thread's atomics publish: all it knew at its last fence
  BlocksRef seen;      // what its atomics have read: known from its next fence on
};

// The union of both: for each thread the later epoch. Either may be null.
BlocksRef Join(const BlocksRef& a, const BlocksRef& b);

struct Participant {
  ThreadClock* clock;
  int thread;
};
// Everything that the participants did and knew, as one clock. Their own clocks are not changed.
ClockRef JoinParticipants(const std::vector<Participant>& participants);

// A fence: what the thread's atomics have seen becomes known; what it knows can be published.
void Fence(ThreadClock& clock, uint32_t block, int thread);

}  // namespace quern::simt
