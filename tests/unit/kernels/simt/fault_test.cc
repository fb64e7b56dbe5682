#include <gtest/gtest.h>

#include <fstream>

#include "tests/unit/kernels/simt/fault_kernels.h"
#include "tests/unit/kernels/simt/simt_test_support.h"

// A check that has never fired may not be able to: each has kernels with a planted fault, which it
// must find under every seed, and say on which line it is, and the same kernels without the fault,
// of which it must say nothing.
namespace quern::kernels::testing {
namespace {

constexpr uint64_t kSeeds = 8;

class Faults : public ::testing::TestWithParam<FaultCase> {};

std::string LineOf(const std::string& file, int number) {
  std::ifstream in(file);
  std::string line;
  for (int i = 0; i < number; ++i) std::getline(in, line);
  return line;
}

simt::Options OptionsOf(uint64_t seed) { return {.seed = seed, .spin_limit = 10'000}; }

TEST_P(Faults, AreFoundUnderEverySeed) {
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    const WithOptions options(OptionsOf(seed));
    const DeviceArray<int> memory(std::vector<int>(kFaultInts, 0));
    ASSERT_EQ(GetParam().start(true, memory.data()), cudaErrorLaunchFailure) << "seed " << seed;
    const simt::Error& error = simt::LastReport().errors.at(0);
    EXPECT_STREQ(Name(error.fault), Name(GetParam().fault)) << error.text;
    for (const std::string& word : GetParam().says) {
      EXPECT_NE(error.text.find(word), std::string::npos) << word << " is not in: " << error.text;
    }
    EXPECT_NE(error.kernel.find(GetParam().name), std::string::npos) << error.text;
    EXPECT_NE(LineOf(error.file, error.line).find("// fault"), std::string::npos) << error.text;
  }
}

TEST_P(Faults, AreNotFoundWhereThereIsNone) {
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    const WithOptions options(OptionsOf(seed));
    const DeviceArray<int> memory(std::vector<int>(kFaultInts, 0));
    EXPECT_EQ(GetParam().start(false, memory.data()), cudaSuccess)
        << cudaGetErrorString(cudaErrorLaunchFailure);
  }
}

std::string NameOf(const ::testing::TestParamInfo<FaultCase>& info) { return info.param.name; }

INSTANTIATE_TEST_SUITE_P(Memory, Faults, ::testing::ValuesIn(MemoryFaults()), NameOf);
INSTANTIATE_TEST_SUITE_P(Order, Faults, ::testing::ValuesIn(OrderFaults()), NameOf);
INSTANTIATE_TEST_SUITE_P(Library, Faults, ::testing::ValuesIn(LibraryFaults()), NameOf);

// After a launch that failed, the next one starts afresh.
TEST(AfterAFault, TheNextLaunchIsUnharmed) {
  for (const FaultCase& one : OrderFaults()) {
    const DeviceArray<int> memory(std::vector<int>(kFaultInts, 0));
    const WithOptions options(OptionsOf(3));
    EXPECT_NE(one.start(true, memory.data()), cudaSuccess);
    EXPECT_EQ(OrderFaults()[0].start(false, memory.data()), cudaSuccess)
        << cudaGetErrorString(cudaErrorLaunchFailure);
  }
}

}  // namespace
}  // namespace quern::kernels::testing
