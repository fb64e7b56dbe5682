#include "runtime/engine/process_memory.h"

#include <fstream>
#include <string>

#include "runtime/base/cgroup.h"

namespace quern {
namespace {

int64_t ReadMemAvailable() {
  std::ifstream file("/proc/meminfo");
  std::string key;
  for (int64_t kibibytes = 0; file >> key >> kibibytes; file.ignore(256, '\n')) {
    if (key == "MemAvailable:") return kibibytes * 1024;
  }
  return 0;
}

}  // namespace

ProcessMemory ReadProcessMemory() {
  ProcessMemory memory;
  memory.limit_bytes = MemoryLimitBytes();
  const auto cgroup = ReadCgroupLimits().memory_bytes;
  memory.limited_by_cgroup = cgroup.has_value() && *cgroup == memory.limit_bytes;
  memory.available_bytes = ReadMemAvailable();
  memory.resident_bytes = ProcessMemoryUse().resident_bytes;
  return memory;
}

}  // namespace quern
