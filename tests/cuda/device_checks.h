#pragma once

#include "tests/cuda/device_support.h"

// Counting of checks, and the main function of a device test.
namespace quern::kernels::testing {

inline int checks_made = 0;
inline int checks_failed = 0;

inline void Expect(bool ok, const std::string& what) {
  ++checks_made;
  if (ok) return;
  ++checks_failed;
  std::printf("FAILED: %s\n", what.c_str());
}

// That `wrong`, a host function's answer, says something about `part`.
inline void ExpectRefusal(const std::string& wrong, const char* part) {
  Expect(wrong.find(part) != std::string::npos,
         std::string("expected an error about \"") + part + "\", got \"" + wrong + "\"");
}

// That the device's memory outside the `cols` of each of `rows` rows of `stride` still holds the
// bytes 0xff with which it was filled.
template <typename T>
void ExpectNothingOutside(const std::vector<T>& memory, int64_t rows, int64_t cols, int64_t stride,
                          const std::string& what) {
  T poison;
  std::memset(&poison, 0xff, sizeof(T));
  bool kept = true;
  for (size_t i = 0; i < memory.size(); ++i) {
    const auto at = static_cast<int64_t>(i);
    if (at / stride < rows && at % stride < cols) continue;
    kept = kept && std::memcmp(&memory[i], &poison, sizeof(T)) == 0;
  }
  Expect(kept, what + ": wrote outside");
}

template <typename T>
bool SameBits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

// `--small` leaves out what is too large for the emulator or compute-sanitizer; `--seed N` repeats
// a run.
inline int RunDeviceTest(int argc, char** argv, void (*run)(std::mt19937_64& random, bool small)) {
  bool small = false;
  uint64_t seed = std::random_device{}();
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--small") == 0) {
      small = true;
    } else if (std::strcmp(argv[i], "--seed") == 0 && i + 1 < argc) {
      seed = std::strtoull(argv[++i], nullptr, 10);
    } else {
      Die(std::string("usage: ") + argv[0] + " [--small] [--seed N]");
    }
  }
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::printf("no GPU: nothing was tested\n");
    return 77;  // skipped
  }
  std::printf("seed %llu\n", static_cast<unsigned long long>(seed));
  std::mt19937_64 random(seed);
  run(random, small);
  std::printf("%d checks, %d failed\n", checks_made, checks_failed);
  return checks_failed == 0 ? 0 : 1;
}

}  // namespace quern::kernels::testing
