// Whole models through the CUDA backend on the emulated device, against float32 on the CPU.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "runtime/backend/cuda/make_cuda_backend.h"
#include "tests/unit/runtime/backend/cuda/rounding_backend.h"
#include "tests/unit/runtime/backend/cuda/router_gaps.h"
#include "tests/unit/runtime/backend/cuda/traffic.h"
#include "tests/unit/runtime/model/tiny_model.h"

namespace quern::testing {
namespace {

using kernels::ActivationType;

constexpr int kSteps = 64;
// Of the router's logits' deviation. Rounding moves a logit by some 2^-11 of it in binary16.
constexpr double kClearGap = 0.01;

struct Case {
  const char* name;
  const char* architecture;
  GgmlType type;  // of the matrices
  uint32_t width;
  ActivationType activations;
  uint32_t experts = 0;
  uint32_t experts_used = 0;
};

void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

TinyModel TinyOf(const Case& c) {
  TinyModel tiny;
  tiny.architecture = c.architecture;
  tiny.type = c.type;
  tiny.width = c.width;
  tiny.ffn_width = c.width;
  tiny.heads = c.width / 64;  // rows of attention's output are as long as the others
  tiny.kv_heads = (tiny.heads + 1) / 2;
  tiny.head_dim = 64;
  tiny.vocab = 70;
  tiny.window = 12;
  tiny.experts = c.experts;
  tiny.experts_used = c.experts_used;
  tiny.expert_ffn_width = c.width;
  return tiny;
}

std::unique_ptr<Model> LoadOn(const TinyModel& tiny, std::unique_ptr<Backend> backend,
                              const ModelOptions& options) {
  auto model = tiny.Load(std::move(backend), options);
  EXPECT_TRUE(model.ok()) << model.error().message;
  return model.ok() ? std::move(*model) : nullptr;
}

double RootMeanSquareDifference(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += std::pow(double{a[i]} - b[i], 2);
  return std::sqrt(sum / static_cast<double>(a.size()));
}

// How far 16-bit activations move a row's logits: the most of several ways to round them, and no
// less than they move all rows.
class Deviations {
 public:
  Deviations(const AllLogits& right, const std::vector<AllLogits>& rounded) {
    double squares = 0;
    for (const auto& [at, logits] : right) {
      double& most = rows_[at];
      for (const AllLogits& other : rounded) {
        const double moved = RootMeanSquareDifference(logits, other.at(at));
        squares += moved * moved;
        most = std::max(most, moved);
      }
    }
    all_ = std::sqrt(squares / static_cast<double>(right.size() * rounded.size()));
  }
  double all() const { return all_; }
  double Of(const std::pair<int, int>& at) const { return std::max(all_, rows_.at(at)); }

 private:
  std::map<std::pair<int, int>, double> rows_;
  double all_ = 0;
};

// Of the two best of a row: the best one and how far it is ahead.
std::pair<size_t, float> Best(const std::vector<float>& logits) {
  const auto best = static_cast<size_t>(std::ranges::max_element(logits) - logits.begin());
  float second = -INFINITY;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (i != best) second = std::max(second, logits[i]);
  }
  return {best, logits[best] - second};
}

// The float32 reference's logits, without those after a token whose experts nearly tie: there
// rounding may choose others, which is a jump, of that token and of what sees it.
AllLogits ClearLogits(const Case& c, const ModelOptions& options, uint64_t seed) {
  std::vector<double> gaps;
  const auto reference = LoadOn(TinyOf(c), MakeGapBackend(&gaps), options);
  if (reference == nullptr) return {};
  std::map<int, int> first_tie;  // a sequence's position
  AllLogits all = RunTraffic(*reference, seed, kSteps, [&](const StepRows& rows) {
    for (size_t i = 0; i < rows.size(); ++i) {
      if (gaps[i] < kClearGap) first_tie.insert(rows[i]);
    }
  });
  std::erase_if(all, [&](const auto& row) {
    const auto tie = first_tie.find(row.first.first);
    return tie != first_tie.end() && row.first.second >= tie->second;
  });
  return all;
}

class CudaAgreementTest : public ::testing::TestWithParam<Case> {};

// The bound is what 16-bit activations cost: 8 times the root mean square by which a row's logits
// move when the float32 reference's activations are rounded where the GPU's are. Errors of
// independent roundings are about Gaussian with that deviation; of a million numbers none is off by
// 5 deviations then, and the row's deviation is an estimate.
TEST_P(CudaAgreementTest, JoiningAndLeavingSequencesGetTheReferencesLogits) {
  const Case& c = GetParam();
  const TinyModel tiny = TinyOf(c);
  const uint64_t seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  const ModelOptions float32{.threads = 1, .kv_dtype = KvDtype::kF32, .float32_weights = true};
  auto cuda = MakeCudaBackend({.activations = c.activations, .threads = 1});
  ASSERT_TRUE(cuda.ok()) << cuda.error().message;
  const auto model = LoadOn(tiny, std::move(*cuda), {});
  ASSERT_TRUE(model);

  const AllLogits right = ClearLogits(c, float32, seed);
  std::vector<AllLogits> rounded;
  for (uint64_t way = 0; way < 4; ++way) {
    const auto rounding = LoadOn(tiny, MakeRoundingBackend(c.activations, way), float32);
    ASSERT_TRUE(rounding);
    rounded.push_back(RunTraffic(*rounding, seed, kSteps));
  }
  const AllLogits got = RunTraffic(*model, seed, kSteps);
  ASSERT_TRUE(c.experts != c.experts_used || got.size() == right.size());
  RecordProperty("clear", std::to_string(static_cast<double>(right.size()) / got.size()));
  ASSERT_GT(right.size(), 100u);
  const Deviations deviations(right, rounded);
  ASSERT_GT(deviations.all(), 0);

  double worst = 0;  // in bounds
  size_t decided = 0;
  for (const auto& [at, logits] : right) {
    SCOPED_TRACE("sequence " + std::to_string(at.first) + ", position " +
                 std::to_string(at.second));
    const std::vector<float>& others = got.at(at);
    const double bound = 8 * deviations.Of(at);
    for (size_t i = 0; i < logits.size(); ++i) {
      worst = std::max(worst, std::abs(double{logits[i]} - others[i]) / bound);
      ASSERT_LE(worst, 1) << "token " << i;
    }
    const auto [best, ahead] = Best(logits);
    if (ahead <= 2 * bound) continue;
    ++decided;
    ASSERT_EQ(Best(others).first, best);
  }
  // The bound says something: it is far below what tells tokens apart.
  EXPECT_GT(decided, right.size() / 5);
  RecordProperty("worst", std::to_string(worst));
  RecordProperty("decided", std::to_string(static_cast<double>(decided) / right.size()));
  RecordProperty("error", std::to_string(Deviations(right, {got}).all() / deviations.all()));
  EXPECT_LE(Deviations(right, {got}).all(), deviations.all());
}

constexpr Case kCases[] = {
    {"LlamaQ8Bf16", "llama", GgmlType::kQ8_0, 128, ActivationType::kBF16},
    {"LlamaQ8F16", "llama", GgmlType::kQ8_0, 128, ActivationType::kF16},
    {"LlamaF16", "llama", GgmlType::kF16, 64, ActivationType::kF16},
    {"LlamaQ4_0Bf16", "llama", GgmlType::kQ4_0, 128, ActivationType::kBF16},
    {"LlamaQ4_1F16", "llama", GgmlType::kQ4_1, 128, ActivationType::kF16},
    {"LlamaQ4KF16", "llama", GgmlType::kQ4_K, 256, ActivationType::kF16},
    {"Gemma3Q8Bf16", "gemma3", GgmlType::kQ8_0, 128, ActivationType::kBF16},
    {"Gemma3F16", "gemma3", GgmlType::kF16, 64, ActivationType::kF16},
    {"Qwen3Q8Bf16", "qwen3", GgmlType::kQ8_0, 128, ActivationType::kBF16},
    {"Qwen3F16", "qwen3", GgmlType::kF16, 64, ActivationType::kF16},
    {"Qwen3MoeAllOf4Q8Bf16", "qwen3moe", GgmlType::kQ8_0, 128, ActivationType::kBF16, 4, 4},
    {"Qwen3MoeAllOf2Q4KF16", "qwen3moe", GgmlType::kQ4_K, 256, ActivationType::kF16, 2, 2},
    {"Qwen3Moe2Of8F16", "qwen3moe", GgmlType::kF16, 64, ActivationType::kF16, 8, 2},
    {"Qwen3Moe3Of12Q8F16", "qwen3moe", GgmlType::kQ8_0, 128, ActivationType::kF16, 12, 3},
};
INSTANTIATE_TEST_SUITE_P(Families, CudaAgreementTest, ::testing::ValuesIn(kCases),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace quern::testing
