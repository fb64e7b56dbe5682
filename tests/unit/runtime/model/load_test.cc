#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "runtime/backend/cpu/cpu_backend.h"
#include "tests/unit/runtime/model/tiny_model.h"

namespace quern::testing {
namespace {

using ::testing::HasSubstr;

TEST(ModelLoad, DescribesWhatItLoaded) {
  auto model = TinyModel().Load();
  ASSERT_TRUE(model) << model.error().message;
  const ModelInfo& info = (*model)->info();
  EXPECT_EQ(info.architecture, "llama");
  EXPECT_EQ(info.name, "tiny");
  EXPECT_EQ(info.quantization, "F32");
  ASSERT_EQ(info.stored.size(), 1U);
  EXPECT_EQ(info.stored[0].bytes, info.parameters * 4);
  EXPECT_EQ(info.vocab_size, 50);
  EXPECT_EQ(info.context_tokens, 128);
  EXPECT_THAT(info.compute, ::testing::EndsWith(", 1 thread"));
  EXPECT_EQ(info.kv_bytes_per_token,
            2 * 2 * 2 * 2 * 16);  // K and V, bytes, layers, KV heads, elements
  EXPECT_EQ((*TinyModel().Load(1, KvDtype::kF32))->info().kv_bytes_per_token,
            2 * info.kv_bytes_per_token);
  (*model)->SetKvDtype(KvDtype::kInt8);  // a group of 32, for a head of 16, with its scale
  EXPECT_EQ(info.kv_dtype, KvDtype::kInt8);
  EXPECT_EQ(info.kv_bytes_per_token, 2 * 2 * 2 * (2 + 32));
  // The vocabulary's 50 rows are padded to whole tiles; everything else is as large as it is in the
  // file.
  EXPECT_GE(info.weight_bytes, info.parameters * 4);
  EXPECT_LE(info.weight_bytes, (info.parameters + 14 * 64) * 4);
}

TEST(ModelLoad, AMissingTensorIsNamed) {
  TinyModel tiny;
  tiny.edit = [](const std::string& name, auto*, auto*) { return name != "blk.1.ffn_up.weight"; };
  const auto model = tiny.Load();
  ASSERT_FALSE(model);
  EXPECT_EQ(model.error().code, ErrorCode::kDataLoss);
  EXPECT_THAT(model.error().message, HasSubstr("tiny.gguf: tensor blk.1.ffn_up.weight is missing"));
}

TEST(ModelLoad, AMisshapenTensorIsNamedWithBothShapes) {
  TinyModel tiny;
  tiny.edit = [](const std::string& name, std::vector<uint64_t>* dims, auto*) {
    if (name == "blk.0.attn_k.weight") (*dims)[1] = 31;
    return true;
  };
  const auto model = tiny.Load();
  ASSERT_FALSE(model);
  EXPECT_EQ(model.error().code, ErrorCode::kDataLoss);
  EXPECT_THAT(model.error().message, HasSubstr("blk.0.attn_k.weight is 64 x 31: expected 64 x 32"));
}

TEST(ModelLoad, ATypeWithoutKernelsIsRefusedWithThoseThatHaveThem) {
  TinyModel tiny;
  tiny.edit = [](const std::string& name, std::vector<uint64_t>* dims, uint32_t* type) {
    if (name == "blk.0.attn_q.weight") {
      *type = 26;  // I32, as wide as F32
      EXPECT_EQ(dims->size(), 2u);
    }
    return true;
  };
  const auto model = tiny.Load();
  ASSERT_FALSE(model);
  EXPECT_EQ(model.error().code, ErrorCode::kUnsupported);
  EXPECT_THAT(model.error().message,
              HasSubstr("stored as I32, which is not supported; supported: F32"));
}

TEST(ModelLoad, AnUnknownArchitectureIsRefusedWithThoseThatAreKnown) {
  TinyModel tiny;
  tiny.architecture = "mamba";
  const auto model = tiny.Load();
  ASSERT_FALSE(model);
  EXPECT_EQ(model.error().code, ErrorCode::kUnsupported);
  EXPECT_THAT(model.error().message,
              HasSubstr("'mamba' (metadata key general.architecture) is not supported; "
                        "supported: llama, gemma3, qwen3, qwen3moe"));
}

TEST(ModelLoad, ATensorThatTheArchitectureDoesNotHaveIsNotIgnored) {
  TinyModel tiny;
  tiny.extra_tensor = "blk.0.attn_q.bias";
  const auto model = tiny.Load();
  ASSERT_FALSE(model);
  EXPECT_EQ(model.error().code, ErrorCode::kUnsupported);
  EXPECT_THAT(model.error().message,
              HasSubstr("blk.0.attn_q.bias is not part of this architecture"));
}

TEST(ModelLoad, MetadataThatMakesNoSenseIsNamed) {
  TinyModel tiny;
  tiny.kv_heads = 3;
  auto model = tiny.Load();
  ASSERT_FALSE(model);
  EXPECT_THAT(model.error().message, HasSubstr("4 attention heads cannot share 3 KV heads"));
  tiny = TinyModel();
  tiny.layers = 0;
  model = tiny.Load();
  ASSERT_FALSE(model);
  EXPECT_THAT(model.error().message, HasSubstr("llama.block_count is 0: expected 1 to"));
  tiny = TinyModel();
  tiny.head_dim = 15;
  model = tiny.Load();
  ASSERT_FALSE(model);
  EXPECT_THAT(model.error().message, HasSubstr("RoPE of 15 dimensions"));
}

TEST(ModelLoad, NumbersThatMakeNoSenseAreNamed) {
  TinyModel tiny;
  tiny.metadata = [](GgufWriter& writer) { writer.Float("llama.final_logit_softcapping", -1); };
  auto model = tiny.Load();
  ASSERT_FALSE(model);
  EXPECT_THAT(model.error().message,
              HasSubstr("llama.final_logit_softcapping is -1: expected a number from 0 to 1e+30"));
  tiny.metadata = [](GgufWriter& writer) {
    writer.Scalar("llama.attn_logit_softcapping", GgufValueType::kFloat64, 1e300);
  };
  EXPECT_FALSE(tiny.Load());

  // Llama 3.1's factors: zeros, as a tensor of a truncated download has.
  tiny = TinyModel();
  tiny.rope_factors = 0;
  model = tiny.Load();
  ASSERT_FALSE(model);
  EXPECT_EQ(model.error().code, ErrorCode::kDataLoss);
  EXPECT_THAT(model.error().message, HasSubstr("tensor rope_freqs.weight holds 0"));
  tiny.rope_factors = 8;
  EXPECT_TRUE(tiny.Load());
}

// 1048577 heads of 4096 elements are 2^32 + 4096: with 32 bits they would look like one head.
TEST(ModelLoad, HeadsWhoseProductWouldWrapAroundAreRefused) {
  TinyModel tiny;
  tiny.heads = 1048577;
  tiny.kv_heads = 1;
  tiny.head_dim = 4096;
  const auto model = tiny.Load();
  ASSERT_FALSE(model);
  EXPECT_EQ(model.error().code, ErrorCode::kDataLoss);
  EXPECT_THAT(model.error().message,
              HasSubstr("1048577 attention heads of 4096 elements make 4294971392"));
}

TEST(ModelLoad, MoreLayersThanTensorsAreRefusedBeforeTheyTakeMemory) {
  TinyModel tiny;
  tiny.claimed_layers = 1 << 24;
  const auto model = tiny.Load();
  ASSERT_FALSE(model);
  EXPECT_EQ(model.error().code, ErrorCode::kDataLoss);
  EXPECT_THAT(model.error().message,
              HasSubstr("llama.block_count is 16777216, but the file has only 20 tensors"));
}

TEST(ModelLoad, OneFileOfSeveralIsRefusedWithHowToJoinThem) {
  TinyModel tiny;
  tiny.split_count = 3;
  auto model = tiny.Load();
  ASSERT_FALSE(model);
  EXPECT_EQ(model.error().code, ErrorCode::kUnsupported);
  EXPECT_THAT(model.error().message,
              HasSubstr("tiny.gguf: this is file 1 of a model that is split over 3 files"));
  EXPECT_THAT(model.error().message, HasSubstr("llama-gguf-split --merge"));
  tiny.split_count = 1;
  EXPECT_TRUE(tiny.Load());
}

TEST(ModelLoad, TextOfTheFileIsShownOnOneLineAndShortened) {
  TinyModel tiny;
  tiny.architecture = "mam\n\x1b" + std::string(1000, 'b');
  const auto model = tiny.Load();
  ASSERT_FALSE(model);
  EXPECT_THAT(model.error().message, HasSubstr("architecture 'mam\\x0a\\x1bbbb"));
  EXPECT_LT(model.error().message.size(), 400u);
}

TEST(CpuBackend, WeightsBeyondTheMemoryLimitAreRefusedWithFiguresAndNotTouched) {
  CpuBackend backend(kernels::CpuKernelsFor(kernels::CpuIsa::kScalar), 1, 3 << 20);
  const std::vector<std::byte> weights(1 << 20);  // 512 x 512 float32
  const auto load = [&] {
    return backend.LoadMatrix(kernels::WeightType::kF32, weights, 512, 512,
                              [](std::span<const std::byte>) {});
  };
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(load());
  const auto refused = load();
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kResourceExhausted);
  EXPECT_THAT(refused.error().message, HasSubstr("needs 1.0 MiB, but 0.0 MiB are left"));
}

TEST(ModelLoad, AKvCacheBeyondTheMemoryLimitIsRefusedWithFigures) {
  auto model = TinyModel().Load();
  ASSERT_TRUE(model);
  const Status status = (*model)->AllocateKv({1 << 20, 1 << 20});
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, ErrorCode::kResourceExhausted);
  EXPECT_THAT(status.error().message, HasSubstr("MiB"));
  EXPECT_TRUE((*model)->AllocateKv({16, 4}));
}

}  // namespace
}  // namespace quern::testing
