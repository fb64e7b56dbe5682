// The engine over a real model: a request must get the tokens that it would get alone, whatever
// shares its steps.

#include "tests/integration/engine/real_engine.h"

namespace quern {
namespace {

class SmolLM2Engine : public RealEngineTest {
 protected:
  SmolLM2Engine() : RealEngineTest("SmolLM2-135M-Instruct.Q4_1.gguf") {}

  void SetUp() override {
    RealEngineTest::SetUp();
    if (tokenizer_ == nullptr) return;
    std::string lengthy = "A list of numbers in order: ";
    for (int i = 0; i < 60; ++i) lengthy += std::to_string(i) + ", ";
    for (const std::string& text :
         {std::string("The capital of France is"), std::string("def fibonacci(n):\n    "), lengthy,
          std::string("Water boils at"), std::string("Once upon a time")}) {
      prompts_.push_back(tokenizer_->Encode(text).value());
    }
  }

  void ExpectTheSameWhenPreempted(KvDtype dtype) {
    kv_dtype_ = dtype;
    const auto alone = Run({}, false, 0.8f);
    // Just enough for the longest prompt: the others must give way and be computed again.
    kv_tokens_ = LongestPrompt() + kMaxTokens + 16;
    const auto together =
        Run({.max_sequences = 8, .max_batch_tokens = 64, .kv_block_tokens = 4}, true, 0.8f);
    ExpectSame(alone, together);
    EXPECT_GT(stats_.preemptions_kv_full_total, 0u);
    EXPECT_GT(counter_.prefill_tokens, PromptTokens()) << "nothing was computed again";
  }
};

TEST_F(SmolLM2Engine, GreedyInABatchWithChunkedPrefillEqualsAlone) {
  const auto alone = Run({}, false, 0);
  EXPECT_NE(alone[0].text.find("Paris"), std::string::npos) << alone[0].text;
  const auto together = Run({.max_sequences = 8, .max_batch_tokens = 48}, true, 0);
  ExpectSame(alone, together);
}

TEST_F(SmolLM2Engine, SampledWithASeedAndPreemptedEqualsAlone) {
  ExpectTheSameWhenPreempted(KvDtype::kF16);
}

// What was computed again is rounded to the same steps.
TEST_F(SmolLM2Engine, SampledWithASeedAndPreemptedEqualsAloneWithAnInt8Cache) {
  ExpectTheSameWhenPreempted(KvDtype::kInt8);
}

}  // namespace
}  // namespace quern
