#include "quern/kernels/w4a16.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "quern/kernels/dequantize.h"
#include "quern/kernels/matmul.h"
#include "quern/kernels/numeric_types.h"
#include "tests/unit/kernels/kernel_test_support.h"
#include "tests/unit/kernels/simt/simt_test_support.h"

// The CUDA kernel, from GGUF's bytes on, against the oracle of the same op. Shapes, variants and
// formats in their breadth are the device test's, which runs on the emulator, too.
namespace quern::kernels::testing {
namespace {

struct Layer {
  W4Format format;
  int64_t rows, cols;
  std::vector<uint8_t> source;  // GGUF's
  DeviceArray<uint8_t> codes;
  DeviceArray<uint16_t> scales;
  W4Matrix matrix;

  Layer(std::mt19937& random, W4Format of, int64_t row_count, int64_t col_count)
      : format(of),
        rows(row_count),
        cols(col_count),
        source(RandomWeights(random, type(), rows, cols)),
        codes(static_cast<size_t>(W4CodeBytes({of, rows, cols, nullptr, nullptr}))),
        scales(static_cast<size_t>(W4ScaleBytes({of, rows, cols, nullptr, nullptr}) / 2)),
        matrix{of, rows, cols, codes.data(), scales.data()} {
    std::vector<uint8_t> host_codes(static_cast<size_t>(W4CodeBytes(matrix)));
    std::vector<uint16_t> host_scales(static_cast<size_t>(W4ScaleBytes(matrix) / 2));
    RepackGguf(matrix, source.data(), 0, matrix.row_tiles(), host_codes.data(), host_scales.data());
    cudaMemcpy(codes.data(), host_codes.data(), host_codes.size(), cudaMemcpyHostToDevice);
    cudaMemcpy(scales.data(), host_scales.data(), host_scales.size() * 2, cudaMemcpyHostToDevice);
  }

  WeightType type() const {
    return format == W4Format::kQ4_0 ? WeightType::kQ4_0 : WeightType::kQ4_1;
  }
  // Sums of the magnitudes of what a product adds up.
  double Total(int64_t row, const float* x) const {
    std::vector<float> weights(static_cast<size_t>(cols));
    ref::DequantizeRow(
        type(),
        source.data() + static_cast<size_t>(row) * (source.size() / static_cast<size_t>(rows)),
        cols, weights.data());
    double total = 0;
    for (int64_t k = 0; k < cols; ++k) {
      total += std::fabs(static_cast<double>(weights[static_cast<size_t>(k)]) * x[k]);
    }
    return total;
  }
};

void Compare(const Layer& layer, int64_t batch, uint64_t seed, int thread_blocks) {
  std::mt19937 random(static_cast<unsigned>(seed));
  std::normal_distribution<float> normal(0, 1);
  std::vector<uint16_t> x_bits(static_cast<size_t>(batch * layer.cols));
  std::vector<float> x(x_bits.size());
  for (size_t i = 0; i < x.size(); ++i) {
    x_bits[i] = FloatToHalf(normal(random));
    x[i] = HalfToFloat(x_bits[i]);
  }
  std::vector<float> expected(static_cast<size_t>(batch * layer.rows));
  ref::MatMul(layer.type(), layer.source.data(), layer.rows, layer.cols, x.data(), batch,
              expected.data());
  const DeviceArray<uint16_t> device_x(x_bits);
  const DeviceArray<uint16_t> y(expected.size());
  const DeviceArray<uint8_t> workspace(std::vector<uint8_t>(W4A16WorkspaceBytes(), 0));
  W4A16Args args{
      layer.matrix, ActivationType::kF16, device_x.data(),      layer.cols, y.data(), layer.rows,
      batch,        workspace.data(),     W4A16WorkspaceBytes()};
  args.thread_blocks = thread_blocks;
  const WithOptions options({.seed = seed, .resident_blocks = 3});
  ASSERT_EQ(W4A16MatMul(args, nullptr), "");
  const std::vector<uint16_t> got = y.Read();
  for (int64_t r = 0; r < batch; ++r) {
    for (int64_t c = 0; c < layer.rows; ++c) {
      const auto i = static_cast<size_t>(r * layer.rows + c);
      const auto exact = static_cast<double>(expected[i]);
      // As in the device test: y's rounding, and each addition's in float32; Q4_1's two terms are
      // within 8 of their sum.
      const double total = layer.Total(c, &x[static_cast<size_t>(r * layer.cols)]) *
                           (layer.format == W4Format::kQ4_1 ? 8 : 1);
      const double bound = 0x1p-11 * std::fabs(exact) +
                           (static_cast<double>(layer.cols) * 3 / 32 + 65) * 0x1p-23 * total +
                           0x1p-25;
      EXPECT_NEAR(static_cast<double>(HalfToFloat(got[i])), exact, bound)
          << layer.rows << "x" << layer.cols << " batch " << batch << " row " << r << " column "
          << c << " seed " << seed;
    }
  }
}

TEST(W4A16, AgreesWithTheReferenceUnderEveryOrderOfThreads) {
  std::mt19937 random(3);
  struct Shape {
    int64_t rows, cols, batch;
  };
  for (W4Format format : {W4Format::kQ4_0, W4Format::kQ4_1}) {
    for (const Shape& shape : {Shape{1, 32, 1}, {17, 160, 3}, {70, 352, 9}, {130, 96, 17}}) {
      const Layer layer(random, format, shape.rows, shape.cols);
      for (uint64_t seed = 0; seed < 4; ++seed) {
        Compare(layer, shape.batch, seed, 0);
        Compare(layer, shape.batch, seed, 3);  // sums that cross thread blocks
      }
    }
  }
}

}  // namespace
}  // namespace quern::kernels::testing
