// AppendKv and attention on a GPU, or on the emulator: fresh random inputs, poisoned caches and
// outputs, every format. `--seed N` repeats a run.

#include "tests/cuda/append_kv_cases.h"
#include "tests/cuda/attention_cases.h"
#include "tests/cuda/kv_test_support.h"

int main(int argc, char** argv) {
  using namespace quern::kernels::testing;
  uint64_t seed = std::random_device{}();
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--seed") == 0 && i + 1 < argc) {
      seed = std::strtoull(argv[++i], nullptr, 10);
    } else if (std::strcmp(argv[i], "--small") != 0) {  // all shapes are small
      Die("usage: attention_device_test [--small] [--seed N]");
    }
  }
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::printf("no GPU: nothing was tested\n");
    return 77;  // skipped
  }
  std::printf("seed %llu\n", static_cast<unsigned long long>(seed));
  std::mt19937_64 random(seed);
  TestAppendKv(random);
  TestAttention(random);
  std::printf("%d checks, %d failed\n", AllChecks().done, AllChecks().failed);
  return AllChecks().failed == 0 ? 0 : 1;
}
