#include "runtime/engine/mask_worker.h"

#include <gtest/gtest.h>

#include <cmath>

#include "runtime/constraints/constraint_compiler.h"
#include "runtime/engine/step_loop.h"
#include "tests/unit/runtime/engine/byte_tokenizer.h"
#include "tests/unit/runtime/engine/hash_model.h"

namespace quern {
namespace {

std::shared_ptr<Constraint> Regex(const std::string& text) {
  const ByteTokenizer tokenizer;
  ConstraintVocabulary vocabulary{.token_bytes = {}, .end_of_generation = {ByteTokenizer::kEnd}};
  for (TokenId id = 0; id < tokenizer.vocab_size(); ++id) {
    vocabulary.token_bytes.push_back(tokenizer.TokenBytes(id, false));
  }
  auto compiler = ConstraintCompiler::Create(vocabulary).value();
  return compiler->Compile({.kind = ConstraintSpec::Kind::kRegex, .text = text}).value();
}

// One request after another through a step loop whose model says what it likes.
class ConstrainedSteps : public testing::Test {
 protected:
  GenerationDelta Run(GenerationRequest request) {
    HashModel model;
    const EngineOptions options{.max_sequences = 2, .max_batch_tokens = 8, .kv_block_tokens = 4};
    const KvLayout layout{.block_tokens = 4, .num_blocks = 16};
    EXPECT_TRUE(model.AllocateKv(layout).ok());
    StepLoop loop(model, tokenizer_, options, layout, nullptr, RealClock());
    GenerationDelta last;
    std::string text;
    const auto sink = [&](GenerationDelta delta) {
      text += delta.text;
      last = std::move(delta);
    };
    auto active = std::make_unique<ActiveRequest>(std::move(request), sink, tokenizer_);
    active->seed = 3;
    loop.Add(std::move(active));
    std::vector<RequestId> ended;
    for (int step = 0; loop.HasWork() && step < 100; ++step) {
      loop.Step();
      loop.Deliver(ended);
    }
    last.text = text;
    return last;
  }
  static GenerationRequest Wanting(const std::string& regex) {
    GenerationRequest request;
    request.prompt = Bytes("prompt longer than a step");
    request.max_tokens = 20;
    request.constraint = Regex(regex);
    return request;
  }

  ByteTokenizer tokenizer_;
};

TEST_F(ConstrainedSteps, TheAnswerIsWhatTheConstraintAllowsAndEndsWithIt) {
  for (const bool ignore_eos : {false, true}) {
    GenerationRequest request = Wanting("(ab|END){2}!");
    request.ignore_eos = ignore_eos;
    const GenerationDelta last = Run(std::move(request));
    EXPECT_EQ(last.finish, FinishReason::kStop) << last.error;
    EXPECT_TRUE(last.text == "abab!" || last.text == "abEND!" || last.text == "ENDab!" ||
                last.text == "ENDEND!")
        << last.text;
  }
}

TEST_F(ConstrainedSteps, GreedyDrawsKeepToTheConstraintToo) {
  GenerationRequest request = Wanting("[0-9]{3}");
  request.sampling.temperature = 0;
  const GenerationDelta last = Run(std::move(request));
  EXPECT_EQ(last.finish, FinishReason::kStop) << last.error;
  EXPECT_EQ(last.text.find_first_not_of("0123456789"), std::string::npos) << last.text;
  EXPECT_EQ(last.text.size(), 3u);
}

TEST_F(ConstrainedSteps, MaxTokensCutsAnAnswerThatIsNotDone) {
  const GenerationDelta last = Run(Wanting("x{100}"));
  EXPECT_EQ(last.finish, FinishReason::kLength) << last.error;
  EXPECT_EQ(last.text, std::string(20, 'x'));
}

TEST(MaskWorker, ForbidsInEachRowWhatItsOwnConstraintDoes) {
  MaskWorker worker;
  const auto a = Regex("a"), b = Regex("b");
  for (int round = 0; round < 50; ++round) {
    Constraint* const rows[] = {a.get(), nullptr, b.get()};
    worker.Begin(rows);
    worker.Wait();
    for (const auto& [row, letter] : {std::pair<size_t, size_t>{0, 'a'}, {2, 'b'}}) {
      std::vector<float> logits(HashModel::kVocabSize, 1.0f);
      ASSERT_TRUE(worker.Apply(row, logits).ok());
      for (size_t id = 0; id < logits.size(); ++id) {
        EXPECT_EQ(logits[id], id == letter ? 1.0f : kForbiddenLogit) << id;
      }
    }
  }
  worker.Begin({});  // a step without
  worker.Wait();
}

}  // namespace
}  // namespace quern
