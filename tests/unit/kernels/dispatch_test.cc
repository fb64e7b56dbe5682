#include <cstdlib>

#include "tests/unit/kernels/kernel_test_support.h"

namespace quern::kernels::testing {
namespace {

// Restores the variable that the tests of the whole run may be steered by.
class Dispatch : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const char* value = std::getenv("QUERN_CPU_ISA")) before_ = value;
  }
  void TearDown() override {
    if (before_.empty()) {
      unsetenv("QUERN_CPU_ISA");
    } else {
      setenv("QUERN_CPU_ISA", before_.c_str(), 1);
    }
  }
  std::string before_;
};

TEST_F(Dispatch, TakesTheBestThatTheProcessorHas) {
  unsetenv("QUERN_CPU_ISA");
  const char* error = nullptr;
  const CpuKernels* kernels = SelectCpuKernels(&error);
  ASSERT_NE(kernels, nullptr);
  EXPECT_EQ(error, nullptr);
  EXPECT_EQ(kernels->isa, RunnableIsas().back());
}

TEST_F(Dispatch, TheEnvironmentCanAskForLess) {
  setenv("QUERN_CPU_ISA", "scalar", 1);
  const char* error = nullptr;
  const CpuKernels* kernels = SelectCpuKernels(&error);
  ASSERT_NE(kernels, nullptr);
  EXPECT_EQ(kernels->isa, CpuIsa::kScalar);
}

TEST_F(Dispatch, AnUnknownInstructionSetIsAnErrorThatNamesTheChoices) {
  setenv("QUERN_CPU_ISA", "mmx", 1);
  const char* error = nullptr;
  EXPECT_EQ(SelectCpuKernels(&error), nullptr);
  ASSERT_NE(error, nullptr);
  EXPECT_NE(std::string(error).find("scalar, avx2 or avx512"), std::string::npos);
}

}  // namespace
}  // namespace quern::kernels::testing
