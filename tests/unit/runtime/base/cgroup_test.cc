#include "runtime/base/cgroup.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

namespace quern {
namespace {

// A /proc and /sys made by hand.
class Cgroup : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = std::filesystem::temp_directory_path() / "quern-cgroup-XXXXXX";
    root_ = mkdtemp(pattern.data());
  }
  void TearDown() override { std::filesystem::remove_all(root_); }

  void Write(const std::string& path, const std::string& text) {
    std::filesystem::create_directories(std::filesystem::path(root_ + path).parent_path());
    std::ofstream(root_ + path) << text;
  }

  std::string root_;
};

TEST_F(Cgroup, V2InAContainerOfItsOwnNamespace) {
  Write("/proc/self/cgroup", "0::/\n");
  Write("/proc/self/mountinfo", "30 23 0:26 / /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw\n");
  Write("/sys/fs/cgroup/cpu.max", "50000 100000\n");
  Write("/sys/fs/cgroup/memory.max", "536870912\n");
  const CgroupLimits limits = ReadCgroupLimits(root_);
  EXPECT_EQ(limits.cpus, 0.5);
  EXPECT_EQ(limits.memory_bytes, 536870912);
}

TEST_F(Cgroup, V2TakesTheTightestOfTheAncestors) {
  Write("/proc/self/cgroup", "0::/kubepods/pod1/box\n");
  Write("/proc/self/mountinfo", "30 23 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw\n");
  Write("/sys/fs/cgroup/kubepods/cpu.max", "400000 100000\n");
  Write("/sys/fs/cgroup/kubepods/pod1/cpu.max", "150000 100000\n");
  Write("/sys/fs/cgroup/kubepods/pod1/memory.max", "1000000\n");
  Write("/sys/fs/cgroup/kubepods/pod1/box/cpu.max", "max 100000\n");
  Write("/sys/fs/cgroup/kubepods/pod1/box/memory.max", "2000000\n");
  const CgroupLimits limits = ReadCgroupLimits(root_);
  EXPECT_EQ(limits.cpus, 1.5);
  EXPECT_EQ(limits.memory_bytes, 1000000);
}

TEST_F(Cgroup, V1WithControllersMountedTogetherAndAContainersRoot) {
  Write("/proc/self/cgroup",
        "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n1:name=systemd:/x\n");
  Write("/proc/self/mountinfo",
        "40 30 0:30 /docker/abc /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct\n"
        "41 30 0:31 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n");
  Write("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "200000\n");
  Write("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n");
  Write("/sys/fs/cgroup/memory/memory.limit_in_bytes", "123456789\n");
  const CgroupLimits limits = ReadCgroupLimits(root_);
  EXPECT_EQ(limits.cpus, 2.0);
  EXPECT_EQ(limits.memory_bytes, 123456789);
}

TEST_F(Cgroup, V1WithoutLimits) {
  Write("/proc/self/cgroup", "4:memory:/\n1:cpu:/\n");
  Write("/proc/self/mountinfo",
        "40 30 0:30 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
        "41 30 0:31 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n");
  Write("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n");
  Write("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
  Write("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
  const CgroupLimits limits = ReadCgroupLimits(root_);
  EXPECT_FALSE(limits.cpus);
  EXPECT_FALSE(limits.memory_bytes);
}

TEST_F(Cgroup, HybridReadsBoth) {
  Write("/proc/self/cgroup", "2:cpu:/box\n1:memory:/box\n0::/box\n");
  Write("/proc/self/mountinfo",
        "40 30 0:30 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
        "41 30 0:31 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
        "42 30 0:32 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n");
  Write("/sys/fs/cgroup/cpu/box/cpu.cfs_quota_us", "25000\n");
  Write("/sys/fs/cgroup/cpu/box/cpu.cfs_period_us", "100000\n");
  Write("/sys/fs/cgroup/unified/box/memory.max", "777\n");
  const CgroupLimits limits = ReadCgroupLimits(root_);
  EXPECT_EQ(limits.cpus, 0.25);
  EXPECT_EQ(limits.memory_bytes, 777);
}

TEST_F(Cgroup, NonsenseCountsAsNoLimit) {
  EXPECT_FALSE(ReadCgroupLimits(root_).cpus);  // nothing there
  Write("/proc/self/cgroup", "nonsense\n0::/../../x\n:::\n");
  Write("/proc/self/mountinfo", "short line\n30 23 0:26 / /cg rw - cgroup2 cgroup2 rw\n - \n");
  Write("/cg/cpu.max", "many 100000\n");
  Write("/cg/memory.max", "-5\n");
  EXPECT_FALSE(ReadCgroupLimits(root_).cpus);
  EXPECT_FALSE(ReadCgroupLimits(root_).memory_bytes);
}

TEST(CpuQuota, IsPositiveAndGivesAtLeastOneThread) {
  EXPECT_GT(CpuQuota(), 0);
  EXPECT_GE(DefaultThreads(), 1);
  EXPECT_LE(DefaultThreads(), std::max(1.0, CpuQuota()));
}

TEST(ProcessCpu, GrowsWithWork) {
  const double before = ProcessCpuSeconds();
  EXPECT_GT(before, 0);
  for (volatile int i = 0; ProcessCpuSeconds() <= before;) i = i + 1;
}

TEST(MemoryLimit, ThisProcessFitsInIt) {
  EXPECT_GT(ProcessMemoryUse().resident_bytes, 0);
  EXPECT_GE(ProcessMemoryUse().peak_resident_bytes, ProcessMemoryUse().resident_bytes / 2);
  EXPECT_GT(MemoryLimitBytes(), ProcessMemoryUse().resident_bytes);
}

}  // namespace
}  // namespace quern
