#include "quern/kernels/attention.h"

#include <algorithm>
#include <numeric>

#include "tests/unit/kernels/kernel_test_support.h"

namespace quern::kernels::testing {
namespace {

class AttentionTest : public IsaTest {};
QUERN_FOR_EACH_ISA(AttentionTest);

constexpr KvDtype kDtypes[] = {KvDtype::kF16, KvDtype::kF32, KvDtype::kInt8, KvDtype::kInt4};

struct Shape {
  int head_dim;
  int block_tokens;
  int tokens;
  int window;
  float softcap;
};

constexpr Shape kShapes[] = {
    {64, 16, 1, 0, 0},
    {64, 16, 100, 0, 0},
    {256, 16, 70, 16, 0},
    {20, 4, 33, 5, 0},
    {80, 33, 90, 0, 20},
    {8, 1, 19, 3, 0},
    {128, 64, 130, 64, 50},
    {7, 16, 40, 0, 0},
    // of several segments
    {64, 16, 1100, 0, 0},
    {20, 24, 1030, 0, 20},
    {64, 16, 1300, 600, 0},
};

std::vector<std::pair<Shape, KvDtype>> ShapesAndDtypes() {
  std::vector<std::pair<Shape, KvDtype>> all;
  for (const Shape& shape : kShapes) {
    for (const KvDtype dtype : kDtypes) all.emplace_back(shape, dtype);
  }
  return all;
}

// One sequence's K and V in blocks that lie anywhere in the cache; every slot that it does not own
// is NaN, so that reading one shows.
class Cache {
 public:
  Cache(std::mt19937& random, const Shape& shape, int kv_heads, KvDtype dtype) : shape_(shape) {
    const int used = (shape.tokens + shape.block_tokens - 1) / shape.block_tokens;
    const int blocks = used + 3;
    blocks_.resize(static_cast<size_t>(blocks));
    std::iota(blocks_.begin(), blocks_.end(), 0);
    std::shuffle(blocks_.begin(), blocks_.end(), random);
    const auto heads = static_cast<size_t>(blocks * shape.block_tokens * kv_heads);
    k_.assign(heads * static_cast<size_t>(KvHeadBytes(KeyDtype(dtype), shape.head_dim)), 0xff);
    v_.assign(heads * static_cast<size_t>(KvHeadBytes(dtype, shape.head_dim)), 0xff);
    kv_ = {dtype, k_.data(), v_.data(), shape.block_tokens, kv_heads, shape.head_dim};
    for (int token = 0; token < shape.tokens; ++token) {
      for (int head = 0; head < kv_heads; ++head) {
        const auto k = RandomFloats(random, static_cast<size_t>(shape.head_dim));
        const auto v = RandomFloats(random, static_cast<size_t>(shape.head_dim));
        ref::AppendKv(kv_, blocks_[static_cast<size_t>(token / shape.block_tokens)], head,
                      token % shape.block_tokens, k.data(), v.data());
      }
    }
  }

  // V of the first KV head's token.
  void Replace(int token, const std::vector<float>& v) {
    const std::vector<float> k(v.size(), 1);
    ref::AppendKv(kv_, blocks_[static_cast<size_t>(token / shape_.block_tokens)], 0,
                  token % shape_.block_tokens, k.data(), v.data());
  }

  AttentionArgs Args(int kv_head) const {
    return {kv_,
            blocks_.data(),
            kv_head,
            1.0f / std::sqrt(static_cast<float>(shape_.head_dim)),
            shape_.softcap,
            shape_.window};
  }

 private:
  Shape shape_;
  std::vector<int32_t> blocks_;
  std::vector<uint8_t> k_, v_;  // 0xff throughout is a NaN, or a scale that is one
  PagedKv kv_;
};

struct Queries {
  std::vector<float> q, out;
  std::vector<AttentionQuery> list;

  Queries(std::mt19937& random, int head_dim, const std::vector<int32_t>& positions)
      : q(RandomFloats(random, positions.size() * static_cast<size_t>(head_dim))), out(q.size()) {
    for (size_t i = 0; i < positions.size(); ++i) {
      const size_t at = i * static_cast<size_t>(head_dim);
      list.push_back({q.data() + at, out.data() + at, positions[i]});
    }
  }
};

TEST_P(AttentionTest, AgreesWithTheReferenceOverPagedCaches) {
  std::mt19937 random(1);
  for (const auto& [shape, dtype] : ShapesAndDtypes()) {
    const Cache cache(random, shape, 2, dtype);
    std::vector<int32_t> positions;
    for (int i = std::max(0, shape.tokens - 20); i < shape.tokens; ++i) {
      positions.insert(positions.end(), {i, i});  // two heads of a group
    }
    Queries queries(random, shape.head_dim, positions);
    std::vector<float> scratch(static_cast<size_t>(AttentionScratchFloats(shape.head_dim)), NAN);
    const AttentionArgs args = cache.Args(1);
    const int count = static_cast<int>(queries.list.size());
    ref::Attention(args, queries.list.data(), count);
    const auto expected = queries.out;
    std::fill(queries.out.begin(), queries.out.end(), NAN);
    kernels().attention(args, queries.list.data(), count, scratch.data());
    for (size_t i = 0; i < expected.size(); ++i) {
      // A score of about 4 is one chain of head_dim sums, whose roundings add up like a random walk
      // (four times its deviation are allowed); it moves a weight by that much of itself, and
      // |v| < 5.
      const double score_error = 0x1p-24 * (4 * std::sqrt(shape.head_dim) + 8) * 4;
      ASSERT_NEAR(queries.out[i], expected[i], 5 * (2 * score_error + 0x1p-24 * shape.tokens))
          << "head_dim " << shape.head_dim << ", tokens " << shape.tokens << ", "
          << KvHeadBytes(dtype, shape.head_dim) << " bytes a head";
    }
  }
}

// Whoever shares a call, and wherever a prompt was cut into chunks, the bits are the same.
TEST_P(AttentionTest, AQueryHasTheSameBitsAloneAndTogether) {
  std::mt19937 random(2);
  for (const auto& [shape, dtype] : ShapesAndDtypes()) {
    const Cache cache(random, shape, 1, dtype);
    std::vector<int32_t> positions;
    for (int i = 0; i < shape.tokens; i += 3 + shape.tokens / 100) positions.push_back(i);
    Queries queries(random, shape.head_dim, positions);
    std::vector<float> scratch(static_cast<size_t>(AttentionScratchFloats(shape.head_dim)), NAN);
    const AttentionArgs args = cache.Args(0);
    kernels().attention(args, queries.list.data(), static_cast<int>(queries.list.size()),
                        scratch.data());
    const auto together = queries.out;
    for (const AttentionQuery& query : queries.list) {
      kernels().attention(args, &query, 1, scratch.data());
    }
    EXPECT_EQ(queries.out, together) << "head_dim " << shape.head_dim;
  }
}

// Segments that a query does not see, before its window or after it, are among them.
TEST_P(AttentionTest, TheSegmentsOfAContextMakeTheSameBitsTogether) {
  std::mt19937 random(9);
  for (const auto& [shape, dtype] : ShapesAndDtypes()) {
    const Cache cache(random, shape, 2, dtype);
    std::vector<int32_t> positions = {0, shape.tokens / 2, shape.tokens - 1, shape.tokens - 1};
    Queries queries(random, shape.head_dim, positions);
    std::vector<float> scratch(static_cast<size_t>(AttentionScratchFloats(shape.head_dim)), NAN);
    const AttentionArgs args = cache.Args(1);
    kernels().attention(args, queries.list.data(), 4, scratch.data());
    const auto whole = queries.out;
    std::fill(queries.out.begin(), queries.out.end(), NAN);
    const int segments = (shape.tokens - 1) / kAttentionSegment + 1;
    const int64_t floats = AttentionPartFloats(shape.head_dim);
    std::vector<float> parts(static_cast<size_t>(4 * segments * floats), NAN);
    for (int segment = segments - 1; segment >= 0; --segment) {
      kernels().attention_segment(args, queries.list.data(), 4, segment,
                                  parts.data() + 4 * segment * floats, scratch.data());
    }
    for (int i = 0; i < 4; ++i) {
      kernels().combine_attention(parts.data() + i * floats, 4 * floats, segments, shape.head_dim,
                                  queries.list[static_cast<size_t>(i)].out);
    }
    EXPECT_EQ(queries.out, whole) << "head_dim " << shape.head_dim << ", tokens " << shape.tokens;
  }
}

// Nor does it matter to it what later tokens, or those before its window, are.
TEST_P(AttentionTest, ATokenThatAQueryDoesNotSeeCannotSpoilIt) {
  std::mt19937 random(7);
  for (const KvDtype dtype : {KvDtype::kF32, KvDtype::kInt8, KvDtype::kInt4}) {
    for (const int window : {0, 3}) {
      const Shape shape{32, 16, 9, window, 0};
      Cache cache(random, shape, 1, dtype);
      const std::vector<float> nan(32, NAN);
      const int spoilt = window == 0 ? 8 : 1;
      cache.Replace(spoilt, nan);
      Queries queries(random, 32, {3, 4, 5, 6, 7, 8});
      std::vector<float> scratch(static_cast<size_t>(AttentionScratchFloats(32)), NAN);
      kernels().attention(cache.Args(0), queries.list.data(), 6, scratch.data());
      for (const AttentionQuery& query : queries.list) {
        const bool sees =
            spoilt <= query.position && spoilt > query.position - (window ? window : 9);
        EXPECT_EQ(std::isnan(query.out[0]), sees) << query.position << " of window " << window;
      }
    }
  }
}

// The scratch is just long enough: where groups are written whole, too.
TEST_P(AttentionTest, AsManyQueriesAsThereMayBeOfAnyHeadDim) {
  std::mt19937 random(8);
  for (const KvDtype dtype : kDtypes) {
    for (const int head_dim : {1, 33, 272, 512}) {
      // Two segments, of the second of which some see nothing.
      constexpr int kTokens = kAttentionSegment + kAttentionMaxQueries / 2;
      const Shape shape{head_dim, 16, kTokens, 0, 0};
      const Cache cache(random, shape, 1, dtype);
      std::vector<int32_t> positions(kAttentionMaxQueries);
      std::iota(positions.begin(), positions.end(), kTokens - kAttentionMaxQueries);
      Queries queries(random, head_dim, positions);
      std::vector<float> scratch(static_cast<size_t>(AttentionScratchFloats(head_dim)), NAN);
      kernels().attention(cache.Args(0), queries.list.data(), kAttentionMaxQueries, scratch.data());
      const auto together = queries.out;
      kernels().attention(cache.Args(0), &queries.list.back(), 1, scratch.data());
      EXPECT_EQ(queries.out, together) << "head_dim " << head_dim;
      EXPECT_TRUE(std::isfinite(queries.out.back()));
      const int64_t floats = AttentionPartFloats(head_dim);
      std::vector<float> parts(static_cast<size_t>(2 * kAttentionMaxQueries * floats), NAN);
      for (int segment : {0, 1}) {
        kernels().attention_segment(cache.Args(0), queries.list.data(), kAttentionMaxQueries,
                                    segment, parts.data() + segment * kAttentionMaxQueries * floats,
                                    scratch.data());
      }
      std::fill(queries.out.begin(), queries.out.end(), NAN);
      for (int i = 0; i < kAttentionMaxQueries; ++i) {
        kernels().combine_attention(parts.data() + i * floats, kAttentionMaxQueries * floats, 2,
                                    head_dim, queries.list[static_cast<size_t>(i)].out);
      }
      EXPECT_EQ(queries.out, together) << "head_dim " << head_dim << " in segments";
    }
  }
}

TEST_P(AttentionTest, LargeScoresDoNotOverflow) {
  std::mt19937 random(3);
  const Shape shape{64, 16, 20, 0, 0};
  const Cache cache(random, shape, 1, KvDtype::kF16);
  Queries queries(random, 64, {19});
  for (float& value : queries.q) value *= 1e4f;
  std::vector<float> scratch(static_cast<size_t>(AttentionScratchFloats(64)), NAN);
  kernels().attention(cache.Args(0), queries.list.data(), 1, scratch.data());
  for (float value : queries.out) EXPECT_TRUE(std::isfinite(value));
}

TEST_P(AttentionTest, AppendRoundsToNearestAndSaturates) {
  for (int head_dim : {4, 24, 64}) {
    std::mt19937 random(4);
    auto k = RandomFloats(random, static_cast<size_t>(head_dim));
    auto v = RandomFloats(random, static_cast<size_t>(head_dim), 1e-4f);
    k[0] = 1e9f;
    k[1] = -1e9f;
    k[2] = 65504;
    std::vector<uint16_t> cache(static_cast<size_t>(2 * 3 * 4 * head_dim), 0);
    auto expected = cache;
    const auto half = static_cast<size_t>(3 * 4 * head_dim);
    const auto kv = [&](std::vector<uint16_t>& memory) {
      auto* bytes = reinterpret_cast<uint8_t*>(memory.data());
      return PagedKv{KvDtype::kF16, bytes, bytes + 2 * half, 4, 1, head_dim};
    };
    ref::AppendKv(kv(expected), 2, 0, 3, k.data(), v.data());
    kernels().append_kv(kv(cache), 2, 0, 3, k.data(), v.data());
    EXPECT_EQ(cache, expected);
    EXPECT_EQ(HalfToFloat(cache[static_cast<size_t>(11 * head_dim)]), 65504.0f);
  }
}

TEST_P(AttentionTest, AppendKeepsFloatsAsTheyAre) {
  constexpr int kDim = 20;
  std::mt19937 random(5);
  auto k = RandomFloats(random, kDim);
  const auto v = RandomFloats(random, kDim, 1e-30f);
  k[0] = 1e9f;
  std::vector<float> cache(2 * 2 * 4 * kDim, NAN);
  float* values = cache.data() + 2 * 4 * kDim;
  kernels().append_kv({KvDtype::kF32, reinterpret_cast<uint8_t*>(cache.data()),
                       reinterpret_cast<uint8_t*>(values), 4, 1, kDim},
                      1, 0, 2, k.data(), v.data());
  constexpr int kAt = (4 + 2) * kDim;
  EXPECT_TRUE(std::equal(k.begin(), k.end(), cache.data() + kAt));
  EXPECT_TRUE(std::equal(v.begin(), v.end(), values + kAt));
  const auto written =
      std::count_if(cache.begin(), cache.end(), [](float x) { return !std::isnan(x); });
  EXPECT_EQ(written, 2 * kDim);
}

// What attention reads is what the format says that the bytes stand for.
TEST_P(AttentionTest, AppendedHeadsAreReadAsTheirFormatSays) {
  constexpr int kDim = 80;
  std::mt19937 random(6);
  for (const KvDtype dtype : {KvDtype::kInt8, KvDtype::kInt4}) {
    const auto k = RandomFloats(random, kDim);
    const auto v = RandomFloats(random, kDim);
    const auto key = static_cast<size_t>(KvHeadBytes(KeyDtype(dtype), kDim));
    std::vector<uint8_t> cache(4 * static_cast<size_t>(KvTokenBytes(dtype, kDim)), 0xff);
    const PagedKv kv{dtype, cache.data(), cache.data() + 4 * key, 4, 1, kDim};
    kernels().append_kv(kv, 0, 0, 0, k.data(), v.data());
    EXPECT_EQ(std::count(cache.begin() + static_cast<std::ptrdiff_t>(key),
                         cache.begin() + static_cast<std::ptrdiff_t>(4 * key), 0xff),
              static_cast<std::ptrdiff_t>(3 * key));
    std::vector<float> stored_key(kDim);
    ref::DequantizeKvHead(KeyDtype(dtype), kv.k, kDim, stored_key.data());
    for (size_t i = 0; i < k.size(); ++i) EXPECT_NEAR(stored_key[i], k[i], 5 * 0.5f / 127);
    std::vector<float> expected(kDim);
    ref::DequantizeKvHead(dtype, kv.v, kDim, expected.data());
    Queries queries(random, kDim, {0});  // one token: its value comes out as it is
    std::vector<float> scratch(static_cast<size_t>(AttentionScratchFloats(kDim)), NAN);
    const int32_t block = 0;
    kernels().attention({kv, &block, 0, 1, 0, 0}, queries.list.data(), 1, scratch.data());
    EXPECT_EQ(queries.out, expected);
  }
}

}  // namespace
}  // namespace quern::kernels::testing
