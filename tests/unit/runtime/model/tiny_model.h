#pragma once

#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "runtime/model/model.h"
#include "tests/unit/runtime/formats/gguf_writer.h"

namespace quern::testing {

// A transformer small enough for unit tests, with random float32 weights, as the bytes of a GGUF
// file.
struct TinyModel {
  std::string architecture = "llama";
  uint32_t layers = 2;
  uint32_t width = 64;
  uint32_t ffn_width = 96;
  uint32_t heads = 4;
  uint32_t kv_heads = 2;
  uint32_t head_dim = 16;
  uint32_t vocab = 50;
  uint32_t window = 6;          // gemma3
  uint32_t claimed_layers = 0;  // block_count where it is not to be `layers`
  uint32_t split_count = 0;     // of files, where the model is to look like one of several
  // Leaves tensors out, or changes what is written for them.
  std::function<bool(const std::string& name, std::vector<uint64_t>* dims, uint32_t* type)> edit;

  std::string extra_tensor;  // of [width], beyond the architecture's

  void Add(GgufWriter& writer, std::mt19937& random, const std::string& name,
           std::vector<uint64_t> dims) const {
    uint32_t type = 0;
    if (edit && !edit(name, &dims, &type)) return;
    uint64_t count = 1;
    for (uint64_t dim : dims) count *= dim;
    std::normal_distribution<float> normal(dims.size() == 1 ? 1.0f : 0.0f, 0.1f);
    std::vector<uint8_t> data;
    for (uint64_t i = 0; i < count; ++i) GgufWriter::Append(data, normal(random));
    writer.Tensor(name, dims, type, data);
  }

  std::vector<uint8_t> Bytes() const {
    GgufWriter writer;
    std::mt19937 random(42);
    const std::string a = architecture + ".";
    writer.String("general.architecture", architecture)
        .String("general.name", "tiny")
        .Uint(a + "block_count", claimed_layers > 0 ? claimed_layers : layers)
        .Uint(a + "context_length", 128)
        .Uint(a + "embedding_length", width)
        .Uint(a + "feed_forward_length", ffn_width)
        .Uint(a + "attention.head_count", heads)
        .Uint(a + "attention.head_count_kv", kv_heads)
        .Uint(a + "attention.key_length", head_dim)
        .Uint(a + "attention.value_length", head_dim)
        .Float(a + "attention.layer_norm_rms_epsilon", 1e-5f)
        .Float(a + "rope.freq_base", 10000);
    if (split_count > 0) writer.Uint("split.count", split_count).Uint("split.no", 0);
    const bool gemma = architecture == "gemma3";
    if (gemma) writer.Uint(a + "attention.sliding_window", window);
    Add(writer, random, "token_embd.weight", {width, vocab});
    Add(writer, random, "output_norm.weight", {width});
    for (uint32_t i = 0; i < layers; ++i) {
      const std::string p = "blk." + std::to_string(i) + ".";
      Add(writer, random, p + "attn_norm.weight", {width});
      Add(writer, random, p + "attn_q.weight", {width, heads * head_dim});
      Add(writer, random, p + "attn_k.weight", {width, kv_heads * head_dim});
      Add(writer, random, p + "attn_v.weight", {width, kv_heads * head_dim});
      Add(writer, random, p + "attn_output.weight", {heads * head_dim, width});
      Add(writer, random, p + "ffn_norm.weight", {width});
      Add(writer, random, p + "ffn_gate.weight", {width, ffn_width});
      Add(writer, random, p + "ffn_up.weight", {width, ffn_width});
      Add(writer, random, p + "ffn_down.weight", {ffn_width, width});
      if (!gemma) continue;
      Add(writer, random, p + "attn_q_norm.weight", {head_dim});
      Add(writer, random, p + "attn_k_norm.weight", {head_dim});
      Add(writer, random, p + "post_attention_norm.weight", {width});
      Add(writer, random, p + "post_ffw_norm.weight", {width});
    }
    if (!extra_tensor.empty()) Add(writer, random, extra_tensor, {width});
    return writer.Bytes();
  }

  Result<std::unique_ptr<Model>> Load(int threads = 1) const {
    const std::vector<uint8_t> bytes = Bytes();  // a loaded model keeps none of it
    QUERN_ASSIGN(auto file, GgufFile::Parse(AsBytes(bytes), "tiny.gguf"));
    return Model::Load(std::move(file), {threads});
  }
};

}  // namespace quern::testing
