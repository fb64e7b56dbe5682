#pragma once

#include <functional>
#include <memory>

#include "runtime/distributed/communicator.h"
#include "runtime/model/model.h"

namespace quern {

// A model that is split over the processes of a group. On rank 0 it is a Model like any other: what
// it is asked to do, it sends to the other ranks, and all do it together. They follow.
//
// Every error but one of loading, ReserveSteps and AllocateKv is final, as the group's are: ranks
// of which one has failed are out of step. What to do then is to end the process.

// Loads one rank's part: Model::Load with ModelOptions::group.
using LoadPart = std::function<Result<std::unique_ptr<Model>>()>;

// Rank 0's: every rank loads its part. An error of another rank's says whose. `on_lost` is called
// once, by the thread that uses the model, when the others can no longer be worked with.
// `group` outlives the model, which at its end has the others let theirs go; one at a time.
Result<std::unique_ptr<Model>> LoadParallelModel(Communicator& group, const LoadPart& load,
                                                 std::function<void(const Error&)> on_lost);

// The other ranks': does what rank 0 asks for, until that ends the group with EndFollowers (ok) or
// is lost.
Status FollowParallelModel(Communicator& group, const LoadPart& load);

// Rank 0's, without a model: the others' FollowParallelModel returns.
Status EndFollowers(Communicator& group);

}  // namespace quern
