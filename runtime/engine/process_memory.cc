#include "runtime/engine/process_memory.h"

#include "runtime/base/cgroup.h"

namespace quern {
ProcessMemory ReadProcessMemory(int32_t sharers) {
  ProcessMemory memory;
  memory.sharers = sharers;
  memory.limit_bytes = MemoryLimitBytes();
  const auto cgroup = ReadCgroupLimits().memory_bytes;
  memory.limited_by_cgroup = cgroup.has_value() && *cgroup == memory.limit_bytes;
  memory.limit_bytes /= sharers;
  memory.available_bytes = MemoryAvailableBytes() / sharers;
  memory.resident_bytes = ProcessMemoryUse().resident_bytes;
  return memory;
}

}  // namespace quern
