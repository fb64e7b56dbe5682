// AppendKv, RotateHeads and attention on a GPU, or on the emulator: fresh random inputs, poisoned
// caches and outputs, every format. `--seed N` repeats a run; all shapes are small.

#include "tests/cuda/append_kv_cases.h"
#include "tests/cuda/attention_cases.h"
#include "tests/cuda/device_checks.h"
#include "tests/cuda/rotate_heads_cases.h"

namespace quern::kernels::testing {
namespace {

void RunAll(std::mt19937_64& random, bool /*small*/) {
  TestAppendKv(random);
  TestRotateHeads(random);
  TestAttention(random);
}

}  // namespace
}  // namespace quern::kernels::testing

int main(int argc, char** argv) {
  return quern::kernels::testing::RunDeviceTest(argc, argv, quern::kernels::testing::RunAll);
}
