#pragma once

#include <string>

#include "kernels/simt/runtime/task.h"

// Page-locked memory of the host's, in pages of its own. While an asynchronous copy uses such pages
// in whole, they cannot be written (a copy to the device) or touched at all (one to the host): who
// does it all the same is found by the signal. On other memory, and on pages in part, GuardPinned
// does nothing. With the scheduler's lock.
namespace quern::simt {

void* AllocatePinned(size_t bytes);
// The bytes that were asked for; nothing if this is no such memory.
Rows FindPinned(const void* memory);
void FreePinned(void* memory);

// False if nothing is guarded.
bool GuardPinned(const Rows& rows, HostUse use, const Task& task);
// Ends that. "" or what the host did in the meantime, and where: "was read at x.cc:12".
std::string UnguardPinned(const Task& task);

}  // namespace quern::simt
