#include <gtest/gtest.h>

#include "quern/kernels/add_rms_norm.h"
#include "quern/kernels/embedding_gather.h"
#include "quern/kernels/gated_product.h"
#include "tests/unit/kernels/simt/simt_test_support.h"

// Each byte is read once and written once, in whole sectors.
namespace quern::kernels::testing {
namespace {

simt::Options Counting() { return {.seed = 1, .count_traffic = true}; }

void ExpectTraffic(int64_t loaded, int64_t stored) {
  const simt::Report& report = simt::LastReport();
  const simt::Counts& counts = report.counts;
  EXPECT_EQ(counts.global_load.bytes, loaded) << simt::Text(report);
  EXPECT_LE(counts.global_load.units * 32 * 100, loaded * 105) << simt::Text(report);
  EXPECT_EQ(counts.global_store.bytes, stored) << simt::Text(report);
  EXPECT_LE(counts.global_store.units * 32 * 100, stored * 105) << simt::Text(report);
  EXPECT_LE(counts.shared_load.units * 10, counts.shared_load.minimum * 11);
  EXPECT_LE(counts.shared_store.units * 10, counts.shared_store.minimum * 11);
}

TEST(ElementwiseTraffic, GatherReadsARowOnce) {
  constexpr int64_t kHidden = 2048;
  const DeviceArray<uint16_t> table(std::vector<uint16_t>(4 * kHidden, 1));
  const DeviceArray<int32_t> ids(std::vector<int32_t>{3, 0, 2});
  const DeviceArray<float> out(3 * kHidden);
  const WithOptions options(Counting());
  ASSERT_EQ(EmbeddingGather({ActivationType::kBF16, table.data(), kHidden, 4, kHidden, ids.data(),
                             3, 1, out.data(), kHidden},
                            nullptr),
            "");
  // All threads read the block's id: 4 bytes each, one sector for a warp.
  const int64_t ids_bytes = 3 * 256 * 4;
  const simt::Counts& counts = simt::LastReport().counts;
  EXPECT_EQ(counts.global_load.bytes, 3 * kHidden * 2 + ids_bytes);
  EXPECT_EQ(counts.global_load.units, 3 * kHidden * 2 / 32 + 3 * 8);
  EXPECT_EQ(counts.global_store.units, 3 * kHidden * 4 / 32);
}

TEST(ElementwiseTraffic, NormReadsAndWritesEachByteOnce) {
  constexpr int64_t kTokens = 3;
  for (int64_t hidden : {1024, 2048, 8192}) {
    const auto count = static_cast<size_t>(kTokens * hidden);
    const DeviceArray<float> residual(std::vector<float>(count, 1));
    const DeviceArray<uint16_t> x(std::vector<uint16_t>(count, 0x3c00));
    const DeviceArray<float> weights(std::vector<float>(static_cast<size_t>(hidden), 1));
    const DeviceArray<uint16_t> y(count);
    const DeviceArray<float> scale(kTokens);
    for (NormOutput output : {NormOutput::kActivation, NormOutput::kInt8, NormOutput::kE4m3}) {
      const bool quantised = output != NormOutput::kActivation;
      const WithOptions options(Counting());
      ASSERT_EQ(AddRmsNorm({ActivationType::kF16, kTokens, hidden, 1e-5f, residual.data(), hidden,
                            x.data(), hidden, weights.data(), weights.data(), output, y.data(),
                            hidden, quantised ? scale.data() : nullptr},
                           nullptr),
                "");
      ExpectTraffic(kTokens * hidden * (4 + 2 + 4 + 4),
                    kTokens * (hidden * (4 + (quantised ? 1 : 2)) + (quantised ? 4 : 0)));
    }
  }
}

TEST(ElementwiseTraffic, GatesReadAndWriteEachByteOnce) {
  constexpr int64_t kTokens = 3;
  constexpr int64_t kInner = 2048;
  const DeviceArray<uint16_t> x(std::vector<uint16_t>(kTokens * kInner * 2, 0x3c00));
  const DeviceArray<uint16_t> y(kTokens * kInner);
  for (bool turns : {false, true}) {
    const WithOptions options(Counting());
    ASSERT_EQ(GatedProduct(
                  {Gate::kSiluClamped, ActivationType::kF16, kTokens, kInner, x.data(), 2 * kInner,
                   turns ? nullptr : x.data() + kInner, 2 * kInner, y.data(), kInner},
                  nullptr),
              "");
    ExpectTraffic(kTokens * kInner * 4, kTokens * kInner * 2);
  }
}

}  // namespace
}  // namespace quern::kernels::testing
