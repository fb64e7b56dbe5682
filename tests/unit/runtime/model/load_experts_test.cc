// Files of models with experts that are not right.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/unit/runtime/model/tiny_model.h"

namespace quern::testing {
namespace {

using ::testing::HasSubstr;

TinyModel TinyMoe() {
  TinyModel tiny;
  tiny.architecture = "qwen3moe";
  return tiny;
}

void ExpectRefused(const TinyModel& tiny, ErrorCode code, const std::string& message) {
  const auto model = tiny.Load();
  ASSERT_FALSE(model) << "expected: " << message;
  EXPECT_EQ(model.error().code, code) << model.error().message;
  EXPECT_THAT(model.error().message, HasSubstr(message));
}

// With one more key than TinyModel writes.
void ExpectKeyRefused(const std::string& key, uint32_t value, ErrorCode code,
                      const std::string& message) {
  TinyModel tiny = TinyMoe();
  tiny.metadata = [&](GgufWriter& writer) { writer.Uint("qwen3moe." + key, value); };
  ExpectRefused(tiny, code, message);
}

TEST(LoadExperts, DescribesWhatItLoaded) {
  auto model = TinyMoe().Load();
  ASSERT_TRUE(model) << model.error().message;
  const ModelInfo& info = (*model)->info();
  EXPECT_EQ(info.architecture, "qwen3moe");
  const int64_t layer = 2 * 64 + 2 * 16 + 64 * (64 + 32 + 32) + 64 * 64  // norms and attention
                        + 64 * 8 + 8 * 3 * 64 * 32;
  EXPECT_EQ(info.parameters, 2 * layer + 50 * 64 + 64);
  // The embedding's 50 rows are padded to whole tiles, of 16 at most.
  EXPECT_GE(info.weight_bytes, info.parameters * 4);
  EXPECT_LE(info.weight_bytes, (info.parameters + 14 * 64 + 2 * 8 * 64) * 4);
}

TEST(LoadExperts, NumbersThatMakeNoSenseAreNamed) {
  TinyModel tiny = TinyMoe();
  tiny.experts_used = 9;
  ExpectRefused(
      tiny, ErrorCode::kDataLoss,
      "tiny.gguf: metadata qwen3moe.expert_used_count is 9: expected 1 to 8, of 8 experts");
  tiny.experts_used = 0;
  ExpectRefused(tiny, ErrorCode::kDataLoss, "qwen3moe.expert_used_count is 0: expected 1 to");
  tiny = TinyMoe();
  tiny.experts = 0;
  tiny.edit = [](const std::string&, std::vector<uint64_t>* dims, auto*) {
    std::ranges::replace(*dims, 0, 1);  // a tensor's may not be 0
    return true;
  };
  ExpectRefused(tiny, ErrorCode::kDataLoss,
                "qwen3moe.expert_count is missing or 0: expected the number of experts of a layer");
  tiny.experts = 513;
  ExpectRefused(tiny, ErrorCode::kUnsupported, "qwen3moe.expert_count is 513: at most 512");
  tiny.experts = 40;
  tiny.experts_used = 33;
  ExpectRefused(tiny, ErrorCode::kUnsupported,
                "qwen3moe.expert_used_count is 33: expected 1 to 32, of 40 experts");
  tiny.experts = tiny.experts_used = 8;
  tiny.expert_ffn_width = 0;
  ExpectRefused(tiny, ErrorCode::kDataLoss, "qwen3moe.expert_feed_forward_length is 0: expected 1");
}

TEST(LoadExperts, KindsOfExpertsThatAreNotKnownAreRefused) {
  constexpr ErrorCode kUnsupported = ErrorCode::kUnsupported;
  ExpectKeyRefused("expert_shared_count", 1, kUnsupported,
                   "qwen3moe.expert_shared_count is 1, which is not supported: expected no shared");
  ExpectKeyRefused("expert_shared_feed_forward_length", 64, kUnsupported, "no shared experts");
  ExpectKeyRefused("expert_group_count", 4, kUnsupported, "expected experts in one group");
  ExpectKeyRefused("expert_gating_func", 2, kUnsupported, "expected softmax (1)");
  TinyModel tiny = TinyMoe();
  tiny.extra_tensor = "blk.0.ffn_gate_shexp.weight";
  ExpectRefused(tiny, kUnsupported, "blk.0.ffn_gate_shexp.weight is not part of this architecture");
}

TEST(LoadExperts, WhatChangesNothingIsTaken) {
  TinyModel tiny = TinyMoe();
  tiny.metadata = [&](GgufWriter& writer) {
    writer.Uint("qwen3moe.expert_shared_count", 0)
        .Uint("qwen3moe.expert_group_count", 1)
        .Uint("qwen3moe.expert_gating_func", 1)
        .Bool("qwen3moe.expert_weights_norm", true)
        .Float("qwen3moe.expert_weights_scale", 0);
  };
  EXPECT_TRUE(tiny.Load());
}

TEST(LoadExperts, MisshapenTensorsAreNamedWithBothShapes) {
  TinyModel tiny = TinyMoe();
  const auto reshape = [&](const char* tensor, std::vector<uint64_t> shape) {
    tiny.edit = [=](const std::string& name, std::vector<uint64_t>* dims, auto*) {
      if (name == tensor) *dims = shape;
      return true;
    };
  };
  reshape("blk.1.ffn_up_exps.weight", {64, 32, 7});
  ExpectRefused(tiny, ErrorCode::kDataLoss,
                "tensor blk.1.ffn_up_exps.weight is 64 x 32 x 7: expected 64 x 32 x 8");
  reshape("blk.1.ffn_down_exps.weight", {64, 32, 8});
  ExpectRefused(tiny, ErrorCode::kDataLoss,
                "tensor blk.1.ffn_down_exps.weight is 64 x 32 x 8: expected 32 x 64 x 8");
  reshape("blk.0.ffn_gate_exps.weight", {64, 256});
  ExpectRefused(tiny, ErrorCode::kDataLoss, "blk.0.ffn_gate_exps.weight is 64 x 256: expected 64");
  reshape("blk.0.ffn_gate_inp.weight", {64, 9});
  ExpectRefused(tiny, ErrorCode::kDataLoss, "blk.0.ffn_gate_inp.weight is 64 x 9: expected 64 x 8");
}

TEST(LoadExperts, MissingTensorsAreNamed) {
  for (const char* tensor :
       {"ffn_gate_inp", "ffn_gate_exps", "ffn_up_exps", "ffn_down_exps", "attn_q_norm"}) {
    const std::string missing = std::string("blk.1.") + tensor + ".weight";
    TinyModel tiny = TinyMoe();
    tiny.edit = [&](const std::string& name, auto*, auto*) { return name != missing; };
    ExpectRefused(tiny, ErrorCode::kDataLoss, "tensor " + missing + " is missing");
  }
}

TEST(LoadExperts, ADenseFamilyWithExpertsIsRefused) {
  for (const char* architecture : {"llama", "qwen3"}) {
    TinyModel tiny;
    tiny.architecture = architecture;
    tiny.metadata = [&](GgufWriter& writer) {
      writer.Uint(std::string(architecture) + ".expert_count", 8);
    };
    ExpectRefused(tiny, ErrorCode::kUnsupported,
                  std::string("architecture '") + architecture + "' is not supported with experts");
    tiny.metadata = [&](GgufWriter& writer) {
      writer.Uint(std::string(architecture) + ".expert_count", 0);
    };
    EXPECT_TRUE(tiny.Load());
  }
}

// Routers are taken as float32 whatever they are stored as.
TEST(LoadExperts, ARouterMayBeStoredInFewerBits) {
  for (const GgmlType type : {GgmlType::kF16, GgmlType::kQ8_0}) {
    TinyModel tiny = TinyMoe();
    tiny.edit = [&](const std::string& name, auto*, uint32_t* stored) {
      if (name.ends_with("ffn_gate_inp.weight")) *stored = static_cast<uint32_t>(type);
      return true;
    };
    const auto model = tiny.Load();
    ASSERT_TRUE(model) << model.error().message;
    EXPECT_GE((*model)->info().weight_bytes, (*model)->info().parameters * 4);
  }
}

}  // namespace
}  // namespace quern::testing
