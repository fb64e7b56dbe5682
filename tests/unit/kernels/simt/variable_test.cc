#include "tests/unit/kernels/simt/stream_test_support.h"
#include "tests/unit/kernels/simt/variable_kernels.h"

namespace quern::kernels::testing {
namespace {

using simt::Fault;

std::vector<int> Table(int first) {
  std::vector<int> values(kTableInts);
  for (size_t i = 0; i < values.size(); ++i) values[i] = first + static_cast<int>(i);
  return values;
}

TEST(Variables, AreTheDevices) {
  for (uint64_t seed = 0; seed < kStreamSeeds; ++seed) {
    const WithOptions options(seed);
    const Stream stream;
    const DeviceArray<int> out(64);
    const std::vector<int> table = Table(3 + static_cast<int>(seed));
    ASSERT_EQ(ResetCalls(7), cudaSuccess);
    ASSERT_EQ(SetTable(table.data(), stream), cudaSuccess);
    ASSERT_EQ(UseTable(out.data(), stream), cudaSuccess);
    ASSERT_EQ(cudaStreamSynchronize(stream), cudaSuccess)
        << cudaGetErrorString(cudaErrorLaunchFailure);
    const std::vector<int> got = out.Read();
    for (size_t i = 0; i < 64; ++i) EXPECT_EQ(got[i], table[i % 8] * (i % 2 == 0 ? 1 : 10));
    int calls = 0;
    ASSERT_EQ(GetCalls(&calls), cudaSuccess);
    EXPECT_EQ(calls, 71);
  }
}

TEST(Variables, HaveTheirBounds) {
  const std::vector<int> table = Table(0);
  EXPECT_EQ(SetTooMuch(table.data()), cudaErrorInvalidValue);
  EXPECT_EQ(SetWhatIsNone(table.data()), cudaErrorInvalidSymbol);
}

TEST(Variables, AreCheckedForRaces) {
  for (uint64_t seed = 0; seed < kStreamSeeds; ++seed) {
    const WithOptions options(seed);
    ASSERT_EQ(CountBadly(), cudaErrorLaunchFailure);
    const simt::Error& error = simt::LastReport().errors.at(0);
    EXPECT_EQ(error.fault, Fault::kRace);
    EXPECT_NE(error.text.find("the variable quern::kernels::calls"), std::string::npos)
        << error.text;
  }
}

cudaError_t TableChangesWhileAnotherStreamUsesIt(bool faulty) {
  const Stream a;
  const Stream b;
  const DeviceArray<int> out(64);
  const std::vector<int> first = Table(0);
  const std::vector<int> second = Table(1);
  EXPECT_EQ(SetTableAndWait(first.data()), cudaSuccess);
  EXPECT_EQ(UseTable(out.data(), a), cudaSuccess);
  if (!faulty) Order(a, b);
  EXPECT_EQ(SetTable(second.data(), b), cudaSuccess);
  return cudaDeviceSynchronize();
}

TEST(Variables, AreCheckedBetweenStreams) {
  const HostFault fault{"TableChangesWhileAnotherStreamUsesIt",
                        Fault::kRace,
                        {"the variable quern::kernels::table", "cudaMemcpyAsync", "UseTableKernel"},
                        TableChangesWhileAnotherStreamUsesIt};
  ExpectFound(fault);
  ExpectNothing(fault);
}

}  // namespace
}  // namespace quern::kernels::testing
