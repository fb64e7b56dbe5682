#include "runtime/engine/process_memory.h"

#include "runtime/base/cgroup.h"

namespace quern {
ProcessMemory ReadProcessMemory() {
  ProcessMemory memory;
  memory.limit_bytes = MemoryLimitBytes();
  const auto cgroup = ReadCgroupLimits().memory_bytes;
  memory.limited_by_cgroup = cgroup.has_value() && *cgroup == memory.limit_bytes;
  memory.available_bytes = MemoryAvailableBytes();
  memory.resident_bytes = ProcessMemoryUse().resident_bytes;
  return memory;
}

}  // namespace quern
