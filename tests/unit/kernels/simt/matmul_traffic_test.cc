#include <gtest/gtest.h>

#include "kernels/cuda/common/matmul_launch.h"
#include "quern/kernels/gemm.h"
#include "quern/kernels/gguf_matmul.h"
#include "quern/kernels/w8a8.h"
#include "tests/unit/kernels/simt/simt_test_support.h"

// What the products move, counted: each sector of the weights once, x once for each tile of rows.
namespace quern::kernels::testing {
namespace {

int64_t TileRows(int64_t batch) {
  int shape = 0;
  while (kMatMulShapes[shape].batch() < batch) ++shape;
  return kMatMulShapes[shape].rows();
}

// `weight_bytes` and `row_bytes` of each row of x, of the last launch.
void ExpectLeastTraffic(const std::string& text, int64_t rows, int64_t batch, int64_t weight_bytes,
                        int64_t row_bytes, int64_t y_bytes = 2) {
  const simt::Counts& counts = simt::LastReport().counts;
  const int64_t row_tiles = (rows + TileRows(batch) - 1) / TileRows(batch);
  EXPECT_EQ(counts.global_load.units * 32, weight_bytes + row_tiles * batch * row_bytes) << text;
  // With every 16 rows of the weights, each row of x gets a sector of y, or two of float32.
  EXPECT_EQ(counts.global_store.units, rows / 16 * batch * y_bytes / 2) << text;
  EXPECT_EQ(counts.shared_store.units, counts.shared_store.minimum) << text;
  EXPECT_EQ(counts.shared_load.units, counts.shared_load.minimum) << text;
}

TEST(MatMulTraffic, GgufReadsEachWeightOnceAndMeetsNoBankTwice) {
  constexpr int64_t kRows = 160;
  constexpr int64_t kCols = 1024;
  for (WeightType type : {WeightType::kQ4_0, WeightType::kQ4_1, WeightType::kQ5_0,
                          WeightType::kQ8_0, WeightType::kQ4_K, WeightType::kQ6_K}) {
    for (int64_t batch : {1, 8, 16, 32, 64}) {
      GgufMatrix w{type, kRows, kCols, nullptr};
      const int64_t bytes = GgufBytes(w);
      const DeviceArray<uint8_t> data(std::vector<uint8_t>(static_cast<size_t>(bytes), 1));
      w.data = data.data();
      const DeviceArray<uint16_t> x(std::vector<uint16_t>(static_cast<size_t>(batch * kCols), 0));
      const DeviceArray<float> y(static_cast<size_t>(batch * kRows));
      for (int shape : {-1, 6}) {
        if (shape == 6 && batch > kMatMulShapes[6].batch()) continue;
        GgufMatMulArgs args{w, ActivationType::kBF16, x.data(), kCols, y.data(), kRows, batch};
        args.shape = shape;
        args.float32_y = shape == 6 || batch > 8;
        const WithOptions options({.seed = 1, .count_traffic = true});
        ASSERT_EQ(GgufMatMul(args, nullptr), "");
        ExpectLeastTraffic(std::string(FindWeightTypeInfo(type)->name) + " batch " +
                               std::to_string(batch) + "\n" + simt::Text(simt::LastReport()),
                           kRows, batch, bytes, kCols * 2, args.float32_y ? 4 : 2);
      }
    }
  }
}

TEST(MatMulTraffic, RowsAreReadOnceAndMeetNoBankTwice) {
  constexpr int64_t kRows = 160;
  constexpr int64_t kRowBytes = 1280;
  const DeviceArray<uint8_t> w(std::vector<uint8_t>(kRows * kRowBytes, 1));
  const DeviceArray<float> scales(std::vector<float>(kRows, 1));
  for (int64_t batch : {1, 8, 16, 32, 64}) {
    const DeviceArray<uint8_t> x(std::vector<uint8_t>(static_cast<size_t>(batch * kRowBytes), 0));
    const DeviceArray<uint16_t> y(static_cast<size_t>(batch * kRows));
    const WithOptions options({.seed = 1, .count_traffic = true});
    constexpr int64_t kCols = kRowBytes / 2;
    ASSERT_EQ(Gemm({ActivationType::kF16, w.data(), kCols, kRows, kCols, x.data(), kCols, y.data(),
                    kRows, batch},
                   nullptr),
              "");
    ExpectLeastTraffic("dense batch " + std::to_string(batch) + simt::Text(simt::LastReport()),
                       kRows, batch, kRows * kRowBytes, kRowBytes);
    if (batch > 32) continue;  // the scales of so short rows count
    ASSERT_EQ(
        W8A8MatMul({EightBitType::kInt8, ActivationType::kF16, w.data(), kRowBytes, scales.data(),
                    kRows, kRowBytes, x.data(), kRowBytes, scales.data(), y.data(), kRows, batch},
                   nullptr),
        "");
    // The scales are read where y is written: of few rows, sector by sector.
    const simt::Counts& counts = simt::LastReport().counts;
    const int64_t bytes =
        kRows * kRowBytes + (kRows + TileRows(batch) - 1) / TileRows(batch) * batch * kRowBytes;
    EXPECT_LE(counts.global_load.units * 32 * 100, bytes * 105) << simt::Text(simt::LastReport());
    EXPECT_EQ(counts.shared_load.units, counts.shared_load.minimum);
  }
}

TEST(MatMulPlan, RefusesADeviceThatIsTooOld) {
  const MatMulOperands operands{"FP8", nullptr, 32, 64, nullptr, 64, 1, nullptr, 32, 1};
  const std::string wrong =
      StartMatMul(operands, {}, 129, MatMulKernels{}, MatMulLaunch{}, nullptr);
  EXPECT_EQ(wrong.substr(0, 40), "FP8: the device has compute capability 9") << wrong;
  EXPECT_NE(wrong.find("it needs 12.9 or later"), std::string::npos) << wrong;
}

TEST(MatMulPlan, ChoosesWhatFits) {
  int shared[kMatMulShapeCount];
  for (int i = 0; i < kMatMulShapeCount; ++i) shared[i] = kMatMulShapes[i].shared_bytes(2048, 0);
  constexpr int kSmall = 99 * 1024;
  constexpr int kLarge = 163 * 1024;
  EXPECT_LE(shared[0], kSmall);
  EXPECT_LE(shared[4], kSmall);
  for (int bytes : shared) EXPECT_LE(bytes, kLarge);
  const auto choose = [&](int64_t rows, int64_t batch, int limit) {
    return ChooseMatMulShape(rows, batch, 132, limit, shared);
  };
  EXPECT_EQ(choose(4096, 1, kLarge), 6);  // a multiprocessor for each tile
  EXPECT_EQ(choose(4096, 8, kSmall), 0);
  EXPECT_EQ(choose(8192, 8, kLarge), 0);
  EXPECT_EQ(choose(4096, 9, kLarge), 1);
  EXPECT_EQ(choose(4096, 32, kLarge), 2);
  EXPECT_EQ(choose(4096, 64, kLarge), 3);
  EXPECT_EQ(choose(4096, 65, kLarge), 3);  // too few tiles for larger ones
  EXPECT_EQ(choose(4096, 320, kLarge), 4);
  EXPECT_EQ(choose(4096, 1024, kLarge), 5);
  EXPECT_EQ(choose(256, 1024, kLarge), 3);
  for (int64_t batch : {1, 9, 17, 33, 65, 1024}) {
    EXPECT_LE(shared[choose(4096, batch, kSmall)], kSmall) << batch;
  }
  EXPECT_EQ(choose(4096, 64, kSmall), 4);
  EXPECT_EQ(choose(4096, 1024, kSmall), 4);
}

}  // namespace
}  // namespace quern::kernels::testing
