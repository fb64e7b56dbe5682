#include "quern/kernels/head_screen.h"

#include <functional>

#include "quern/kernels/matmul.h"
#include "tests/unit/kernels/kernel_test_support.h"

namespace quern::kernels::testing {
namespace {

constexpr WeightType kQ8 = WeightType::kQ8_0;

// Q8_0 with scales that are not negative, as quantisers make them.
std::vector<uint8_t> RandomHead(std::mt19937& random, int64_t rows, int64_t cols) {
  std::vector<uint8_t> source = RandomWeights(random, kQ8, rows, cols);
  for (size_t i = 1; i < source.size(); i += 34) source[i] &= 0x7f;
  return source;
}

class HeadScreenTest : public IsaTest {
 protected:
  // A head, rows of x, and what the whole product makes of them.
  struct Case {
    Packed head;
    std::vector<float> greatest_scales;
    int64_t rows;
    std::vector<float> x;
    std::vector<float> whole;  // [rows, head.rows]
  };

  Case Make(const std::vector<uint8_t>& source, int64_t columns, std::vector<float> x) const {
    Case c;
    const int64_t width = std::ssize(source) / 34 * 32 / columns;
    c.head = PackPlanes(kernels().lanes, columns, width, source);
    c.greatest_scales.assign(static_cast<size_t>(width / 32), 0);
    EXPECT_TRUE(RaiseGreatestScales(c.head.matrix, c.head.memory.data(), 0, c.head.matrix.tiles(),
                                    c.greatest_scales.data()));
    c.rows = std::ssize(x) / width;
    c.x = std::move(x);
    const Packed together = Pack(kQ8, kernels().lanes, columns, width, source);
    const Quantized quantized(kernels(), c.x, c.rows, width);
    c.whole.resize(static_cast<size_t>(c.rows * columns));
    const MatMulArgs args{&together.matrix, &quantized.view, c.x.data(), width,
                          c.rows,           c.whole.data(),  columns};
    kernels().matmul(args, 0, together.matrix.tiles());
    return c;
  }

  // Screens each row for its `rank` greatest. Expects bounds that hold, the bits of the whole
  // product for what is among them, and nothing else but those bits. Returns the bytes read.
  int64_t Check(const Case& c, int64_t rank) const {
    const PackedMatrix& w = c.head.matrix;
    const auto columns = static_cast<size_t>(w.rows);
    const auto groups = static_cast<size_t>(w.cols / 32);
    const Quantized quantized(kernels(), c.x, c.rows, w.cols);
    int64_t bytes = 0;
    for (int64_t row = 0; row < c.rows; ++row) {
      const float* whole = c.whole.data() + row * w.rows;
      std::vector<int32_t> greatest(groups), low_greatest(groups), order(groups);
      std::vector<float> half_range(groups), estimate(static_cast<size_t>(w.tiles())), y(columns);
      const LowHalfBounds bounds{greatest.data(), low_greatest.data(), half_range.data()};
      BoundLowHalves(quantized.view, row, bounds);
      RefineArgs args{
          {&w, &quantized.view, row, bounds, y.data(), estimate.data()}, order.data(), 0, 0};
      if (!ScreenMargin(bounds, c.greatest_scales.data(), w.cols / 32, &args.margin)) {
        const auto zero = [](float product) { return product == 0; };
        EXPECT_TRUE(std::all_of(whole, whole + columns, zero)) << "no screen for row " << row;
        continue;
      }
      kernels().screen(args.screen, w.tiles() / 2, w.tiles());
      kernels().screen(args.screen, 0, w.tiles() / 2);
      for (size_t column = 0; column < columns; ++column) {
        EXPECT_GE(y[column], whole[column]) << "column " << column;
      }
      for (size_t g = 0; g < groups; ++g) order[g] = static_cast<int32_t>(groups - 1 - g);
      std::vector<float> sorted(whole, whole + columns);
      std::ranges::sort(sorted, std::greater<>());
      args.threshold = sorted[static_cast<size_t>(rank - 1)];
      bytes += kernels().refine(args, 0, w.tiles() / 2);
      bytes += kernels().refine(args, w.tiles() / 2, w.tiles());
      for (size_t column = 0; column < columns; ++column) {
        const bool wanted = whole[column] >= args.threshold;
        if (!wanted && y[column] == kNotAmongGreatest) continue;
        EXPECT_EQ(std::memcmp(&y[column], whole + column, sizeof(float)), 0)
            << kernels().name << ", row " << row << " of " << c.rows << ", column " << column
            << (wanted ? ", among the greatest" : "") << ": " << y[column] << " for "
            << whole[column];
      }
    }
    return bytes;
  }
};
QUERN_FOR_EACH_ISA(HeadScreenTest);

TEST_P(HeadScreenTest, FindsTheGreatestWithTheBitsOfTheWholeProductAtEveryShape) {
  std::mt19937 random(std::random_device{}());
  for (const int64_t columns : {1, 16, 19, 40, 333}) {
    for (const int64_t width : {32, 96, 640}) {
      for (const int64_t rows : {1, 2, 3, 7}) {
        const auto x = RandomFloats(random, static_cast<size_t>(rows * width), 3);
        const Case c = Make(RandomHead(random, columns, width), columns, x);
        for (const int64_t rank : {int64_t{1}, int64_t{5}, columns}) {
          if (rank <= columns) Check(c, rank);
        }
      }
    }
  }
}

TEST_P(HeadScreenTest, HoldsForActivationsOfEveryKind) {
  std::mt19937 random(std::random_device{}());
  constexpr int64_t kWidth = 128, kColumns = 100;
  const std::vector<uint8_t> source = RandomHead(random, kColumns, kWidth);
  const auto with = [](const std::function<float(size_t)>& value) {
    std::vector<float> x(kWidth);
    for (size_t i = 0; i < x.size(); ++i) x[i] = value(i);
    return x;
  };
  const std::vector<float> normal = RandomFloats(random, kWidth);
  const std::vector<std::vector<float>> kinds = {
      with([](size_t i) { return i == 77 ? 5.0f : 0.0f; }),
      with([](size_t i) { return i == 77 ? -5.0f : 0.0f; }),
      with([](size_t) { return 1.0f; }),
      with([](size_t) { return -1.0f; }),
      with([](size_t i) { return i % 2 == 0 ? 1.0f : -1.0f; }),
      with([&](size_t i) { return i == 3 ? 1000.0f : normal[i]; }),
      with([&](size_t i) { return normal[i] * 1e20f; }),
      with([&](size_t i) { return normal[i] * 1e-30f; }),
      with([&](size_t i) { return normal[i] * 1e-38f; }),
      with([&](size_t i) { return i < 32 ? normal[i] * 1e-37f : 1e-42f; })};
  for (const auto& x : kinds) {
    for (const int64_t rank : {1, 7}) Check(Make(source, kColumns, x), rank);
  }
}

// Products that are equal, or as near as they can be: all that the last of the greatest equals are
// found.
TEST_P(HeadScreenTest, FindsAllThatAreEqual) {
  std::mt19937 random(std::random_device{}());
  constexpr int64_t kWidth = 64, kColumns = 70;
  constexpr size_t kRowBytes = kWidth / 32 * 34;
  std::vector<uint8_t> source = RandomHead(random, kColumns, kWidth);
  const auto x = RandomFloats(random, kWidth);
  for (size_t row = 30; row < 50; ++row) {
    std::copy_n(source.begin() + 7 * kRowBytes, kRowBytes, source.begin() + row * kRowBytes);
  }
  for (const int64_t rank : {1, 3, 10, 40}) Check(Make(source, kColumns, x), rank);
  for (size_t row = 0; row < kColumns; ++row) {  // one weight differs by one
    std::copy_n(source.begin(), kRowBytes, source.begin() + row * kRowBytes);
    source[row * kRowBytes + 2 + row % 32] ^= 1;
  }
  for (const int64_t rank : {1, 3, 10, 40}) Check(Make(source, kColumns, x), rank);
  for (size_t row = 0; row < kColumns; ++row) {
    std::copy_n(source.begin(), kRowBytes, source.begin() + row * kRowBytes);
  }
  Check(Make(source, kColumns, x), 1);
}

// The lower halves decide, and all of them are as far from the middle as they can be.
TEST_P(HeadScreenTest, HoldsWhereTheLowerHalvesAreAtTheirEnds) {
  constexpr int64_t kWidth = 32;
  std::vector<uint8_t> source;
  for (int row = 0; row < 64; ++row) {
    source.insert(source.end(), {0x00, 0x3c});  // 1
    for (int i = 0; i < 32; ++i) {
      const int upper = row % 3 == 0 ? 0x70 : row % 3 == 1 ? 0x80 : 0x00;
      source.push_back(static_cast<uint8_t>(upper | ((row >> (i % 5) & 1) != 0 ? 15 : 0)));
    }
  }
  std::vector<float> x(kWidth);
  for (const float sign : {1.0f, -1.0f}) {
    for (size_t i = 0; i < x.size(); ++i) x[i] = i % 3 == 0 ? -sign : sign;
    for (const int64_t rank : {1, 2, 20}) Check(Make(source, 64, x), rank);
  }
}

TEST_P(HeadScreenTest, ReadsLittleWhereOneProductStandsOut) {
  std::mt19937 random(std::random_device{}());
  constexpr int64_t kWidth = 640, kColumns = 4096;
  std::vector<uint8_t> source = RandomHead(random, kColumns, kWidth);
  std::vector<float> x(kWidth);
  for (size_t i = 0; i < source.size(); i += 34) PutHalf(source.data() + i, 0.01f);
  // Like the row in the middle.
  const uint8_t* like = source.data() + kColumns / 2 * kWidth / 32 * 34;
  for (size_t i = 0; i < kWidth; ++i) {
    x[i] = static_cast<float>(static_cast<int8_t>(like[i / 32 * 34 + 2 + i % 32]));
  }
  const int64_t low_bytes = kColumns * kWidth / 2;
  EXPECT_LT(Check(Make(source, kColumns, x), 1), low_bytes / 50);
}

TEST_P(HeadScreenTest, ATileThatIsDoneIsLeftAlone) {
  std::mt19937 random(3);
  const Case c = Make(RandomHead(random, 64, 32), 64, RandomFloats(random, 32));
  const Quantized quantized(kernels(), c.x, 1, 32);
  int32_t greatest = 0, low_greatest = 0;
  const int32_t order = 0;
  float half_range = 0;
  std::vector<float> estimate(static_cast<size_t>(c.head.matrix.tiles())), y(64);
  RefineArgs args{{&c.head.matrix,
                   &quantized.view,
                   0,
                   {&greatest, &low_greatest, &half_range},
                   y.data(),
                   estimate.data()},
                  &order,
                  0,
                  0};
  BoundLowHalves(quantized.view, 0, args.screen.bounds);
  kernels().screen(args.screen, 0, c.head.matrix.tiles());
  args.threshold = -std::numeric_limits<float>::infinity();
  kernels().refine(args, 1, 2);
  EXPECT_EQ(estimate[1], kTileDone);
  args.threshold = 1e30f;
  EXPECT_EQ(kernels().refine(args, 0, c.head.matrix.tiles()), 0);
  for (int64_t column = 0; column < 64; ++column) {
    const bool done = column / c.head.matrix.lanes == 1;
    const auto i = static_cast<size_t>(column);
    EXPECT_EQ(y[i], done ? c.whole[i] : kNotAmongGreatest) << column;
  }
}

TEST(HeadScreen, TakesNoScalesThatAreNegativeOrNoNumbers) {
  std::mt19937 random(4);
  for (const float wrong : {-0.5f, INFINITY, -INFINITY, NAN}) {
    std::vector<uint8_t> source = RandomHead(random, 20, 64);
    Packed packed = PackPlanes(8, 20, 64, source);
    float greatest[2] = {0, 0};
    EXPECT_TRUE(RaiseGreatestScales(packed.matrix, packed.memory.data(), 0, 3, greatest));
    PutHalf(source.data() + 34 * 29, wrong);
    packed = PackPlanes(8, 20, 64, source);
    EXPECT_FALSE(RaiseGreatestScales(packed.matrix, packed.memory.data(), 0, 3, greatest)) << wrong;
  }
}

TEST(HeadScreen, HasNoMarginForWhatIsZeroOrMightOverflow) {
  int32_t integers[1] = {0};
  for (const float half_range : {0.0f, 1e35f, INFINITY, NAN}) {
    float range[1] = {half_range};
    const float scale = 1;
    float margin = 0;
    EXPECT_FALSE(ScreenMargin({integers, integers, range}, &scale, 1, &margin)) << half_range;
  }
}

}  // namespace
}  // namespace quern::kernels::testing
