#include "quern/kernels/attention.h"

#include <gtest/gtest.h>

#include "kernels/cuda/attention/attention_launch.h"
#include "quern/kernels/append_kv.h"
#include "quern/kernels/device_attention.h"
#include "tests/unit/kernels/simt/simt_test_support.h"

// What the attention kernels move, by the emulator's counters. That their results are right is the
// device test's to show.
namespace quern::kernels::testing {
namespace {

struct Batch {
  DeviceKvFormat format;
  int head_dim;
  int kv_heads;
  int group;
  int queries;
  int context;

  int64_t tokens() const { return int64_t{kv_heads} * context; }
};

// One sequence whose cache is of ones (or codes of 1).
simt::Counts CountsOf(const Batch& b, bool decode) {
  constexpr int kBlockTokens = 16;
  const int blocks = (b.context + kBlockTokens - 1) / kBlockTokens;
  DeviceKv kv{
      b.format, ActivationType::kF16, nullptr,    nullptr,   nullptr, nullptr, nullptr, nullptr,
      blocks,   kBlockTokens,         b.kv_heads, b.head_dim};
  const auto bytes = [&](DeviceKvFormat format) {
    return std::vector<uint8_t>(
        static_cast<size_t>(kv.rows() * DeviceKvRowBytes(format, b.head_dim)), 1);
  };
  const DeviceArray<uint8_t> k(bytes(DeviceKeyFormat(b.format)));
  const DeviceArray<uint8_t> v(bytes(b.format));
  const std::vector<uint16_t> ones(static_cast<size_t>(kv.rows() * b.head_dim / kKvGroup), 0x3c00);
  const DeviceArray<uint16_t> k_scales(ones);
  const DeviceArray<uint16_t> v_scales(ones);
  const DeviceArray<float> head_scales(std::vector<float>(static_cast<size_t>(b.kv_heads), 1.0f));
  kv.k = k.data();
  kv.v = v.data();
  kv.k_scales = k_scales.data();
  kv.v_scales = v_scales.data();
  kv.k_head_scales = kv.v_head_scales = head_scales.data();
  std::vector<int32_t> table(static_cast<size_t>(blocks));
  for (int i = 0; i < blocks; ++i) table[static_cast<size_t>(i)] = blocks - 1 - i;
  const DeviceArray<int32_t> tables(table);
  const DeviceArray<int32_t> begins(std::vector<int32_t>{0, b.queries});
  const DeviceArray<int32_t> contexts(std::vector<int32_t>{b.context});
  const int width = b.kv_heads * b.group * b.head_dim;
  const DeviceArray<uint16_t> q(std::vector<uint16_t>(static_cast<size_t>(b.queries * width), 0));
  const DeviceArray<uint16_t> out(static_cast<size_t>(b.queries * width));
  DeviceAttentionArgs args{ActivationType::kF16,
                           q.data(),
                           width,
                           out.data(),
                           width,
                           b.kv_heads * b.group,
                           kv,
                           begins.data(),
                           contexts.data(),
                           tables.data(),
                           blocks,
                           1,
                           b.queries,
                           b.context,
                           0.1f,
                           0,
                           0,
                           nullptr};
  args.workspace_size = DecodeAttentionWorkspaceBytes(args);
  const DeviceArray<uint8_t> workspace(args.workspace_size + 16);
  args.workspace = workspace.data();
  const WithOptions options({.seed = 1, .count_traffic = true});
  EXPECT_EQ(decode ? DecodeAttention(args, nullptr) : PrefillAttention(args, nullptr), "");
  return simt::LastReport().counts;
}

// The reference that the device test relies on.
TEST(AttentionReference, SinkIsATokenWithoutAValue) {
  constexpr int kDim = 2;
  constexpr float kSink = 0.7f;
  std::vector<float> k{0.3f, 5, -1, 6, 2, 7, kSink, 8};
  std::vector<float> v{1, 2, 3, 4, 5, 6, 0, 0};
  const PagedKv kv{KvDtype::kF32,
                   reinterpret_cast<uint8_t*>(k.data()),
                   reinterpret_cast<uint8_t*>(v.data()),
                   4,
                   1,
                   kDim};
  const int32_t table[] = {0};
  const AttentionArgs args{kv, table, 0, 1, 0, 0};
  const float q[kDim] = {1, 0};
  float with_token[kDim];
  float with_sink[kDim];
  const AttentionQuery of_four{q, with_token, 3};
  const AttentionQuery of_three{q, with_sink, 2};
  ref::Attention(args, &of_four, 1);
  ref::Attention(args, &of_three, 1, &kSink);
  for (int i = 0; i < kDim; ++i) EXPECT_FLOAT_EQ(with_sink[i], with_token[i]);
}

TEST(AttentionSplits, CoverEverySpanInAtMost64Pieces) {
  int most = 0;
  for (int span = 1; span < 70000; span += span < 600 ? 1 : 97) {
    const int tokens = SplitTokens(span);
    const int count = SplitCount(span);
    EXPECT_EQ(tokens % kSplitGranule, 0);
    EXPECT_GE(int64_t{tokens} * count, span);
    EXPECT_LT(int64_t{tokens} * (count - 1), span);
    EXPECT_LE(count, kMaxSplits);
    most = std::max(most, count);
    EXPECT_GE(MostSplits(span), most) << span;
  }
  EXPECT_EQ(SplitCount(0), 1);
  EXPECT_LE(SplitCount(1 << 30), kMaxSplits);
}

constexpr DeviceKvFormat kFormats[] = {DeviceKvFormat::k16Bit, DeviceKvFormat::kInt8,
                                       DeviceKvFormat::kInt4, DeviceKvFormat::kE4m3};

// 250 tokens: one split, so that the attention kernel is the last launch and writes the result.
TEST(AttentionTraffic, DecodeReadsEachByteOfTheCacheOnceWhateverTheGroup) {
  for (DeviceKvFormat format : kFormats) {
    for (int head_dim : {64, 128, 256}) {
      for (int group : {1, 6, 16}) {
        const Batch b{format, head_dim, 2, group, 1, 250};
        const simt::Counts counts = CountsOf(b, true);
        const int64_t cache = b.tokens() * DeviceKvTokenBytes(format, head_dim);
        // Besides the cache: Q, once for each of the warps that share the rows, and the sequence's
        // numbers.
        const int64_t warps = head_dim == 256 && format == DeviceKvFormat::k16Bit ? 2 : 4;
        const int64_t q = warps * b.kv_heads * group * head_dim * 2;
        const int64_t read = counts.global_load.units * 32 - q;
        EXPECT_LE(read * 100, cache * 105) << "format " << static_cast<int>(format) << " head_dim "
                                           << head_dim << " group " << group;
        EXPECT_GE(read, cache);
      }
    }
  }
}

TEST(AttentionTraffic, PrefillReadsTheCacheOnceFor64Rows) {
  for (DeviceKvFormat format : kFormats) {
    for (int head_dim : {64, 128, 256}) {
      const Batch b{format, head_dim, 2, 4, 16, 500};  // 64 rows
      const simt::Counts counts = CountsOf(b, false);
      const int64_t cache = b.tokens() * DeviceKvTokenBytes(format, head_dim);
      const int64_t read = counts.global_load.units * 32 - 2 * 64 * head_dim * 2;
      EXPECT_GE(read, cache);
      // The table's entries are read by each warp.
      EXPECT_LE(read * 100, cache * 105 + 100 * 2 * 4 * 500 / 16 * 32)
          << "format " << static_cast<int>(format) << " head_dim " << head_dim;
    }
  }
}

TEST(AttentionTraffic, AppendMovesWholeSectors) {
  constexpr int kTokens = 16;
  for (DeviceKvFormat format : kFormats) {
    for (int head_dim : {64, 128, 256}) {
      const int width = 6 * head_dim;  // four heads of Q, one of K, one of V
      const DeviceArray<uint8_t> k(static_cast<size_t>(kTokens * 2 * head_dim));
      const DeviceArray<uint8_t> v(static_cast<size_t>(kTokens * 2 * head_dim));
      const DeviceArray<uint16_t> scales(static_cast<size_t>(kTokens * head_dim / 16));
      const DeviceArray<float> head_scales(std::vector<float>{1});
      const DeviceArray<uint16_t> qkv(
          std::vector<uint16_t>(static_cast<size_t>(kTokens * width), 9));
      std::vector<int64_t> order(kTokens);
      for (int i = 0; i < kTokens; ++i) order[static_cast<size_t>(i)] = kTokens - 1 - i;
      const DeviceArray<int64_t> places(order);
      const DeviceKv kv{format,
                        ActivationType::kF16,
                        k.data(),
                        v.data(),
                        scales.data(),
                        scales.data() + kTokens * head_dim / 32,
                        head_scales.data(),
                        head_scales.data(),
                        1,
                        kTokens,
                        1,
                        head_dim};
      const AppendKvArgs args{ActivationType::kF16,
                              qkv.data(),
                              width,
                              qkv.data(),
                              width,
                              kTokens,
                              4,
                              nullptr,
                              nullptr,
                              0,
                              RopePairs::kHalves,
                              0,
                              nullptr,
                              nullptr,
                              true,
                              places.data(),
                              kv};
      const WithOptions options({.seed = 1, .count_traffic = true});
      ASSERT_EQ(AppendKv(args, nullptr), "");
      const simt::Counts& counts = simt::LastReport().counts;
      EXPECT_EQ(counts.global_store.units, counts.global_store.minimum);
      // Besides qkv: the token's place, and the head's scale, for each warp.
      EXPECT_LE(counts.global_load.units * 32, 2 * kTokens * width + 2 * 32 * kTokens * 6);
    }
  }
}

TEST(AttentionTraffic, SharedMemoryHasHardlyAConflict) {
  for (DeviceKvFormat format : kFormats) {
    for (int head_dim : {64, 128, 256}) {
      for (bool decode : {true, false}) {
        const Batch b{format, head_dim, 1, 4, decode ? 1 : 40, 250};
        const simt::Counts counts = CountsOf(b, decode);
        EXPECT_LE(counts.shared_load.units * 100, counts.shared_load.minimum * 110)
            << "loads, format " << static_cast<int>(format) << " head_dim " << head_dim
            << " decode " << decode;
        EXPECT_LE(counts.shared_store.units * 100, counts.shared_store.minimum * 110)
            << "stores, format " << static_cast<int>(format) << " head_dim " << head_dim
            << " decode " << decode;
      }
    }
  }
}

}  // namespace
}  // namespace quern::kernels::testing
