#include <functional>

#include "quern/kernels/gguf_matmul.h"
#include "tests/unit/kernels/kernel_test_support.h"
#include "tests/unit/kernels/simt/simt_test_support.h"

// Every implementation of the product with GGUF's types against the oracle. Shapes and types in
// their breadth are the device test's, which runs on the emulator, too.
namespace quern::kernels::testing {
namespace {

struct Layer {
  WeightType type;
  int64_t rows, cols;
  std::vector<uint8_t> source;
};
// y [batch][layer.rows] from x [batch][layer.cols].
using Implementation =
    std::function<std::vector<float>(const Layer&, const std::vector<float>& x, int64_t batch)>;

std::vector<float> OnCpu(CpuIsa isa, const Layer& layer, const std::vector<float>& x,
                         int64_t batch) {
  const CpuKernels& kernels = CpuKernelsFor(isa);
  const Packed packed = Pack(layer.type, kernels.lanes, layer.rows, layer.cols, layer.source);
  const Quantized quantized(kernels, x, batch, layer.cols);
  std::vector<float> y(static_cast<size_t>(batch * layer.rows));
  kernels.matmul(
      {&packed.matrix, &quantized.view, x.data(), layer.cols, batch, y.data(), layer.rows}, 0,
      packed.matrix.tiles());
  return y;
}

std::vector<float> OnCuda(const Layer& layer, const std::vector<float>& x, int64_t batch) {
  GgufMatrix w{layer.type, layer.rows, layer.cols, nullptr};
  std::vector<uint8_t> packed(static_cast<size_t>(GgufBytes(w)));
  PackGgufTiles(w, layer.source.data(), 0, w.row_tiles(), packed.data());
  const DeviceArray<uint8_t> data(packed);
  w.data = data.data();
  std::vector<uint16_t> bits;
  for (float value : x) bits.push_back(FloatToHalf(value));
  const DeviceArray<uint16_t> device_x(bits);
  const DeviceArray<uint16_t> y(static_cast<size_t>(batch * layer.rows));
  EXPECT_EQ(GgufMatMul(
                {w, ActivationType::kF16, device_x.data(), layer.cols, y.data(), layer.rows, batch},
                nullptr),
            "");
  std::vector<float> result;
  for (uint16_t value : y.Read()) result.push_back(HalfToFloat(value));
  return result;
}

TEST(Gguf, EveryImplementationAgreesWithTheReference) {
  std::vector<std::pair<std::string, Implementation>> all = {{"CUDA", OnCuda}};
  for (CpuIsa isa : RunnableIsas()) {
    all.emplace_back(CpuKernelsFor(isa).name,
                     [isa](const Layer& layer, const std::vector<float>& x, int64_t batch) {
                       return OnCpu(isa, layer, x, batch);
                     });
  }
  std::mt19937 random(std::random_device{}());
  for (WeightType type : {WeightType::kQ4_0, WeightType::kQ4_1, WeightType::kQ5_0,
                          WeightType::kQ8_0, WeightType::kQ4_K, WeightType::kQ6_K}) {
    constexpr int64_t kBatch = 3;
    const Layer layer{type, 37, 512, RandomWeights(random, type, 37, 512)};
    std::vector<float> x = RandomFloats(random, kBatch * 512);
    for (float& value : x) value = HalfToFloat(FloatToHalf(value));  // what all of them can take
    std::vector<float> expected(static_cast<size_t>(kBatch * layer.rows));
    ref::MatMul(type, layer.source.data(), layer.rows, layer.cols, x.data(), kBatch,
                expected.data());
    for (const auto& [name, run] : all) {
      const std::vector<float> y = run(layer, x, kBatch);
      for (int64_t i = 0; i < kBatch * layer.rows; ++i) {
        const auto exact = static_cast<double>(expected[static_cast<size_t>(i)]);
        // CUDA's y is rounded to binary16; its activations are not rounded, which the CPU's are.
        const double tolerance = 0x1p-11 * std::fabs(exact) +
                                 MatMulTolerance(type, layer.source, i % layer.rows, layer.cols,
                                                 x.data() + i / layer.rows * layer.cols);
        ASSERT_NEAR(static_cast<double>(y[static_cast<size_t>(i)]), exact, tolerance)
            << name << ", " << FindWeightTypeInfo(type)->name << ", output " << i;
      }
    }
  }
}

}  // namespace
}  // namespace quern::kernels::testing
