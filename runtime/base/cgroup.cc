#include "runtime/base/cgroup.h"

#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <sstream>
#include <vector>

namespace quern {
namespace {

// v1 says "no limit" with a huge number, rounded to pages in ways that differ between kernels.
constexpr int64_t kNoMemoryLimit = int64_t{1} << 60;

std::vector<std::string> Split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::stringstream stream(text);
  for (std::string part; std::getline(stream, part, separator);) parts.push_back(part);
  return parts;
}

bool Contains(const std::string& list, const std::string& name) {
  const auto parts = Split(list, ',');
  return std::find(parts.begin(), parts.end(), name) != parts.end();
}

std::optional<int64_t> ParseInt(const std::string& text) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end == text.data()) return std::nullopt;
  return value;
}

std::string FirstLine(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

// A cgroup hierarchy as this process sees it: where it is mounted, and where the process is in it.
struct Hierarchy {
  std::string mount_point;
  std::string mount_root;  // the part of the hierarchy that the mount shows
  std::string path;        // the process's, from the hierarchy's root
};

// The process's path in the hierarchy with `controller`; empty name: the unified one (v2).
std::optional<std::string> FindPath(const std::string& root, const std::string& controller) {
  std::ifstream file(root + "/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    // id:controllers:path, and the path may contain colons.
    const size_t first = line.find(':');
    const size_t second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const bool match = controller.empty() ? controllers.empty() : Contains(controllers, controller);
    if (match) return line.substr(second + 1);
  }
  return std::nullopt;
}

std::optional<Hierarchy> FindHierarchy(const std::string& root, const std::string& controller) {
  const auto path = FindPath(root, controller);
  if (!path) return std::nullopt;
  std::ifstream file(root + "/proc/self/mountinfo");
  for (std::string line; std::getline(file, line);) {
    // proc(5): id parent major:minor root mount-point options [fields] - type source super-options
    const size_t dash = line.find(" - ");
    if (dash == std::string::npos) continue;
    const auto left = Split(line.substr(0, dash), ' ');
    const auto right = Split(line.substr(dash + 3), ' ');
    if (left.size() < 5 || right.size() < 3) continue;
    const bool match = controller.empty() ? right[0] == "cgroup2"
                                          : right[0] == "cgroup" && Contains(right[2], controller);
    if (match) return Hierarchy{root + left[4], left[3], *path};
  }
  return std::nullopt;
}

// Directories of the process's group and its ancestors, as far as the mount shows them.
std::vector<std::string> GroupDirectories(const Hierarchy& hierarchy) {
  std::string path = hierarchy.path;
  if (hierarchy.mount_root != "/" && path.rfind(hierarchy.mount_root, 0) == 0) {
    path = path.substr(hierarchy.mount_root.size());
  }
  std::vector<std::string> directories = {hierarchy.mount_point};
  std::string current = hierarchy.mount_point;
  for (const std::string& part : Split(path, '/')) {
    // ".." leads out of the namespace: those groups are not ours to see.
    if (part.empty() || part == "..") continue;
    current += "/" + part;
    directories.push_back(current);
  }
  return directories;
}

template <typename T>
void Tighten(std::optional<T>* limit, T value) {
  if (!*limit || value < **limit) *limit = value;
}

void ReadV2(const std::string& root, CgroupLimits* limits) {
  const auto hierarchy = FindHierarchy(root, "");
  if (!hierarchy) return;
  for (const std::string& directory : GroupDirectories(*hierarchy)) {
    // "max 100000" or "50000 100000": microseconds of CPU in each period.
    const auto cpu = Split(FirstLine(directory + "/cpu.max"), ' ');
    if (cpu.size() == 2) {
      const auto quota = ParseInt(cpu[0]);
      const auto period = ParseInt(cpu[1]);
      if (quota && period && *quota > 0 && *period > 0) {
        Tighten(&limits->cpus, static_cast<double>(*quota) / static_cast<double>(*period));
      }
    }
    const auto memory = ParseInt(FirstLine(directory + "/memory.max"));
    if (memory && *memory > 0) Tighten(&limits->memory_bytes, *memory);
  }
}

void ReadV1(const std::string& root, CgroupLimits* limits) {
  if (const auto cpu = FindHierarchy(root, "cpu")) {
    for (const std::string& directory : GroupDirectories(*cpu)) {
      const auto quota = ParseInt(FirstLine(directory + "/cpu.cfs_quota_us"));
      const auto period = ParseInt(FirstLine(directory + "/cpu.cfs_period_us"));
      if (quota && period && *quota > 0 && *period > 0) {
        Tighten(&limits->cpus, static_cast<double>(*quota) / static_cast<double>(*period));
      }
    }
  }
  if (const auto memory = FindHierarchy(root, "memory")) {
    for (const std::string& directory : GroupDirectories(*memory)) {
      const auto limit = ParseInt(FirstLine(directory + "/memory.limit_in_bytes"));
      if (limit && *limit > 0 && *limit < kNoMemoryLimit) Tighten(&limits->memory_bytes, *limit);
    }
  }
}

int64_t ReadKilobytes(const std::string& path, const std::string& key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (line.rfind(key, 0) != 0) continue;
    const size_t digits = line.find_first_of("0123456789");
    if (digits == std::string::npos) return 0;
    return ParseInt(line.substr(digits)).value_or(0) * 1024;
  }
  return 0;
}

}  // namespace

CgroupLimits ReadCgroupLimits(const std::string& root) {
  CgroupLimits limits;
  ReadV2(root, &limits);
  ReadV1(root, &limits);
  return limits;
}

double CpuQuota() {
  cpu_set_t set;
  CPU_ZERO(&set);
  double cpus = 1;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) {
    cpus = CPU_COUNT(&set);
  } else {
    // More processors than cpu_set_t has room for.
    cpus = static_cast<double>(std::max<int64_t>(1, sysconf(_SC_NPROCESSORS_ONLN)));
  }
  const CgroupLimits limits = ReadCgroupLimits();
  return limits.cpus ? std::min(cpus, *limits.cpus) : cpus;
}

int DefaultThreads() { return std::max(1, static_cast<int>(CpuQuota())); }

int64_t MemoryLimitBytes() {
  const int64_t machine =
      static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<int64_t>(sysconf(_SC_PAGESIZE));
  const CgroupLimits limits = ReadCgroupLimits();
  return limits.memory_bytes ? std::min(machine, *limits.memory_bytes) : machine;
}

int64_t MemoryAvailableBytes() { return ReadKilobytes("/proc/meminfo", "MemAvailable:"); }

std::string CpuModel() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    const size_t colon = line.find(": ");
    if (line.starts_with("model name") && colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown";
}

MemoryUse ProcessMemoryUse() {
  return {ReadKilobytes("/proc/self/status", "VmRSS:"),
          ReadKilobytes("/proc/self/status", "VmHWM:")};
}

double ProcessCpuSeconds() {
  rusage use{};
  getrusage(RUSAGE_SELF, &use);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) * 1e-6;
  };
  return seconds(use.ru_utime) + seconds(use.ru_stime);
}

}  // namespace quern
