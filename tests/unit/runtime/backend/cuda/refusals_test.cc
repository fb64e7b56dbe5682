// What the backend refuses, with its words, and how it does with little memory.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "runtime/engine/engine.h"
#include "tests/unit/runtime/backend/cuda/cuda_models.h"
#include "tests/unit/runtime/backend/cuda/device_limit.h"
#include "tests/unit/runtime/engine/byte_tokenizer.h"

namespace quern::testing {
namespace {

using kernels::ActivationType;
using kernels::WeightType;
using ::testing::HasSubstr;

constexpr int64_t kMiB = 1 << 20;

template <typename T>
void ExpectError(const T& result, ErrorCode code, const std::string& text) {
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.error().code, code) << result.error().message;
  EXPECT_THAT(result.error().message, HasSubstr(text));
}

std::unique_ptr<Backend> MakeBackendOf(ActivationType activations) {
  auto backend = MakeCudaBackend({.activations = activations, .threads = 1});
  EXPECT_TRUE(backend.ok()) << backend.error().message;
  return backend.ok() ? std::move(*backend) : nullptr;
}

Result<std::unique_ptr<Matrix>> LoadFloats(Backend& backend, const std::vector<float>& values,
                                           int64_t rows) {
  return backend.LoadMatrix(WeightType::kF32, std::as_bytes(std::span(values)), rows,
                            std::ssize(values) / rows, [](std::span<const std::byte>) {});
}

TEST(CudaRefusals, OfTheDriver) {
  EXPECT_TRUE(CheckDriverVersion(13000, 13000).ok());
  EXPECT_TRUE(CheckDriverVersion(13020, 13000).ok());
  EXPECT_TRUE(CheckDriverVersion(13000, 13010).ok()) << "minor versions go together";
  EXPECT_TRUE(CheckDriverVersion(14000, 13000).ok());
  ExpectError(CheckDriverVersion(0, 13000), ErrorCode::kUnavailable,
              "there is no NVIDIA driver (libcuda.so.1): install 580 or later; in a pod it comes "
              "with the runtime class 'nvidia' and a limit of nvidia.com/gpu");
  ExpectError(CheckDriverVersion(12080, 13000), ErrorCode::kUnavailable,
              "the NVIDIA driver knows CUDA 12.8, and this program needs 13.0: install driver 580 "
              "or later");
}

TEST(CudaRefusals, OfANumberThatNoDeviceHas) {
  for (const int number : {1, -1, 77}) {
    ExpectError(MakeCudaBackend({.device = number}), ErrorCode::kUnavailable,
                "there is no GPU " + std::to_string(number) + ": there are 1, numbered from 0");
  }
}

TEST(CudaRefusals, OfTheKvCache) {
  const auto refuse = [](const TinyModel& tiny, KvDtype dtype, const KvLayout& layout,
                         ErrorCode code, const std::string& text) {
    const ModelOnCuda loaded = LoadOnCuda(tiny, {.threads = 1}, dtype);
    ASSERT_TRUE(loaded.model);
    ExpectError(loaded.model->AllocateKv(layout), code, text);
  };
  const TinyModel tiny = SmallModel();
  const char* formats = "a KV cache on a GPU stores f16 (of the activations' type), int8 or int4";
  refuse(tiny, KvDtype::kF32, {16, 4}, ErrorCode::kUnsupported, formats);
  refuse(tiny, KvDtype::kF16, {8, 4}, ErrorCode::kUnsupported,
         "blocks of 8 tokens in the KV cache: on a GPU they have 16, 32 or 64");
  refuse(tiny, KvDtype::kF16, {16, 0}, ErrorCode::kInvalidArgument, "at least one block");
}

// Before it takes any of the weights.
TEST(CudaRefusals, OfAModelsSizes) {
  const auto load = [](const TinyModel& tiny) {
    auto model = tiny.Load(MakeBackendOf(ActivationType::kBF16), {.threads = 1});
    return model.ok() ? Status() : Status(std::move(model).error());
  };
  for (const uint32_t size : {8u, 16u, 32u, 96u, 512u}) {
    TinyModel other = SmallModel();
    other.head_dim = size;
    ExpectError(load(other), ErrorCode::kUnsupported,
                "heads of " + std::to_string(size) +
                    " elements: attention on a GPU takes 64, 128 or 256 (--device cpu takes any)");
  }
  TinyModel wide = SmallModel();
  wide.layers = 1;
  wide.width = 16384;
  EXPECT_TRUE(load(wide).ok());
  wide.width += 64;
  ExpectError(load(wide), ErrorCode::kUnsupported,
              "a width of 16448: norms on a GPU take up to 16384 (--device cpu takes any)");
  const auto backend = MakeBackendOf(ActivationType::kBF16);
  ModelSizes sizes{.width = 64, .vocabulary = 1 << 20, .head_dim = 64};
  EXPECT_TRUE(backend->CheckSizes(sizes).ok());
  ++sizes.vocabulary;
  ExpectError(backend->CheckSizes(sizes), ErrorCode::kUnsupported,
              "a vocabulary of 1048577 tokens: drawing on a GPU takes up to 1048576");
}

TEST(CudaRefusals, OfStepsThatNoLaunchCounts) {
  const ModelOnCuda loaded = LoadOnCuda(SmallModel());
  ASSERT_TRUE(loaded.model);
  ExpectError(loaded.model->ReserveSteps(1 << 30, 4, 1024), ErrorCode::kUnsupported,
              "steps of 1073741824 tokens: with activations ");
  EXPECT_TRUE(loaded.model->ReserveSteps(1 << 10, 4, 1024).ok());
}

TEST(CudaRefusals, OfRotaryEmbeddingOfAnOddPartOfAHead) {
  for (const uint32_t dims : {32u, 64u, 62u, 2u}) {
    TinyModel tiny = SmallModel();
    tiny.metadata = [&](GgufWriter& writer) { writer.Uint("llama.rope.dimension_count", dims); };
    const ModelOnCuda loaded = LoadOnCuda(tiny);
    ASSERT_TRUE(loaded.model);
    const Status status = loaded.model->AllocateKv({16, 4});
    if (dims % 4 == 0) {
      EXPECT_TRUE(status.ok()) << status.error().message;
      continue;
    }
    ExpectError(status, ErrorCode::kUnsupported,
                "rotary embedding of " + std::to_string(dims) + " of a head's 64 elements");
  }
}

TEST(CudaRefusals, OfWeights) {
  const auto bf16 = MakeBackendOf(ActivationType::kBF16);
  const auto f16 = MakeBackendOf(ActivationType::kF16);
  ASSERT_TRUE(bf16 && f16);
  const std::vector<float> twelve(36, 1.0f);
  ExpectError(LoadFloats(*bf16, twelve, 3), ErrorCode::kUnsupported,
              "rows of 12 weights: on a GPU they must be a multiple of 8 long");
  EXPECT_TRUE(LoadFloats(*bf16, std::vector<float>(48, 1.0f), 3).ok());
  std::vector<float> large(64, 1.0f);
  large[37] = -65504;
  EXPECT_TRUE(LoadFloats(*f16, large, 4).ok());
  large[37] = -65520;  // rounds to infinity
  ExpectError(LoadFloats(*f16, large, 4), ErrorCode::kUnsupported,
              "holds numbers beyond 65,504, the largest of binary16: keep activations in bfloat16 "
              "(--activations bf16)");
  EXPECT_TRUE(LoadFloats(*bf16, large, 4).ok());
  large[37] = INFINITY;  // is what the file says
  EXPECT_TRUE(LoadFloats(*f16, large, 4).ok());
}

TEST(CudaRefusals, OfATypeOfWeightsByTheTensorsName) {
  TinyModel tiny = SmallModel();
  tiny.edit = [](const std::string& name, std::vector<uint64_t>*, uint32_t* type) {
    if (name == "blk.1.ffn_up.weight") *type = static_cast<uint32_t>(GgmlType::kQ5_1);
    return true;
  };
  auto model = tiny.Load(MakeBackendOf(ActivationType::kBF16), {});
  ExpectError(model, ErrorCode::kUnsupported, "blk.1.ffn_up.weight");
  EXPECT_THAT(model.error().message,
              HasSubstr("stored as Q5_1, which the CUDA backend does not multiply with: it takes "
                        "F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q8_0, Q4_K, Q6_K; the CPU's takes Q5_1, "
                        "too (--device cpu)"));
}

class LittleMemory : public ::testing::Test {
 protected:
  // After each test nothing is left on the device.
  void TearDown() override { EXPECT_EQ(limit_.used(), 0u); }
  DeviceLimit limit_;
};

TEST_F(LittleMemory, ForWeightsOrTheCacheIsSaidInNumbers) {
  limit_.Set(kMiB);
  const auto backend = MakeBackendOf(ActivationType::kBF16);
  const std::vector<float> large(kMiB, 1.0f);
  ExpectError(LoadFloats(*backend, large, 1024), ErrorCode::kResourceExhausted,
              "a weight matrix needs 2.0 MiB of the GPU's memory, but 1.0 of its 1.0 MiB are left: "
              "ask for less, or take a GPU with more");
  const ModelOnCuda loaded = LoadOnCuda(SmallModel());
  ASSERT_TRUE(loaded.model);
  ExpectError(loaded.model->AllocateKv({16, 1000}), ErrorCode::kResourceExhausted,
              "the KV cache needs 7.8 MiB of the GPU's memory, but 0.");
  const Status fits = loaded.model->AllocateKv({16, 4});
  EXPECT_TRUE(fits.ok()) << fits.error().message;
}

// What the engine's plan counts on.
TEST_F(LittleMemory, TheCacheTakesWhatTheModelSays) {
  for (const KvDtype dtype : {KvDtype::kF16, KvDtype::kInt8}) {
    for (const int32_t window_blocks : {0, 7}) {
      const ModelOnCuda loaded = LoadOnCuda(SmallModel("gemma3"), {.threads = 1}, dtype);
      ASSERT_TRUE(loaded.model);
      const size_t before = limit_.used();
      ASSERT_TRUE(loaded.model->AllocateKv({32, 50, window_blocks}).ok());
      const ModelInfo& info = loaded.model->info();
      const int64_t windows = info.kv_window_bytes_per_token;
      const int64_t all = info.kv_bytes_per_token;
      EXPECT_EQ(static_cast<int64_t>(limit_.used() - before),
                window_blocks == 0 ? all * 32 * 50
                                   : (all - windows) * 32 * 50 + windows * 32 * window_blocks)
          << KvDtypeName(dtype);
    }
  }
}

TEST_F(LittleMemory, AStepThatDoesNotFitLeavesSmallerOnesAlone) {
  std::mt19937 random(std::random_device{}());
  const auto tokens = RandomTokens(random, 200);
  const ModelOnCuda loaded = LoadOnCuda(SmallModel());
  ASSERT_TRUE(loaded.model);
  ASSERT_TRUE(loaded.model->AllocateKv({kBlockTokens, 16}).ok());
  const auto run = [&](int32_t rows) {
    StepBatch batch;
    batch.Add(std::span(tokens).first(static_cast<size_t>(rows)), rows, BlocksFrom(0, 16));
    return ForwardAll(*loaded.model, batch);
  };
  const auto expected = run(40);
  limit_.Close();
  StepBatch batch;
  batch.Add(tokens, 200, BlocksFrom(0, 16));
  std::vector<float> logits(200 * 70);
  const Status status = loaded.model->Forward(batch.batch(true), logits);
  ExpectError(status, ErrorCode::kResourceExhausted, "the activations of a step needs");
  EXPECT_EQ(run(40), expected);
  limit_.Set(64 * kMiB);
  run(200);
  EXPECT_EQ(run(40), expected);
}

class LittleMemoryEngine : public LittleMemory {
 protected:
  // Its context: 1,024 tokens, 512 KiB in 16 bits.
  Result<std::unique_ptr<EngineCore>> Start(const EngineOptions& options) {
    TinyModel tiny = SmallModel();
    tiny.vocab = 264;
    ModelOnCuda loaded = LoadOnCuda(tiny);
    return EngineCore::Start(std::move(loaded.model), tokenizer_, options, nullptr);
  }
  ByteTokenizer tokenizer_;
};

TEST_F(LittleMemoryEngine, PlansWithTheDevicesMemory) {
  limit_.Set(100 * kMiB);
  ExpectError(Start({.max_sequences = 4}), ErrorCode::kResourceExhausted,
              "of 100 MiB (the GPU's memory)");
  // The reserve is 128 MiB and a twentieth; a step takes one more.
  limit_.Set(138 * kMiB);
  auto engine = Start({.max_sequences = 4});
  ASSERT_TRUE(engine.ok()) << engine.error().message;
  const int32_t few = (*engine)->Stats().kv_blocks_total;
  EXPECT_GE((*engine)->max_context_tokens(), 512);
  engine->reset();
  limit_.Set(160 * kMiB);
  engine = Start({.max_sequences = 4});
  ASSERT_TRUE(engine.ok()) << engine.error().message;
  EXPECT_GT((*engine)->Stats().kv_blocks_total, few);
  EXPECT_EQ((*engine)->Stats().kv_blocks_total, 4 * (1024 + 16) / 16) << "all that is of use";
  engine->reset();
  ExpectError(Start({.max_sequences = 4, .kv_memory_bytes = 200 * kMiB}),
              ErrorCode::kResourceExhausted, "a KV cache of 200 MiB does not fit");
}

TEST_F(LittleMemoryEngine, RefusesADtypeThatTheDeviceDoesNotStore) {
  ExpectError(Start({.max_sequences = 4, .kv_block_tokens = 8}), ErrorCode::kUnsupported,
              "blocks of 8 tokens in the KV cache");
}

}  // namespace
}  // namespace quern::testing
