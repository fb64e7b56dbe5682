// An int8 KV cache against one of 16 bits, on the device and on the CPU.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "tests/unit/runtime/backend/cuda/cuda_models.h"
#include "tests/unit/runtime/backend/cuda/traffic.h"

namespace quern::testing {
namespace {

constexpr int kInt8Steps = 32;

// The root mean square over all rows, and that of the row that differs most.
std::pair<double, double> Differences(const AllLogits& a, const AllLogits& b) {
  double all = 0, most = 0;
  for (const auto& [at, logits] : a) {
    const std::vector<float>& others = b.at(at);
    double squares = 0;
    for (size_t i = 0; i < logits.size(); ++i) squares += std::pow(logits[i] - others[i], 2);
    squares /= static_cast<double>(logits.size());
    all += squares;
    most = std::max(most, squares);
  }
  return {std::sqrt(all / static_cast<double>(a.size())), std::sqrt(most)};
}

// The formats are the same on both: bytes with a binary16 scale for each 32. So the errors, which
// are those of the roundings, are as large: twice covers that they are others.
TEST(Int8Cache, IsAsFarOffAsOnTheCpu) {
  const uint64_t seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  const auto on_cuda = [&](KvDtype dtype) {
    const CudaOptions options{.activations = kernels::ActivationType::kF16, .threads = 1};
    return RunTraffic(*LoadOnCuda(SmallModel(), options, dtype).model, seed, kInt8Steps);
  };
  const auto on_cpu = [&](KvDtype dtype) {
    return RunTraffic(**SmallModel().Load(1, dtype), seed, kInt8Steps);
  };
  const auto [cuda, cuda_row] = Differences(on_cuda(KvDtype::kF16), on_cuda(KvDtype::kInt8));
  const auto [cpu, cpu_row] = Differences(on_cpu(KvDtype::kF16), on_cpu(KvDtype::kInt8));
  RecordProperty("ratio", std::to_string(cuda / cpu));
  RecordProperty("row_ratio", std::to_string(cuda_row / cpu_row));
  EXPECT_GT(cuda, 0) << "nothing is rounded";
  EXPECT_LE(cuda, 2 * cpu);
  EXPECT_LE(cuda_row, 3 * cpu_row);
}

}  // namespace
}  // namespace quern::testing
