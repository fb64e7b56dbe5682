#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace quern {

// What this process may use of the machine, from its control groups (cgroup v1, v2, or both mounted
// side by side), which is how a container's limits arrive. The tightest limit of the group and its
// ancestors counts.
struct CgroupLimits {
  std::optional<double> cpus;           // CPU seconds a second; none: no quota
  std::optional<int64_t> memory_bytes;  // none: no limit
};

// Reads them anew. `root` is put before /proc and /sys paths, for tests. Files that are missing or
// not understood count as no limit.
CgroupLimits ReadCgroupLimits(const std::string& root = "");

// CPUs that this process may keep busy: its quota, at most the processors that it may be scheduled
// on.
double CpuQuota();

// CpuQuota() in whole threads, rounded down so that they are not throttled, and at least 1.
int DefaultThreads();

// Bytes of memory that this process may use: the cgroup's limit, at most the machine's memory.
int64_t MemoryLimitBytes();

// Bytes that the machine could still give without swapping (MemAvailable); 0 where unknown.
int64_t MemoryAvailableBytes();

// The processor, as the kernel names it; "unknown" where it does not.
std::string CpuModel();

// Bytes that the kernel charges to this process now, and the most it ever did (VmRSS and VmHWM). 0
// where unknown.
struct MemoryUse {
  int64_t resident_bytes = 0;
  int64_t peak_resident_bytes = 0;
};
MemoryUse ProcessMemoryUse();

// Processor time that all threads of this process have taken so far, in seconds.
double ProcessCpuSeconds();

}  // namespace quern
