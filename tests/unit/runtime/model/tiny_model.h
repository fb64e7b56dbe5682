#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "quern/kernels/numeric_types.h"
#include "runtime/model/model.h"
#include "tests/unit/runtime/formats/gguf_writer.h"

namespace quern::testing {

// `count` random weights stored as `type`, around zero (matrices) or one (norms), as a model's are.
// Types without a case here get float32's bytes.
inline std::vector<uint8_t> RandomWeights(std::mt19937& random, GgmlType type, uint64_t count,
                                          bool is_norm) {
  std::normal_distribution<float> normal(is_norm ? 1.0f : 0.0f, 0.1f);
  std::vector<uint8_t> data;
  const auto append_half = [&](float value) {
    GgufWriter::Append(data, kernels::FloatToHalf(value));
  };
  const auto append_random = [&](int bytes) {
    for (int i = 0; i < bytes; ++i) data.push_back(static_cast<uint8_t>(random()));
  };
  switch (type) {
    case GgmlType::kF16:
      for (uint64_t i = 0; i < count; ++i) append_half(normal(random));
      break;
    case GgmlType::kQ8_0:
      for (uint64_t i = 0; i < count; i += 32) {
        append_half(0.0015f + 0.0001f * normal(random));
        append_random(32);
      }
      break;
    case GgmlType::kQ4_0:
      for (uint64_t i = 0; i < count; i += 32) {
        append_half(0.02f + 0.001f * normal(random));
        append_random(16);
      }
      break;
    case GgmlType::kQ4_1:  // the minimum balances the scale
      for (uint64_t i = 0; i < count; i += 32) {
        append_half(0.02f);
        append_half(-0.15f + 0.01f * normal(random));
        append_random(16);
      }
      break;
    case GgmlType::kQ4_K:  // the second scale, of the offsets, balances the first
      for (uint64_t i = 0; i < count; i += 256) {
        append_half(5e-4f);
        append_half(5e-4f * 7.5f);
        append_random(12 + 128);
      }
      break;
    default:
      for (uint64_t i = 0; i < count; ++i) GgufWriter::Append(data, normal(random));
  }
  return data;
}

// A transformer small enough for unit tests, with random weights, as the bytes of a GGUF file.
struct TinyModel {
  std::string architecture = "llama";  // or "gemma3", "qwen3", "qwen3moe"
  uint32_t layers = 2;
  uint32_t width = 64;
  uint32_t ffn_width = 96;
  uint32_t heads = 4;
  uint32_t kv_heads = 2;
  uint32_t head_dim = 16;
  uint32_t vocab = 50;
  uint32_t context = 128;
  uint32_t window = 6;   // gemma3
  uint32_t experts = 8;  // qwen3moe, and the next two
  uint32_t experts_used = 2;
  uint32_t expert_ffn_width = 32;
  uint32_t claimed_layers = 0;     // block_count where it is not to be `layers`
  uint32_t split_count = 0;        // of files, where the model is to look like one of several
  GgmlType type = GgmlType::kF32;  // of the matrices; norms are float32
  // Leaves tensors out, or changes what is written for them.
  std::function<bool(const std::string& name, std::vector<uint64_t>* dims, uint32_t* type)> edit;

  std::optional<float> rope_factors;                 // llama: all of rope_freqs.weight
  std::string extra_tensor;                          // of [width], beyond the architecture's
  std::function<void(GgufWriter& writer)> metadata;  // more of it: a tokenizer, odd values

  void Add(GgufWriter& writer, std::mt19937& random, const std::string& name,
           std::vector<uint64_t> dims) const {
    const bool is_norm = dims.size() == 1;
    const bool is_router = name.ends_with("ffn_gate_inp.weight");
    auto stored = static_cast<uint32_t>(is_norm || is_router ? GgmlType::kF32 : type);
    if (edit && !edit(name, &dims, &stored)) return;
    uint64_t count = 1;
    for (uint64_t dim : dims) count *= dim;
    writer.Tensor(name, dims, stored,
                  RandomWeights(random, static_cast<GgmlType>(stored), count, is_norm));
  }

  std::vector<uint8_t> Bytes() const {
    GgufWriter writer;
    std::mt19937 random(42);
    const std::string a = architecture + ".";
    writer.String("general.architecture", architecture)
        .String("general.name", "tiny")
        .Uint(a + "block_count", claimed_layers > 0 ? claimed_layers : layers)
        .Uint(a + "context_length", context)
        .Uint(a + "embedding_length", width)
        .Uint(a + "feed_forward_length", ffn_width)
        .Uint(a + "attention.head_count", heads)
        .Uint(a + "attention.head_count_kv", kv_heads)
        .Uint(a + "attention.key_length", head_dim)
        .Uint(a + "attention.value_length", head_dim)
        .Float(a + "attention.layer_norm_rms_epsilon", 1e-5f)
        .Float(a + "rope.freq_base", 10000);
    if (split_count > 0) writer.Uint("split.count", split_count).Uint("split.no", 0);
    if (metadata) metadata(writer);
    const bool gemma = architecture == "gemma3";
    const bool moe = architecture == "qwen3moe";
    if (moe) {
      writer.Uint(a + "expert_count", experts)
          .Uint(a + "expert_used_count", experts_used)
          .Uint(a + "expert_feed_forward_length", expert_ffn_width);
    }
    if (gemma) writer.Uint(a + "attention.sliding_window", window);
    Add(writer, random, "token_embd.weight", {width, vocab});
    Add(writer, random, "output_norm.weight", {width});
    if (rope_factors) {
      std::vector<uint8_t> factors;
      for (uint32_t i = 0; i < head_dim / 2; ++i) GgufWriter::Append(factors, *rope_factors);
      writer.Tensor("rope_freqs.weight", {head_dim / 2}, 0, factors);
    }
    for (uint32_t i = 0; i < layers; ++i) {
      const std::string p = "blk." + std::to_string(i) + ".";
      Add(writer, random, p + "attn_norm.weight", {width});
      Add(writer, random, p + "attn_q.weight", {width, heads * head_dim});
      Add(writer, random, p + "attn_k.weight", {width, kv_heads * head_dim});
      Add(writer, random, p + "attn_v.weight", {width, kv_heads * head_dim});
      Add(writer, random, p + "attn_output.weight", {heads * head_dim, width});
      Add(writer, random, p + "ffn_norm.weight", {width});
      if (moe) {
        Add(writer, random, p + "ffn_gate_inp.weight", {width, experts});
        Add(writer, random, p + "ffn_gate_exps.weight", {width, expert_ffn_width, experts});
        Add(writer, random, p + "ffn_up_exps.weight", {width, expert_ffn_width, experts});
        Add(writer, random, p + "ffn_down_exps.weight", {expert_ffn_width, width, experts});
      } else {
        Add(writer, random, p + "ffn_gate.weight", {width, ffn_width});
        Add(writer, random, p + "ffn_up.weight", {width, ffn_width});
        Add(writer, random, p + "ffn_down.weight", {ffn_width, width});
      }
      if (architecture == "llama") continue;
      Add(writer, random, p + "attn_q_norm.weight", {head_dim});
      Add(writer, random, p + "attn_k_norm.weight", {head_dim});
      if (!gemma) continue;
      Add(writer, random, p + "post_attention_norm.weight", {width});
      Add(writer, random, p + "post_ffw_norm.weight", {width});
    }
    if (!extra_tensor.empty()) Add(writer, random, extra_tensor, {width});
    return writer.Bytes();
  }

  Result<std::unique_ptr<Model>> Load(int threads = 1, KvDtype kv_dtype = KvDtype::kF16) const {
    const std::vector<uint8_t> bytes = Bytes();  // a loaded model keeps none of it
    QUERN_ASSIGN(auto file, GgufFile::Parse(AsBytes(bytes), "tiny.gguf"));
    return Model::Load(std::move(file), {threads, kv_dtype});
  }
  Result<std::unique_ptr<Model>> Load(std::unique_ptr<Backend> backend,
                                      const ModelOptions& options) const {
    const std::vector<uint8_t> bytes = Bytes();
    QUERN_ASSIGN(auto file, GgufFile::Parse(AsBytes(bytes), "tiny.gguf"));
    return Model::Load(std::move(file), options, std::move(backend));
  }
};

}  // namespace quern::testing
