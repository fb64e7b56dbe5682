// The engine over Gemma 3, of whose 18 layers 15 see 512 tokens: with prompts well beyond that, a
// request gets the tokens that it gets where all layers keep everything.

#include "tests/integration/engine/real_engine.h"

namespace quern {
namespace {

constexpr int64_t kWindow = 512;

class Gemma3Engine : public RealEngineTest {
 protected:
  Gemma3Engine() : RealEngineTest("gemma-3-270m.Q4_K_M.gguf") {}

  void SetUp() override {
    RealEngineTest::SetUp();
    if (tokenizer_ == nullptr) return;
    std::string text = "Notes of a walk through numbers.\n";
    for (int i = 0; text.size() < 6000; ++i) {
      text += "On day " + std::to_string(i) + " we counted " + std::to_string(i * i % 97) +
              " birds, and the " +
              (i % 3 == 0   ? "river"
               : i % 3 == 1 ? "hill"
                            : "wood") +
              " was quiet.\n";
    }
    const auto long_one = tokenizer_->Encode(text).value();
    ASSERT_GT(static_cast<int64_t>(long_one.size()), 4 * kWindow);
    prompts_.push_back(long_one);
    // What goes on from it; what parts from it in its middle; what it does not know.
    Add(long_one, "Now a short answer: ");
    Add({long_one.begin(), long_one.begin() + 3 * kWindow}, "Another end, with the sea: ");
    prompts_.emplace_back(long_one.rbegin(), long_one.rbegin() + kWindow + 100);
  }

  void Add(std::vector<TokenId> prompt, const std::string& more) {
    const auto tokens = tokenizer_->Encode(more).value();
    prompt.insert(prompt.end(), tokens.begin(), tokens.end());
    prompts_.push_back(std::move(prompt));
  }

  // Sampled where every layer keeps everything, as the windows of so many sequences would take
  // more. Computed once.
  std::vector<Generated> Reference() {
    static std::vector<Generated> reference;
    if (!reference.empty()) return reference;
    kv_tokens_ = LongestPrompt() + 64;
    reference = Run({.max_sequences = 64, .max_batch_tokens = 256, .prefix_cache = false}, false,
                    kTemperature);
    EXPECT_EQ(stats_.kv_window_blocks_total, 0);
    EXPECT_EQ(stats_.prefix_hits_total, 0u);
    return reference;
  }

  static constexpr float kTemperature = 0.8f;
};

TEST_F(Gemma3Engine, PrefixesAndChunksOfOddSizesGiveTheTokensOfLayersThatKeepEverything) {
  const auto reference = Reference();
  kv_tokens_ = 4 * LongestPrompt();
  const auto in_turn = Run({.max_sequences = 2, .max_batch_tokens = 77}, false, kTemperature);
  ExpectSame(reference, in_turn);
  EXPECT_GT(stats_.kv_window_blocks_total, 0);
  // The second finds the whole first one; the windows in the middle of that, where the third would
  // go on, are still there, as nobody needed their blocks.
  EXPECT_GT(static_cast<int64_t>(stats_.prefix_hits_total), LongestPrompt() + 2 * kWindow);
}

TEST_F(Gemma3Engine, PreemptedTheyGiveTheTokensOfLayersThatKeepEverything) {
  const auto reference = Reference();
  // The second, which has nearly all in common with the first, is let in beside it; then both grow.
  kv_tokens_ = LongestPrompt() + 20;
  const auto together =
      Run({.max_sequences = 3, .max_batch_tokens = 111, .kv_block_tokens = 4}, true, kTemperature);
  ExpectSame(reference, together);
  EXPECT_GT(stats_.preemptions_kv_full_total, 0u);
  EXPECT_GT(stats_.kv_window_blocks_total, 0);
  EXPECT_LT(stats_.kv_window_blocks_total * stats_.kv_block_tokens, LongestPrompt());
}

}  // namespace
}  // namespace quern
