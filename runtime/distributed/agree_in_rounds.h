#pragma once

#include <chrono>
#include <functional>
#include <optional>

#include "runtime/base/result.h"
#include "runtime/distributed/communicator.h"

namespace quern {

// Each rank does something of its own that may have to wait for the other ranks, and they ask each
// other again and again meanwhile whether one has failed: its error is that of all at once, as
// Agree's, and `late` that of a rank which is not done within `timeout`. `wait_until` waits until
// then at the latest and gives how it ended; nothing: it goes on. Also the group's own errors.
Status AgreeInRounds(
    Communicator& group, std::chrono::milliseconds timeout, const Error& late,
    const std::function<std::optional<Status>(std::chrono::steady_clock::time_point)>& wait_until);

}  // namespace quern
