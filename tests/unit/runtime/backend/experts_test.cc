// Mixtures of experts of the CPU backend against float64 on the dequantised weights.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>

#include "runtime/backend/cpu/cpu_backend.h"
#include "tests/unit/kernels/kernel_test_support.h"

namespace quern {
namespace {

using kernels::RouterNorm;
using kernels::WeightType;

struct ExpertShape {
  int experts = 8;
  int top_k = 2;
  int64_t width = 256;
  int64_t ffn_width = 256;
  WeightType gate = WeightType::kF32;
  WeightType up = WeightType::kF32;
  WeightType down = WeightType::kF32;
  RouterNorm norm = RouterNorm::kChosenExperts;
  float scale = 1;
  bool one_takes_all = false;  // the last expert's logit is the greatest of every token
};

std::string Text(const ExpertShape& s) {
  return fmt::format("{} experts, {} chosen, {} x {}, {} {} {}", s.experts, s.top_k, s.width,
                     s.ffn_width, kernels::FindWeightTypeInfo(s.gate)->name,
                     kernels::FindWeightTypeInfo(s.up)->name,
                     kernels::FindWeightTypeInfo(s.down)->name);
}

struct Stack {
  WeightType type;
  std::vector<uint8_t> bytes;  // of all experts, in GGUF's layout
  int64_t rows;
  int64_t cols;

  std::vector<uint8_t> Of(int expert, int experts) const {
    const auto size = static_cast<std::ptrdiff_t>(bytes.size()) / experts;
    return {bytes.begin() + expert * size, bytes.begin() + (expert + 1) * size};
  }
};

Stack RandomStack(std::mt19937& random, WeightType type, int experts, int64_t rows, int64_t cols) {
  return {type, kernels::testing::RandomWeights(random, type, experts * rows, cols), rows, cols};
}

// One layer of experts on a backend, whose input is the norm of an embedding.
class Layer {
 public:
  Layer(const kernels::CpuKernels& kernels, int threads, const ExpertShape& shape, unsigned seed)
      : shape_(shape), backend_(kernels, threads, int64_t{1} << 40) {
    std::mt19937 random(seed);
    gate_ = RandomStack(random, shape.gate, shape.experts, shape.ffn_width, shape.width);
    up_ = RandomStack(random, shape.up, shape.experts, shape.ffn_width, shape.width);
    down_ = RandomStack(random, shape.down, shape.experts, shape.width, shape.ffn_width);
    router_ = kernels::testing::RandomFloats(
        random, static_cast<size_t>(shape.experts) * static_cast<size_t>(shape.width),
        2 / std::sqrt(static_cast<float>(shape.width)));
    auto inputs =
        kernels::testing::RandomFloats(random, kTokens * static_cast<size_t>(shape.width));
    if (shape.one_takes_all) {
      for (float& x : inputs) x = std::fabs(x);
      for (size_t i = 0; i < router_.size(); ++i) {
        router_[i] = i + static_cast<size_t>(shape.width) < router_.size() ? -0.01f : 0.1f;
      }
    }
    const auto matrix = [&](const std::vector<float>& values) {
      return backend_
          .LoadMatrix(WeightType::kF32, std::as_bytes(std::span(values)),
                      std::ssize(values) / shape.width, shape.width, kNotTold)
          .value();
    };
    router_matrix_ = matrix(router_);
    table_ = matrix(inputs);
    gate_matrices_ = Load(gate_);
    up_matrices_ = Load(up_);
    down_matrices_ = Load(down_);
    ones_ = backend_.LoadVector(std::vector<float>(static_cast<size_t>(shape.width), 1)).value();
    residual_ = backend_.NewTensor(TensorKind::kResidual, shape.width);
    x_ = backend_.NewTensor(TensorKind::kActivations, shape.width);
    out_ = backend_.NewTensor(TensorKind::kActivations, shape.width);
    number_ = backend_.AddExperts({.router = router_matrix_.get(),
                                   .gate = gate_matrices_.get(),
                                   .up = up_matrices_.get(),
                                   .down = down_matrices_.get(),
                                   .top_k = shape.top_k,
                                   .norm = shape.norm,
                                   .scale = shape.scale});
  }

  static constexpr size_t kTokens = 64;

  // What comes of these tokens; x: what went in.
  std::vector<float> Run(const std::vector<int32_t>& tokens, std::vector<float>* x,
                         bool in_place = false) {
    std::vector<int32_t> positions(tokens.size());
    std::iota(positions.begin(), positions.end(), 0);
    const auto rows = static_cast<int32_t>(tokens.size());
    const ForwardBatch::Sequence sequence{0, rows, rows, {}};
    std::vector<float> out(tokens.size() * static_cast<size_t>(shape_.width));
    if (x != nullptr) x->resize(out.size());
    const Status status = backend_.RunStep({tokens, positions, std::span(&sequence, 1), {}}, [&] {
      backend_.Embed(*table_, 0, 1, residual_);
      backend_.AddRmsNorm(nullptr, nullptr, ones_.get(), 1e-6f, residual_, x_);
      if (x != nullptr) {
        EXPECT_TRUE(backend_.Read(*x_, *x));
      }
      backend_.Experts(number_, *x_, in_place ? x_ : out_);
    });
    EXPECT_TRUE(status);
    EXPECT_TRUE(backend_.Read(in_place ? *x_ : *out_, out));
    return out;
  }

  // Of one row of x: what is expected, and by how much it may be off. False where float32 may
  // choose other experts.
  bool Expect(const float* x, std::vector<double>* out, std::vector<double>* error) const {
    std::vector<float> logits;
    double logit_error = 0;
    for (int expert = 0; expert < shape_.experts; ++expert) {
      double sum = 0;
      double magnitude = 0;
      for (int64_t i = 0; i < shape_.width; ++i) {
        const double term = double{router_[static_cast<size_t>(expert * shape_.width + i)]} * x[i];
        sum += term;
        magnitude += std::fabs(term);
      }
      logits.push_back(static_cast<float>(sum));
      // `width` roundings of sums no larger than their terms' magnitudes, and the one above.
      logit_error =
          std::max(logit_error, (static_cast<double>(shape_.width) + 1) * 0x1p-24 * magnitude);
    }
    std::vector<float> sorted = logits;
    std::sort(sorted.rbegin(), sorted.rend());
    const auto top_k = static_cast<size_t>(shape_.top_k);
    if (top_k < sorted.size() && sorted[top_k - 1] - sorted[top_k] <= 2 * logit_error) return false;
    std::vector<int32_t> ids(top_k);
    std::vector<double> weights(top_k);
    kernels::ref::MoeRoute(logits.data(), shape_.experts, shape_.top_k, shape_.norm, shape_.scale,
                           ids.data(), weights.data());
    out->assign(static_cast<size_t>(shape_.width), 0);
    error->assign(out->size(), 0);
    for (size_t slot = 0; slot < top_k; ++slot)
      AddExpert(x, ids[slot], weights[slot], logit_error, out, error);
    return true;
  }

 private:
  static inline const Backend::PartTaken kNotTold = [](std::span<const std::byte>) {};

  std::unique_ptr<ExpertMatrices> Load(const Stack& stack) {
    auto loaded = backend_.LoadExperts(stack.type, std::as_bytes(std::span(stack.bytes)),
                                       shape_.experts, stack.rows, stack.cols, kNotTold);
    EXPECT_EQ((*loaded)->experts(), shape_.experts);
    EXPECT_EQ((*loaded)->rows(), stack.rows);
    EXPECT_EQ((*loaded)->cols(), stack.cols);
    return std::move(loaded).value();
  }

  void AddExpert(const float* x, int expert, double weight, double logit_error,
                 std::vector<double>* out, std::vector<double>* error) const {
    const auto gate = gate_.Of(expert, shape_.experts);
    const auto up = up_.Of(expert, shape_.experts);
    const auto down = down_.Of(expert, shape_.experts);
    const auto ffn_width = static_cast<size_t>(shape_.ffn_width);
    std::vector<float> g(ffn_width), u(ffn_width), h(ffn_width);
    std::vector<double> h_error(ffn_width);
    kernels::ref::MatMul(gate_.type, gate.data(), shape_.ffn_width, shape_.width, x, 1, g.data());
    kernels::ref::MatMul(up_.type, up.data(), shape_.ffn_width, shape_.width, x, 1, u.data());
    for (size_t i = 0; i < ffn_width; ++i) {
      const auto row = static_cast<int64_t>(i);
      const double g_error =
          kernels::testing::MatMulTolerance(gate_.type, gate, row, shape_.width, x);
      const double u_error = kernels::testing::MatMulTolerance(up_.type, up, row, shape_.width, x);
      const double silu = g[i] / (1 + std::exp(-double{g[i]}));
      h[i] = static_cast<float>(silu * u[i]);
      // silu's slope is below 1.1; its own rounding as elementwise_test.cc has it.
      h_error[i] = 1.1 * g_error * (std::fabs(u[i]) + u_error) + std::fabs(silu) * u_error +
                   (std::fabs(double{g[i]}) + 8) * 4e-7 * std::fabs(h[i]) + 1e-12;
    }
    const auto width = static_cast<size_t>(shape_.width);
    std::vector<float> y(width), w(ffn_width);
    kernels::ref::MatMul(down_.type, down.data(), shape_.width, shape_.ffn_width, h.data(), 1,
                         y.data());
    const size_t row_bytes = down.size() / width;
    for (size_t c = 0; c < width; ++c) {
      kernels::ref::DequantizeRow(down_.type, down.data() + c * row_bytes, shape_.ffn_width,
                                  w.data());
      double y_error = kernels::testing::MatMulTolerance(down_.type, down, static_cast<int64_t>(c),
                                                         shape_.ffn_width, h.data());
      for (size_t i = 0; i < ffn_width; ++i) y_error += std::fabs(w[i]) * h_error[i];
      // A softmax changes by at most twice its logits' error, of itself; products and sums of the
      // slots are rounded to float32.
      const double weight_error = weight * (2.1 * logit_error + 0x1p-23);
      (*out)[c] += weight * y[c];
      (*error)[c] += weight * y_error + weight_error * (std::fabs(y[c]) + y_error) +
                     (shape_.top_k + 1) * 0x1p-24 * std::fabs(weight * y[c]);
    }
  }

  ExpertShape shape_;
  CpuBackend backend_;
  Stack gate_, up_, down_;
  std::vector<float> router_;
  std::unique_ptr<Matrix> router_matrix_, table_;
  std::unique_ptr<ExpertMatrices> gate_matrices_, up_matrices_, down_matrices_;
  std::unique_ptr<Vector> ones_;
  Tensor* residual_ = nullptr;
  Tensor* x_ = nullptr;
  Tensor* out_ = nullptr;
  int number_ = 0;
};

std::vector<int32_t> FirstTokens(int rows) {
  std::vector<int32_t> tokens(static_cast<size_t>(rows));
  std::iota(tokens.begin(), tokens.end(), 0);
  return tokens;
}

class ExpertsTest : public kernels::testing::IsaTest {
 protected:
  void ExpectNearReference(const ExpertShape& shape, const std::vector<int>& batches,
                           int threads = 1) {
    SCOPED_TRACE(Text(shape));
    Layer layer(kernels(), threads, shape, std::random_device{}());
    int compared = 0;
    int all = 0;
    for (const int rows : batches) {
      std::vector<float> x;
      std::vector<double> expected, error;
      const std::vector<float> out = layer.Run(FirstTokens(rows), &x);
      for (int64_t row = 0; row < rows; ++row, ++all) {
        if (!layer.Expect(x.data() + row * shape.width, &expected, &error)) continue;
        ++compared;
        for (int64_t c = 0; c < shape.width; ++c) {
          const auto i = static_cast<size_t>(c);
          ASSERT_NEAR(out[static_cast<size_t>(row * shape.width + c)], expected[i], error[i])
              << "row " << row << " of " << rows << ", column " << c;
        }
      }
    }
    EXPECT_GE(2 * compared, all);
  }
};
QUERN_FOR_EACH_ISA(ExpertsTest);

TEST_P(ExpertsTest, AgreesWithFloat64ForEveryTypeOfWeight) {
  for (const WeightType type : kernels::kAllWeightTypes) {
    ExpectNearReference({.gate = type, .up = type, .down = type}, {1, 7});
  }
}

TEST_P(ExpertsTest, AgreesWithFloat64WhereTypesDiffer) {
  ExpectNearReference(
      {.gate = WeightType::kQ4_K, .up = WeightType::kF16, .down = WeightType::kQ6_K}, {5});
  ExpectNearReference(
      {.gate = WeightType::kBF16, .up = WeightType::kF32, .down = WeightType::kQ8_0}, {5});
}

// Sizes that no tile and no group divides, so that a tile of one expert ends where another begins.
TEST_P(ExpertsTest, AgreesWithFloat64AtEveryNumberOfExpertsAndRows) {
  for (const int experts : {1, 3, 8, 13}) {
    for (int top_k = 1; top_k <= std::min(experts, 8); ++top_k) {
      ExpectNearReference({.experts = experts, .top_k = top_k, .width = 30, .ffn_width = 19},
                          {1, 2, 3, 9, 40});
    }
  }
  ExpectNearReference({.experts = 5,
                       .top_k = 3,
                       .width = 96,
                       .ffn_width = 32,
                       .gate = WeightType::kQ4_0,
                       .up = WeightType::kQ8_0,
                       .down = WeightType::kQ5_1},
                      {1, 2, 3, 4, 15, 16, 17, 40}, 3);
}

TEST_P(ExpertsTest, TakesWeightsAsAShareOfAllExperts) {
  ExpectNearReference(
      {.width = 48, .ffn_width = 33, .norm = RouterNorm::kAllExperts, .scale = 2.5f}, {1, 12});
}

TEST_P(ExpertsTest, OneExpertMayHaveAllRows) {
  for (const WeightType type : {WeightType::kF32, WeightType::kQ8_0}) {
    ExpectNearReference({.top_k = 1,
                         .width = 64,
                         .ffn_width = 64,
                         .gate = type,
                         .up = type,
                         .down = type,
                         .one_takes_all = true},
                        {1, 6, 40});
  }
}

// Alone, among others of other number and order, on more threads, with the output in the input's
// place.
TEST_P(ExpertsTest, ARowHasTheSameBitsWhateverTheBatch) {
  const unsigned seed = std::random_device{}();
  for (const WeightType type : kernels::kAllWeightTypes) {
    const ExpertShape shape{.top_k = 3, .gate = type, .up = type, .down = type};
    SCOPED_TRACE(Text(shape));
    Layer layer(kernels(), 1, shape, seed);
    const std::vector<float> together = layer.Run(FirstTokens(40), nullptr);
    const auto row_of = [&](const std::vector<float>& out, size_t row) {
      const float* begin = out.data() + row * static_cast<size_t>(shape.width);
      return std::vector<float>(begin, begin + shape.width);
    };
    Layer threaded(kernels(), 3, shape, seed);
    EXPECT_EQ(threaded.Run(FirstTokens(40), nullptr), together);
    EXPECT_EQ(threaded.Run(FirstTokens(40), nullptr, /*in_place=*/true), together);
    for (const int32_t token : {0, 17, 39}) {
      const auto expected = row_of(together, static_cast<size_t>(token));
      EXPECT_EQ(layer.Run({token}, nullptr), expected);
      EXPECT_EQ(row_of(threaded.Run({50, 3, token, 61}, nullptr), 2), expected);
    }
  }
}

TEST(CpuExpertMatrices, WeightsBeyondTheMemoryLimitAreRefusedWithFigures) {
  CpuBackend backend(kernels::CpuKernelsFor(kernels::CpuIsa::kScalar), 1, 3 << 20);
  const std::vector<std::byte> weights(4 << 20);  // 4 x 512 x 512 float32
  const auto refused = backend.LoadExperts(WeightType::kF32, weights, 4, 512, 512,
                                           [](std::span<const std::byte>) {});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kResourceExhausted);
  EXPECT_NE(refused.error().message.find("needs 4.0 MiB, but 3.0 MiB are left"), std::string::npos);
}

TEST(CpuExpertMatrices, GiveEachPartOfTheDataBackOnce) {
  CpuBackend backend(kernels::CpuKernelsFor(kernels::CpuIsa::kScalar), 1, 64 << 20);
  const std::vector<std::byte> weights(size_t{3} * 19 * 33 * 4);
  size_t taken = 0;
  const auto loaded = backend.LoadExperts(WeightType::kF32, weights, 3, 19, 33,
                                          [&](std::span<const std::byte> part) {
                                            EXPECT_EQ(part.data(), weights.data() + taken);
                                            taken += part.size();
                                          });
  ASSERT_TRUE(loaded);
  EXPECT_EQ(taken, weights.size());
}

}  // namespace
}  // namespace quern
