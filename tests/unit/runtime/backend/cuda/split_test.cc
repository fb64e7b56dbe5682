// Models split over processes with a CUDA backend each, on emulated devices, against float32 on the
// CPU in one.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "runtime/backend/cuda/make_cuda_backend.h"
#include "runtime/model/parallel_model.h"
#include "tests/unit/runtime/backend/cuda/rounding_backend.h"
#include "tests/unit/runtime/backend/cuda/shared_memory_ranks.h"
#include "tests/unit/runtime/backend/cuda/traffic.h"
#include "tests/unit/runtime/distributed/gloo_ranks.h"
#include "tests/unit/runtime/model/tiny_model.h"

namespace quern::testing {
namespace {

using kernels::ActivationType;

constexpr int kSplitSteps = 24;

struct SplitOnGpus {
  const char* name;
  const char* architecture;
  GgmlType type;
  ActivationType activations;
  int size;
};

void PrintTo(const SplitOnGpus& c, std::ostream* out) { *out << c.name; }

TinyModel TinyOf(const SplitOnGpus& c) {
  TinyModel tiny;
  tiny.architecture = c.architecture;
  tiny.type = c.type;
  tiny.width = 128;
  tiny.ffn_width = 256;
  tiny.heads = 4;
  tiny.kv_heads = 2;
  tiny.head_dim = 64;
  tiny.vocab = 70;
  tiny.window = 12;
  tiny.expert_ffn_width = 128;
  tiny.experts = tiny.experts_used = 4;  // all: of some, another may be chosen where two nearly tie
  return tiny;
}

double MeanSquareDifference(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += std::pow(double{a[i]} - b[i], 2);
  return sum / static_cast<double>(a.size());
}

// The bound is that of one GPU (agreement_test.cc): 8 times the deviation by which roundings to 16
// bits move logits; the ranks' parts of a sum are rounded before they are added, which doubles the
// error's square at most where there are as many parts as other roundings on the way.
std::string FarFrom(const TinyModel& tiny, ActivationType activations, uint64_t seed,
                    const AllLogits& got, int size) {
  const ModelOptions float32{.threads = 1, .kv_dtype = KvDtype::kF32, .float32_weights = true};
  const auto run = [&](std::unique_ptr<Backend> backend) {
    auto model = tiny.Load(std::move(backend), float32);
    return model ? RunTraffic(**model, seed, kSplitSteps) : AllLogits();
  };
  auto cpu = MakeCpuBackend(1);
  if (!cpu) return cpu.error().message;
  const AllLogits right = run(std::move(*cpu));
  double squares = 0;
  constexpr uint64_t kWays = 4;
  for (uint64_t way = 0; way < kWays; ++way) {
    const AllLogits rounded = run(MakeRoundingBackend(activations, way));
    for (const auto& [at, logits] : right) {
      squares += MeanSquareDifference(logits, rounded.at(at));
    }
  }
  const double deviation = std::sqrt(squares / static_cast<double>(right.size() * kWays));
  const double bound = 8 * std::sqrt(size) * deviation;
  double error = 0;
  for (const auto& [at, logits] : right) {
    const std::vector<float>& others = got.at(at);
    error += MeanSquareDifference(logits, others) / static_cast<double>(right.size());
    for (size_t i = 0; i < logits.size(); ++i) {
      if (std::abs(logits[i] - others[i]) <= bound) continue;
      return fmt::format("sequence {}, position {}, token {}: {} rather than {}; the bound is {}",
                         at.first, at.second, i, others[i], logits[i], bound);
    }
    const auto best = std::ranges::max_element(logits) - logits.begin();
    const auto chosen = std::ranges::max_element(others) - others.begin();
    const float ahead = logits[static_cast<size_t>(best)] - logits[static_cast<size_t>(chosen)];
    if (ahead > 2 * bound) return "another token is the likeliest";
  }
  if (right.size() < 50) return "too few rows to say anything";
  return std::sqrt(error) <= std::sqrt(size) * deviation ? "" : "the mean error is too large";
}

class SplitOnGpusTest : public GlooTest, public ::testing::WithParamInterface<SplitOnGpus> {};
constexpr SplitOnGpus kSplitCases[] = {
    {"LlamaQ8Over2", "llama", GgmlType::kQ8_0, ActivationType::kF16, 2},
    {"LlamaQ8Over4", "llama", GgmlType::kQ8_0, ActivationType::kBF16, 4},
    {"Gemma3F16Over2", "gemma3", GgmlType::kF16, ActivationType::kF16, 2},
    {"Gemma3Q8Over4", "gemma3", GgmlType::kQ8_0, ActivationType::kF16, 4},
    {"ExpertsQ8Over2", "qwen3moe", GgmlType::kQ8_0, ActivationType::kF16, 2},
};
INSTANTIATE_TEST_SUITE_P(Families, SplitOnGpusTest, ::testing::ValuesIn(kSplitCases),
                         [](const auto& info) { return std::string(info.param.name); });

TEST_P(SplitOnGpusTest, JoiningAndLeavingSequencesGetTheReferencesLogits) {
  const SplitOnGpus& c = GetParam();
  const TinyModel tiny = TinyOf(c);
  const uint64_t seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  timeout_ = std::chrono::minutes(5);
  SharedMemoryRanks shared(c.size);
  const auto results = Run(c.size, [&](Communicator& group) -> std::string {
    const auto gpus = shared.Join(group.rank());
    const LoadPart part = [&]() -> Result<std::unique_ptr<Model>> {
      CudaOptions options{.activations = c.activations, .threads = 1};
      options.group = gpus.get();
      QUERN_ASSIGN(auto backend, MakeCudaBackend(options));
      return tiny.Load(std::move(backend), {.threads = 1, .group = &group});
    };
    if (group.rank() > 0) {
      const Status followed = FollowParallelModel(group, part);
      return followed ? "" : followed.error().message;
    }
    AllLogits got;
    {
      auto model = LoadParallelModel(group, part, [](const Error&) {});
      if (!model) return model.error().message;
      got = RunTraffic(**model, seed, kSplitSteps);
    }
    const Status ended = EndFollowers(group);
    if (!ended) return ended.error().message;
    return FarFrom(tiny, c.activations, seed, got, c.size);
  });
  for (const std::string& said : results) EXPECT_EQ(said, "");
}

TEST(SplitOnGpus, ABackendOfOneRankIsRefusedAPartOfAModel) {
  class TwoRanks : public GlooTest {
   public:
    void TestBody() override {}
    using GlooTest::Run;
    using GlooTest::SetUp;
    using GlooTest::TearDown;
  } ranks;
  ranks.SetUp();
  const auto results = ranks.Run(2, [](Communicator& group) -> std::string {
    // One that has said its word ends, which must not be while the other still comes.
    if (const Status met = group.Barrier(); !met) return met.error().message;
    auto backend = MakeCudaBackend({.threads = 1});
    if (!backend) return backend.error().message;
    const auto part = TinyModel().Load(std::move(*backend), {.threads = 1, .group = &group});
    return part ? "it was loaded" : part.error().message;
  });
  ranks.TearDown();
  for (const std::string& said : results) {
    EXPECT_NE(said.find("a model for 2 processes on a backend of 1"), std::string::npos) << said;
  }
}

}  // namespace
}  // namespace quern::testing
