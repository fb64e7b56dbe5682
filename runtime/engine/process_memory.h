#pragma once

#include <cstdint>
#include <string>

namespace quern {

// What the memory of this process is limited to, and how much of it is taken; or a GPU's.
struct ProcessMemory {
  int64_t limit_bytes =
      0;  // the cgroup's, or the machine's memory where there is no lower one; 0: unknown
  bool limited_by_cgroup = false;
  bool on_device = false;  // a GPU's: `resident_bytes` are everybody's on it
  int64_t available_bytes =
      0;  // of the machine, as the kernel estimates it (MemAvailable); 0: unknown
  int64_t resident_bytes = 0;  // of this process
  // Processes that share the limit, and what the machine has left, evenly: both are a share.
  int32_t sharers = 1;
};

// Reads /proc and the cgroup file system. What cannot be read stays 0.
ProcessMemory ReadProcessMemory(int32_t sharers = 1);

}  // namespace quern
