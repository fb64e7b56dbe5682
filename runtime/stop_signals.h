#pragma once

#include <functional>

namespace quern {

// Blocks SIGTERM and SIGINT in this thread and those begun later, and waits for them on a thread of
// its own: the first one calls `first`, the second ends the process at once with code 1. Call once,
// from main, before other threads start; what `first` uses lives as long as the process.
void WatchStopSignals(std::function<void()> first);

}  // namespace quern
