// Mixtures of experts of the CUDA backend on the emulated device, a layer at a time, against the
// CPU's in float32.

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "runtime/backend/cuda/make_cuda_backend.h"
#include "tests/unit/kernels/kernel_test_support.h"
#include "tests/unit/runtime/model/tiny_model.h"

namespace quern::testing {
namespace {

using kernels::ActivationType;
using kernels::WeightType;

const Backend::PartTaken kIgnored = [](std::span<const std::byte>) {};

struct LayerShape {
  int experts = 6;
  int top_k = 6;
  int64_t width = 64;
  int64_t ffn_width = 96;
  WeightType gate = WeightType::kF16;
  WeightType up = WeightType::kF16;
  WeightType down = WeightType::kF16;
  ActivationType activations = ActivationType::kF16;
};

void PrintTo(const LayerShape& shape, std::ostream* out) {
  *out << kernels::FindWeightTypeInfo(shape.gate)->name << ' '
       << kernels::FindWeightTypeInfo(shape.up)->name << ' '
       << kernels::FindWeightTypeInfo(shape.down)->name;
}

struct LayerWeights {
  static constexpr int kTokens = 48;

  LayerWeights(const LayerShape& s, unsigned seed) : shape(s) {
    std::mt19937 random(seed);
    gate = kernels::testing::RandomWeights(random, s.gate, s.experts * s.ffn_width, s.width);
    up = kernels::testing::RandomWeights(random, s.up, s.experts * s.ffn_width, s.width);
    down = kernels::testing::RandomWeights(random, s.down, s.experts * s.width, s.ffn_width);
    const auto width = static_cast<size_t>(s.width);
    router = kernels::testing::RandomFloats(random, static_cast<size_t>(s.experts) * width,
                                            1 / std::sqrt(static_cast<float>(s.width)));
    table = kernels::testing::RandomFloats(random, kTokens * width);
  }

  LayerShape shape;
  std::vector<uint8_t> gate, up, down;  // of all experts, in GGUF's layout
  std::vector<float> router, table;
};

// A layer whose input is the norm of an embedding.
class ExpertLayer {
 public:
  // `float32`: the weights are widened first.
  ExpertLayer(std::unique_ptr<Backend> backend, const LayerWeights& w, bool float32)
      : width_(w.shape.width), backend_(std::move(backend)) {
    const LayerShape& s = w.shape;
    const auto load = [&](WeightType type, const std::vector<uint8_t>& bytes, int64_t rows,
                          int64_t cols) {
      std::span<const std::byte> data = std::as_bytes(std::span(bytes));
      std::vector<float> wide;
      if (float32) {
        wide = Dequantize(type, data, s.experts * rows * cols);
        data = std::as_bytes(std::span(wide));
      }
      return backend_
          ->LoadExperts(float32 ? WeightType::kF32 : type, data, s.experts, rows, cols, kIgnored)
          .value();
    };
    gate_ = load(s.gate, w.gate, s.ffn_width, s.width);
    up_ = load(s.up, w.up, s.ffn_width, s.width);
    down_ = load(s.down, w.down, s.width, s.ffn_width);
    router_ = backend_->LoadRouter(std::as_bytes(std::span(w.router)), s.experts, s.width).value();
    table_ = backend_
                 ->LoadMatrix(WeightType::kF32, std::as_bytes(std::span(w.table)),
                              LayerWeights::kTokens, s.width, kIgnored)
                 .value();
    ones_ = backend_->LoadVector(std::vector<float>(static_cast<size_t>(width_), 1)).value();
    residual_ = backend_->NewTensor(TensorKind::kResidual, width_);
    x_ = backend_->NewTensor(TensorKind::kActivations, width_);
    number_ = backend_->AddExperts({.router = router_.get(),
                                    .gate = gate_.get(),
                                    .up = up_.get(),
                                    .down = down_.get(),
                                    .top_k = s.top_k});
    EXPECT_TRUE(backend_->AllocateKv({1, 1, 64}, {16, 4}).ok());
  }

  // What comes of the tokens, as one prompt or, decoding, as a sequence each.
  std::vector<float> Run(const std::vector<int32_t>& tokens, bool decoding) {
    const auto rows = static_cast<int32_t>(tokens.size());
    const std::vector<int32_t> blocks = {0, 1, 2, 3};
    std::vector<int32_t> positions(tokens.size());
    std::vector<ForwardBatch::Sequence> sequences;
    if (decoding) {
      for (int32_t row = 0; row < rows; ++row) sequences.push_back({row, 1, 1, blocks});
    } else {
      std::iota(positions.begin(), positions.end(), 0);
      sequences.push_back({0, rows, rows, blocks});
    }
    const Status status = backend_->RunStep({tokens, positions, sequences, {}}, [&] {
      backend_->Embed(*table_, 0, 1, residual_);
      backend_->AddRmsNorm(nullptr, nullptr, ones_.get(), 1e-6f, residual_, x_);
      backend_->Experts(number_, *x_, x_);
    });
    EXPECT_TRUE(status.ok()) << status.error().message;
    std::vector<float> out(tokens.size() * static_cast<size_t>(width_));
    EXPECT_TRUE(backend_->Read(*x_, out).ok());
    return out;
  }

  std::vector<float> Row(const std::vector<float>& out, size_t row) const {
    const auto begin = out.begin() + static_cast<std::ptrdiff_t>(row) * width_;
    return {begin, begin + width_};
  }

 private:
  int64_t width_;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<ExpertMatrices> gate_, up_, down_;
  std::unique_ptr<Matrix> router_, table_;
  std::unique_ptr<Vector> ones_;
  Tensor* residual_;
  Tensor* x_;
  int number_;
};

std::unique_ptr<Backend> Gpu(ActivationType type) {
  return MakeCudaBackend({.activations = type, .threads = 1}).value();
}

std::vector<int32_t> FirstTokens(int32_t count) {
  std::vector<int32_t> tokens(static_cast<size_t>(count));
  std::iota(tokens.begin(), tokens.end(), 0);
  return tokens;
}

// The root mean square of the difference over that of `right`.
double RelativeError(const std::vector<float>& got, const std::vector<float>& right) {
  double off = 0;
  double all = 0;
  for (size_t i = 0; i < right.size(); ++i) {
    off += std::pow(double{got[i]} - right[i], 2);
    all += std::pow(double{right[i]}, 2);
  }
  return std::sqrt(off / all);
}

class CudaExpertsTest : public ::testing::TestWithParam<LayerShape> {};

// Five roundings, of the input, gates, ups, their product and an expert's result, are off by half a
// unit or less of their number each; the input's is seen by gates and ups. Then the sum's.
TEST_P(CudaExpertsTest, AllExpertsAreTheCpusSum) {
  const unsigned seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  const LayerWeights weights(GetParam(), seed);
  ExpertLayer right(MakeCpuBackend(1).value(), weights, true);
  const ActivationType type = GetParam().activations;
  ExpertLayer layer(Gpu(type), weights, false);
  const double half_unit = type == ActivationType::kF16 ? 0x1p-11 : 0x1p-8;
  for (const int32_t tokens : {1, 21}) {
    const auto all = FirstTokens(tokens);
    EXPECT_LT(RelativeError(layer.Run(all, false), right.Run(all, false)), 7 * half_unit);
  }
}

// Among others of other number, in a prompt or decoding, where rows fill a step up, launched,
// recorded and repeated.
TEST_P(CudaExpertsTest, ARowHasTheSameBitsWhateverTheBatch) {
  const unsigned seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  LayerShape shape = GetParam();
  shape.top_k = 2;
  const LayerWeights weights(shape, seed);
  ExpertLayer layer(Gpu(shape.activations), weights, false);
  const std::vector<float> prompt = layer.Run(FirstTokens(40), false);
  const std::vector<int32_t> several[] = {{7}, {7, 3, 39}, {47, 46, 3, 45, 44, 43, 42, 41, 7}};
  for (int time = 0; time < 3; ++time) {
    for (const std::vector<int32_t>& tokens : several) {
      const std::vector<float> out = layer.Run(tokens, true);
      for (size_t row = 0; row < tokens.size(); ++row) {
        if (tokens[row] >= 40) continue;
        EXPECT_EQ(layer.Row(out, row), layer.Row(prompt, static_cast<size_t>(tokens[row])))
            << "token " << tokens[row] << " of " << tokens.size() << ", time " << time;
      }
    }
  }
  EXPECT_EQ(layer.Run(FirstTokens(40), false), prompt);
}

INSTANTIATE_TEST_SUITE_P(
    Types, CudaExpertsTest,
    ::testing::Values(
        LayerShape{}, LayerShape{.down = WeightType::kBF16},
        LayerShape{.gate = WeightType::kQ4_0, .up = WeightType::kQ4_1, .down = WeightType::kQ5_0},
        // Experts whose last tile of rows is not full, and parts of one type and another.
        LayerShape{.ffn_width = 40, .gate = WeightType::kQ8_0, .down = WeightType::kF32},
        LayerShape{.experts = 3,
                   .top_k = 3,
                   .width = 256,
                   .ffn_width = 256,
                   .gate = WeightType::kQ4_K,
                   .up = WeightType::kQ4_K,
                   .down = WeightType::kQ6_K,
                   .activations = ActivationType::kBF16}));

// Experts whose routers differ by less than 16 bits tell apart: rounded, all would be equal, and
// the first expert be chosen.
TEST(CudaExperts, TheRouterIsNotRoundedToTheActivationsType) {
  LayerShape shape{.experts = 8, .top_k = 1};
  LayerWeights weights(shape, 1);
  const auto width = static_cast<size_t>(shape.width);
  for (size_t i = 0; i < weights.router.size(); ++i) {
    const float base = static_cast<float>(1 + i % width % 7) / 64;
    weights.router[i] = base * (1 + static_cast<float>(i / width) * 0x1p-13f);
  }
  for (size_t i = 0; i < weights.table.size(); ++i) {  // even tokens choose the last, odd the first
    weights.table[i] = std::copysign(weights.table[i], i / width % 2 == 0 ? 1.0f : -1.0f);
  }
  ExpertLayer right(MakeCpuBackend(1).value(), weights, true);
  const auto all = FirstTokens(8);
  const std::vector<float> expected = right.Run(all, false);
  for (const ActivationType type : {ActivationType::kBF16, ActivationType::kF16}) {
    ExpertLayer layer(Gpu(type), weights, false);
    const std::vector<float> got = layer.Run(all, false);
    for (size_t row = 0; row < all.size(); ++row) {
      EXPECT_LT(RelativeError(layer.Row(got, row), right.Row(expected, row)), 0.05)
          << "token " << row;
    }
  }
}

TEST(CudaExperts, WhatNoKernelTakesIsRefused) {
  const auto gpu = Gpu(ActivationType::kF16);
  const auto refusal = [](const auto& loaded) {
    return loaded.ok() ? std::string("it was taken") : loaded.error().message;
  };
  const std::vector<std::byte> bytes(size_t{2} * 32 * 64 * 4);
  const std::span<const std::byte> all(bytes);
  EXPECT_NE(
      refusal(gpu->LoadExperts(WeightType::kQ5_K, all.first(2 * 32 * 176), 2, 32, 256, kIgnored))
          .find("stored as Q5_K, which the CUDA backend does not multiply with"),
      std::string::npos);
  EXPECT_NE(
      refusal(gpu->LoadExperts(WeightType::kF32, all.first(2 * 32 * 60 * 4), 2, 32, 60, kIgnored))
          .find("rows of 60 weights: on a GPU they must be a multiple of 8 long"),
      std::string::npos);
  const std::vector<float> large(64, 70000);
  EXPECT_NE(refusal(gpu->LoadRouter(std::as_bytes(std::span(large)), 2, 32)).find("beyond 65,504"),
            std::string::npos);
}

TEST(CudaExperts, AModelsErrorNamesTheTensorAndItsType) {
  TinyModel tiny{.architecture = "qwen3moe", .head_dim = 64};
  tiny.edit = [](const std::string& name, std::vector<uint64_t>*, uint32_t* type) {
    if (name == "blk.1.ffn_up_exps.weight") *type = static_cast<uint32_t>(GgmlType::kQ5_1);
    return true;
  };
  const auto model = tiny.Load(Gpu(ActivationType::kBF16), {});
  ASSERT_FALSE(model.ok());
  EXPECT_EQ(model.error().code, ErrorCode::kUnsupported);
  EXPECT_NE(model.error().message.find("tensor blk.1.ffn_up_exps.weight: stored as Q5_1"),
            std::string::npos)
      << model.error().message;
}

TEST(CudaExperts, EachPartOfTheDataIsGivenBackOnce) {
  const auto gpu = Gpu(ActivationType::kF16);
  const std::vector<std::byte> weights(size_t{3} * 40 * 34);  // Q8_0, rows of 32
  size_t taken = 0;
  const auto loaded =
      gpu->LoadExperts(WeightType::kQ8_0, weights, 3, 40, 32, [&](std::span<const std::byte> part) {
        EXPECT_EQ(part.data(), weights.data() + taken);
        taken += part.size();
      });
  ASSERT_TRUE(loaded.ok());
  EXPECT_EQ(taken, weights.size());
  EXPECT_EQ((*loaded)->bytes(), 3 * 64 * 34);
}

}  // namespace
}  // namespace quern::testing
