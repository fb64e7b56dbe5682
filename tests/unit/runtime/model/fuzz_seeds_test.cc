// The seed corpus of fuzz_model: models small enough to mutate. They are committed; this keeps them
// what they are meant to be, as a seed that no longer loads leads the fuzzer nowhere.
//
// Written anew with:  QUERN_UPDATE_GOLDEN=1 <this test>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <iterator>

#include "runtime/model/scoring.h"
#include "runtime/tokenizer/chat_template.h"
#include "runtime/tokenizer/tokenizer.h"
#include "tests/unit/runtime/model/tiny_model.h"

namespace quern::testing {
namespace {

constexpr char kTemplate[] =
    "{% for m in messages %}<a>{{ m.role }}: {{ m['content'] | trim }}</a>\n{% endfor %}";

void AddByteLevelTokenizer(GgufWriter& writer) {
  writer.String("tokenizer.ggml.model", "gpt2")
      .String("tokenizer.ggml.pre", "smollm")
      .Strings("tokenizer.ggml.tokens",
               {"a", "b", "ab", "\u0120", "\u00c3", "\u00a9", "<a>", "</a>"})
      .Ints("tokenizer.ggml.token_type", {1, 1, 1, 1, 1, 1, 4, 3})
      .Strings("tokenizer.ggml.merges", {"a b"})
      .Uint("tokenizer.ggml.eos_token_id", 7)
      .String("tokenizer.chat_template", kTemplate);
}

void AddSentencePieceTokenizer(GgufWriter& writer) {
  writer.String("tokenizer.ggml.model", "llama")
      .Strings("tokenizer.ggml.tokens",
               {"<unk>", "<s>", "</s>", "a", "\u2581", "\u2581a", "<0xC3>", "<a>"})
      .Floats("tokenizer.ggml.scores", {0, 0, 0, -1, -2, -3, 0, 0})
      .Ints("tokenizer.ggml.token_type", {2, 3, 3, 1, 1, 1, 6, 4})
      .String("tokenizer.chat_template", kTemplate);
}

TinyModel Small(const char* architecture, uint32_t layers, uint32_t width, uint32_t heads,
                uint32_t kv_heads, uint32_t head_dim, uint32_t ffn_width) {
  TinyModel model;
  model.architecture = architecture;
  model.layers = layers;
  model.width = width;
  model.heads = heads;
  model.kv_heads = kv_heads;
  model.head_dim = head_dim;
  model.ffn_width = ffn_width;
  model.vocab = 8;
  return model;
}

std::vector<std::pair<std::string, TinyModel>> Seeds() {
  std::vector<std::pair<std::string, TinyModel>> seeds;
  seeds.emplace_back("llama-f32", Small("llama", 1, 8, 2, 1, 4, 8));
  seeds.back().second.metadata = AddByteLevelTokenizer;

  seeds.emplace_back("llama-q8_0", Small("llama", 1, 32, 2, 2, 16, 32));
  seeds.back().second.type = GgmlType::kQ8_0;

  seeds.emplace_back("llama-mixed", Small("llama", 1, 256, 1, 1, 2, 2));
  seeds.back().second.edit = [](const std::string&, std::vector<uint64_t>* dims, uint32_t* type) {
    if (dims->size() == 2 && (*dims)[0] == 256) *type = static_cast<uint32_t>(GgmlType::kQ4_K);
    return true;
  };

  seeds.emplace_back("gemma3-f32", Small("gemma3", 6, 4, 1, 1, 4, 4));  // the last one is global
  seeds.back().second.metadata = AddSentencePieceTokenizer;

  seeds.emplace_back("qwen3-f32", Small("qwen3", 1, 8, 2, 1, 6, 10));

  // Sizes that no vector's width divides; weights that are a share of all experts'.
  seeds.emplace_back("qwen3moe-f32", Small("qwen3moe", 1, 10, 2, 1, 6, 8));
  seeds.back().second.experts = 3;
  seeds.back().second.expert_ffn_width = 5;
  seeds.back().second.metadata = [](GgufWriter& writer) {
    writer.Bool("qwen3moe.expert_weights_norm", false).Float("qwen3moe.expert_weights_scale", 2.5f);
  };

  seeds.emplace_back("qwen3moe-q8_0", Small("qwen3moe", 1, 32, 2, 2, 16, 32));
  seeds.back().second.experts = 2;
  seeds.back().second.experts_used = 1;
  seeds.back().second.type = GgmlType::kQ8_0;

  // Sizes that no vector's width divides, and both softcaps.
  seeds.emplace_back("gemma3-f16", Small("gemma3", 1, 10, 3, 1, 6, 14));
  seeds.back().second.type = GgmlType::kF16;
  seeds.back().second.metadata = [](GgufWriter& writer) {
    writer.Float("gemma3.attn_logit_softcapping", 50)
        .Float("gemma3.final_logit_softcapping", 30)
        .String("gemma3.rope.scaling.type", "linear")
        .Float("gemma3.rope.scaling.factor", 8);
  };
  return seeds;
}

TEST(FuzzSeeds, AreWhatTheGeneratorMakesAndSmall) {
  for (const auto& [name, model] : Seeds()) {
    const std::string path = QUERN_TESTS_DIR "/fuzz/corpus/model/" + name;
    const std::vector<uint8_t> bytes = model.Bytes();
    EXPECT_LT(bytes.size(), 16u << 10) << name;
    if (const char* update = std::getenv("QUERN_UPDATE_GOLDEN"); update && *update) {
      std::ofstream(path, std::ios::binary)
          .write(reinterpret_cast<const char*>(bytes.data()),
                 static_cast<std::streamsize>(bytes.size()));
    }
    std::ifstream in(path, std::ios::binary);
    ASSERT_TRUE(in.good()) << path;
    const std::vector<uint8_t> committed{std::istreambuf_iterator<char>(in), {}};
    EXPECT_EQ(committed, bytes) << name;
  }
}

TEST(FuzzSeeds, LoadAndRun) {
  for (const auto& [name, tiny] : Seeds()) {
    SCOPED_TRACE(name);
    const std::vector<uint8_t> bytes = tiny.Bytes();
    auto file = GgufFile::Parse(AsBytes(bytes), name);
    ASSERT_TRUE(file) << file.error().message;
    if (tiny.metadata && (*file)->Has("tokenizer.ggml.model")) {
      auto tokenizer = Tokenizer::FromGguf(**file);
      ASSERT_TRUE(tokenizer) << tokenizer.error().message;
      EXPECT_TRUE((*tokenizer)->Encode("a <a>ab"));
      auto source = ChatTemplateSourceOf(**file);
      ASSERT_TRUE(source) << source.error().message;
      EXPECT_TRUE(ChatTemplate::Make(*source));
    }
    auto model = tiny.Load();
    ASSERT_TRUE(model) << model.error().message;
    const KvLayout layout = LayoutFor((*model)->info(), 3);
    ASSERT_TRUE((*model)->AllocateKv(layout));
    const std::vector<int32_t> tokens = {1, 7, 3};
    int positions = 0;
    EXPECT_TRUE(ScoreSequence(**model, layout, tokens, {},
                              [&](int32_t, std::span<const float>) { ++positions; }));
    EXPECT_EQ(positions, 3);
  }
}

}  // namespace
}  // namespace quern::testing
