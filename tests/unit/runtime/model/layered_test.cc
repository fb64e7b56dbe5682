// A chunk that goes through the layers in several steps, beside others that go through all.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "tests/unit/runtime/model/tiny_model.h"

namespace quern::testing {
namespace {

constexpr int32_t kTokensOfBlock = 4;
constexpr int32_t kModelLayers = 7;  // gemma3: with a global layer
constexpr int32_t kToTheLast = std::numeric_limits<int32_t>::max();

struct LayeredPart {
  std::vector<int32_t> tokens;  // all of the sequence, up to this step's
  int32_t rows;                 // of them, this step's
  std::vector<int32_t> blocks;
};

class LayeredTest : public ::testing::TestWithParam<std::tuple<const char*, int>> {
 protected:
  static std::unique_ptr<Model> Load() {
    TinyModel tiny;
    tiny.architecture = std::get<0>(GetParam());
    tiny.layers = kModelLayers;
    auto model = tiny.Load(std::get<1>(GetParam()), KvDtype::kF16);
    EXPECT_TRUE(model) << model.error().message;
    EXPECT_TRUE((*model)->AllocateKv({kTokensOfBlock, 32}));
    return std::move(model).value();
  }

  static std::vector<int32_t> Tokens(int n, int seed) {
    std::vector<int32_t> tokens;
    for (int i = 0; i < n; ++i) tokens.push_back((i * 7 + seed * 13 + i * i) % 50);
    return tokens;
  }

  // One step, in which the last part goes through layers [first, end). The logits of every part's
  // last row, but of a last one that does not come to its end.
  static std::vector<float> Step(Model& model, const std::vector<LayeredPart>& parts,
                                 int32_t first = 0, int32_t end = kToTheLast) {
    std::vector<int32_t> tokens, positions, logit_rows;
    std::vector<ForwardBatch::Sequence> sequences;
    for (const LayeredPart& part : parts) {
      const auto first_row = static_cast<int32_t>(tokens.size());
      const auto context = static_cast<int32_t>(part.tokens.size());
      for (int32_t at = context - part.rows; at < context; ++at) {
        tokens.push_back(part.tokens[static_cast<size_t>(at)]);
        positions.push_back(at);
      }
      sequences.push_back({first_row, part.rows, context, part.blocks});
      if (&part != &parts.back() || end == kToTheLast)
        logit_rows.push_back(first_row + part.rows - 1);
    }
    std::vector<float> logits(logit_rows.size() * static_cast<size_t>(model.info().vocab_size));
    const Status status =
        model.Forward({tokens, positions, sequences, logit_rows, first, end}, logits);
    EXPECT_TRUE(status) << status.error().message;
    for (const float logit : logits) EXPECT_TRUE(std::isfinite(logit));
    return logits;
  }
};
INSTANTIATE_TEST_SUITE_P(Families, LayeredTest,
                         ::testing::Combine(::testing::Values("llama", "gemma3", "qwen3moe"),
                                            ::testing::Values(1, 3)),
                         [](const auto& info) {
                           return fmt::format("{}_{}", std::get<0>(info.param),
                                              std::get<1>(info.param));
                         });

TEST_P(LayeredTest, HasTheSameBitsAsInOneStep) {
  const auto stream = Tokens(12, 2), prompt = Tokens(30, 1);
  const std::vector<int32_t> stream_blocks = {7, 8, 9}, prompt_blocks = {0, 1, 2, 3, 4, 5, 6, 10};
  const auto prefix = [](const std::vector<int32_t>& of, int n) {
    return std::vector<int32_t>(of.begin(), of.begin() + n);
  };
  const std::vector<std::vector<std::pair<int32_t, int32_t>>> ways = {
      {{0, kToTheLast}},
      {{0, 3}, {3, kToTheLast}},
      {{0, 1}, {1, 2}, {2, 6}, {6, kToTheLast}},
      {{0, 6}, {6, 7}}};  // to the last layer, and yet no logits
  std::vector<float> expected_stream, expected_prompt;
  for (const bool beside : {true, false}) {
    for (const auto& way : ways) {
      auto model = Load();
      Step(*model, {{prefix(stream, 8), 8, stream_blocks}});
      Step(*model, {{prefix(prompt, 9), 9, prompt_blocks}});
      std::vector<float> streamed, last;
      int position = 9;  // tokens of the stream so far, and one
      for (const auto& [first, end] : way) {
        std::vector<LayeredPart> parts;
        if (beside) parts.push_back({prefix(stream, position++), 1, stream_blocks});
        parts.push_back({prefix(prompt, 29), 20, prompt_blocks});
        last = Step(*model, parts, first, end);
        streamed.insert(streamed.end(), last.begin(),
                        last.begin() + (beside ? model->info().vocab_size : 0));
      }
      while (beside && position <= 12) {
        const auto more = Step(*model, {{prefix(stream, position++), 1, stream_blocks}});
        streamed.insert(streamed.end(), more.begin(), more.end());
      }
      // What the layers wrote to the cache shows in the token after the chunk.
      const auto prompted = Step(*model, {{prompt, 1, prompt_blocks}});
      if (expected_prompt.empty()) expected_prompt = prompted;
      EXPECT_EQ(prompted, expected_prompt);
      if (!beside) continue;
      if (expected_stream.empty()) expected_stream = streamed;
      EXPECT_EQ(streamed, expected_stream);
    }
  }
}

// Whoever else is there need not be the same from step to step, nor the step as large.
TEST_P(LayeredTest, OthersMayComeAndGoMeanwhile) {
  const auto a = Tokens(10, 2), b = Tokens(20, 3), prompt = Tokens(24, 1);
  const std::vector<int32_t> a_blocks = {0, 1, 2}, b_blocks = {3, 4, 5, 6, 7},
                             prompt_blocks = {8, 9, 10, 11, 12, 13};
  auto model = Load();
  const auto whole = Step(*model, {{prompt, 24, prompt_blocks}});
  auto again = Load();
  Step(*again, {{prompt, 24, prompt_blocks}}, 0, 2);
  Step(*again, {{a, 10, a_blocks}, {b, 20, b_blocks}});  // a step without it
  Step(*again, {{a, 1, a_blocks}, {b, 1, b_blocks}, {prompt, 24, prompt_blocks}}, 2, 5);
  const auto last = Step(*again, {{b, 1, b_blocks}, {prompt, 24, prompt_blocks}}, 5, kToTheLast);
  EXPECT_EQ(std::vector<float>(last.end() - again->info().vocab_size, last.end()), whole);
}

}  // namespace
}  // namespace quern::testing
