#include <gtest/gtest.h>

#include "kernels/cuda/w4a16/w4a16_plan.h"
#include "quern/kernels/w4a16.h"
#include "tests/unit/kernels/simt/simt_test_support.h"
#include "tests/unit/kernels/simt/traffic_kernels.h"

namespace quern::kernels::testing {
namespace {

simt::Options Counting(uint64_t seed) { return {.seed = seed, .count_traffic = true}; }

TEST(Traffic, CountsSectorsOfStridedLoads) {
  const DeviceArray<int> in(std::vector<int>(8192, 1));
  const DeviceArray<int> out(256);
  // Sectors that a warp's load touches: 32 words lie in 4; two words apart in 8; from 8 on each has
  // its own.
  for (const auto& [stride, sectors] : {std::pair{1, 4}, {2, 8}, {8, 32}, {32, 32}}) {
    for (uint64_t seed : {0, 1, 2}) {
      const WithOptions options(Counting(seed));
      ASSERT_EQ(StridedCopy(in.data(), out.data(), stride, 256), cudaSuccess);
      const simt::Counts& counts = simt::LastReport().counts;
      EXPECT_EQ(counts.global_load.instructions, 8);
      EXPECT_EQ(counts.global_load.units, 8 * sectors) << "stride " << stride;
      EXPECT_EQ(counts.global_load.minimum, 8 * 4);
      EXPECT_EQ(counts.global_load.bytes, 1024);
      EXPECT_EQ(counts.global_store.units, 8 * 4);
      EXPECT_EQ(counts.global_sectors, 8 * sectors + 8 * 4);
    }
  }
}

TEST(Traffic, CountsLoadsOfWatchedMemoryApart) {
  const DeviceArray<int> in(std::vector<int>(8192, 1));
  const DeviceArray<int> out(256);
  std::vector<simt::Report> reports;
  simt::Options options = Counting(1);
  options.on_kernel = [&reports](const simt::Report& report) { reports.push_back(report); };
  // All of it; its first half, which half of the threads read; what is only written.
  for (const auto& [range, sectors] : {std::pair{simt::Range{in.data(), 8192 * 4}, 256},
                                       {simt::Range{in.data(), 4096}, 128},
                                       {simt::Range{out.data(), 1024}, 0}}) {
    options.watched = {range};
    const WithOptions with(options);
    ASSERT_EQ(StridedCopy(in.data(), out.data(), 8, 256), cudaSuccess);
    EXPECT_EQ(simt::LastReport().counts.watched_sectors, sectors);
    EXPECT_EQ(simt::LastReport().counts.global_load.units, 256);
  }
  ASSERT_EQ(reports.size(), 3u);
  EXPECT_EQ(reports[1].counts.watched_sectors, 128);
}

TEST(Traffic, CountsBankConflicts) {
  const DeviceArray<int> out(32);
  for (const auto& [stride, wavefronts] :
       {std::pair{0, 1}, {1, 1}, {2, 2}, {3, 1}, {4, 4}, {16, 16}, {31, 1}}) {
    const WithOptions options(Counting(1));
    ASSERT_EQ(StridedShared(out.data(), stride), cudaSuccess)
        << cudaGetErrorString(cudaErrorLaunchFailure);
    const simt::Counts& counts = simt::LastReport().counts;
    EXPECT_EQ(counts.shared_load.instructions, 1);
    EXPECT_EQ(counts.shared_load.units, wavefronts) << "stride " << stride;
    EXPECT_EQ(counts.shared_load.minimum, 1);
    EXPECT_EQ(counts.shared_store.units, 32);
    EXPECT_EQ(counts.shared_store.minimum, 32);
  }
}

TEST(Traffic, WideLoadsAreOneInstructionOfFourWavefrontsAndOfFewerWherePairsLoadTheSame) {
  const DeviceArray<int> out(32);
  struct Case {
    int bit, wavefronts, minimum;
  };
  // Lanes that differ in bit 2 are no such pairs: what they share is served twice.
  for (const auto& [bit, wavefronts, minimum] : {Case{0, 4, 4}, {1, 2, 2}, {2, 2, 2}, {4, 4, 2}}) {
    const WithOptions options(Counting(1));
    ASSERT_EQ(WideShared(out.data(), bit), cudaSuccess);
    EXPECT_EQ(simt::LastReport().counts.shared_load.instructions, 1);
    EXPECT_EQ(simt::LastReport().counts.shared_load.units, wavefronts) << bit;
    EXPECT_EQ(simt::LastReport().counts.shared_load.minimum, minimum) << bit;
  }
}

TEST(Traffic, CountsConflictsOfMatrixRows) {
  const DeviceArray<int> out(32);
  // Rows side by side meet all banks; 128 bytes apart all of a matrix's meet the same four.
  for (const auto& [stride, wavefronts] : {std::pair{16, 4}, {128, 32}, {80, 4}}) {
    const WithOptions options(Counting(1));
    ASSERT_EQ(StridedRows(out.data(), stride), cudaSuccess)
        << cudaGetErrorString(cudaErrorLaunchFailure);
    EXPECT_EQ(simt::LastReport().counts.ldmatrix, 1);
    EXPECT_EQ(simt::LastReport().counts.shared_load.units, wavefronts) << "stride " << stride;
    EXPECT_EQ(simt::LastReport().counts.shared_load.minimum, 4);
  }
}

// Every sector of the weights and scales is read once, x once for each block of rows.
TEST(Traffic, W4A16ReadsEachWeightOnce) {
  constexpr int64_t kRows = 256;
  constexpr int64_t kCols = 1024;
  for (W4Format format : {W4Format::kAwq, W4Format::kQ4_0, W4Format::kQ4_1}) {
    for (int64_t batch : {1, 8, 32}) {
      W4Matrix w{format, kRows, kCols, nullptr, nullptr};
      const DeviceArray<uint8_t> codes(
          std::vector<uint8_t>(static_cast<size_t>(W4CodeBytes(w)), 0x21));
      const DeviceArray<uint16_t> scales(
          std::vector<uint16_t>(static_cast<size_t>(W4ScaleBytes(w) / 2), 1));
      w.codes = codes.data();
      w.scales = scales.data();
      const DeviceArray<uint16_t> x(std::vector<uint16_t>(static_cast<size_t>(batch * kCols), 0));
      const DeviceArray<uint16_t> y(static_cast<size_t>(batch * kRows));
      const DeviceArray<uint8_t> workspace(std::vector<uint8_t>(W4A16WorkspaceBytes(), 0));
      W4A16Args args{w,
                     ActivationType::kF16,
                     x.data(),
                     kCols,
                     y.data(),
                     kRows,
                     batch,
                     workspace.data(),
                     W4A16WorkspaceBytes()};
      args.thread_blocks = 2;
      const WithOptions options(Counting(1));
      ASSERT_EQ(W4A16MatMul(args, nullptr), "");
      const simt::Report& report = simt::LastReport();
      const simt::Counts& counts = report.counts;
      const W4Variant& shape = kW4Variants[ChooseW4Variant(w, batch, 232448)];
      const int64_t row_blocks = (kRows + shape.rows() - 1) / shape.rows();
      const int64_t bytes = W4CodeBytes(w) + W4ScaleBytes(w) + row_blocks * batch * kCols * 2;
      EXPECT_EQ(counts.global_load.units * 32, bytes) << simt::Text(report);
      EXPECT_EQ(counts.global_load.bytes, bytes);
      if (format != W4Format::kQ4_1) {  // which multiplies x by ones, too
        EXPECT_EQ(counts.mma * 16 * 8 * 16, kRows * kCols * ((batch + 7) / 8 * 8));
      }
      EXPECT_EQ(counts.shared_store.units, counts.shared_store.minimum);
      EXPECT_EQ(counts.shared_load.units, counts.shared_load.minimum) << simt::Text(report);
    }
  }
}

}  // namespace
}  // namespace quern::kernels::testing
