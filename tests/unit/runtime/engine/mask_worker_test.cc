#include "runtime/engine/mask_worker.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <map>

#include "runtime/constraints/constraint_compiler.h"
#include "runtime/engine/step_loop.h"
#include "tests/unit/runtime/engine/byte_tokenizer.h"
#include "tests/unit/runtime/engine/hash_model.h"

namespace quern {
namespace {

// `left_out`: a byte that no token has.
std::shared_ptr<Constraint> Regex(const std::string& text, char left_out = '\0') {
  const ByteTokenizer tokenizer;
  ConstraintVocabulary vocabulary{.token_bytes = {}, .end_of_generation = {ByteTokenizer::kEnd}};
  for (TokenId id = 0; id < tokenizer.vocab_size(); ++id) {
    std::string bytes = tokenizer.TokenBytes(id, false);
    if (left_out != '\0' && bytes.find(left_out) != std::string::npos) bytes.clear();
    vocabulary.token_bytes.push_back(std::move(bytes));
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

// A mask that is computed when the test lets it be.
std::shared_ptr<MaskJob> Held(const std::shared_ptr<Constraint>& constraint, Gate& gate,
                              const std::string& tenant = "") {
  auto job = std::make_shared<MaskJob>(constraint, tenant);
  job->before = [&gate] { gate.Pass(); };
  return job;
}

TEST_F(ConstrainedSteps, ALateMaskKeepsItsOwnSequenceFromTheStepAndNoOther) {
  Gate gate;
  HashModel model;
  const EngineOptions options{.max_sequences = 3, .max_batch_tokens = 8, .kv_block_tokens = 4};
  const KvLayout layout{.block_tokens = 4, .num_blocks = 32};
  ASSERT_TRUE(model.AllocateKv(layout).ok());
  StepLoop loop(model, tokenizer_, options, layout, nullptr, RealClock());
  std::map<RequestId, std::string> texts;
  std::map<RequestId, FinishReason> finished;
  const auto add = [&](RequestId id, GenerationRequest request, bool held) {
    const auto sink = [&, id](const GenerationDelta& delta) {
      texts[id] += delta.text;
      if (delta.finish) finished[id] = *delta.finish;
    };
    auto active = std::make_unique<ActiveRequest>(std::move(request), sink, tokenizer_);
    active->id = id;
    active->seed = 3;
    if (held) active->masks->before = [&] { gate.Pass(); };
    loop.Add(std::move(active));
  };
  std::vector<RequestId> ended;
  const auto run = [&](const auto& until) {
    for (int step = 0; !until() && step < 10'000; ++step) {
      loop.Step();
      loop.Deliver(ended);
    }
  };
  add(1, Wanting("[0-9]{5}"), true);
  add(2, {.prompt = Bytes("another prompt"), .max_tokens = 20, .ignore_eos = true}, false);
  add(3, Wanting("[a-z]{5}"), true);
  run([&] { return finished.contains(2); });
  EXPECT_EQ(finished[2], FinishReason::kLength);
  EXPECT_EQ(texts[1] + texts[3], "") << "their masks are not there";
  loop.Cancel(3);  // while its mask waits, or is computed
  add(4, {.prompt = Bytes("p"), .max_tokens = 20, .ignore_eos = true}, false);
  run([&] { return finished.contains(4); });
  gate.Open();
  run([&] { return !loop.HasWork(); });
  EXPECT_EQ(finished[1], FinishReason::kStop);
  EXPECT_EQ(texts[1].size(), 5u);
  EXPECT_EQ(texts[1].find_first_not_of("0123456789"), std::string::npos) << texts[1];
  EXPECT_EQ(finished[3], FinishReason::kCancelled);
}

// In the constraint's vocabulary no token has a 'b', so that "ab*" can only end after its 'a'; the
// matcher by itself would go on.
TEST_F(ConstrainedSteps, AFormatThatCanOnlyEndEndsWhateverMinTokensSays) {
  GenerationRequest request = Wanting("x");
  request.constraint = Regex("ab*", /*left_out=*/'b');
  request.min_tokens = 10;
  const GenerationDelta last = Run(std::move(request));
  EXPECT_EQ(last.finish, FinishReason::kStop) << last.error;
  EXPECT_EQ(last.text, "a");
  GenerationRequest longer = Wanting("a*");
  longer.min_tokens = 10;
  EXPECT_GE(Run(std::move(longer)).text.size(), 10u) << "where it may go on it does";
}

TEST_F(ConstrainedSteps, AFormatWithNoWayOnEndsTheRequestAndIsNoFaultOfOurs) {
  GenerationRequest request = Wanting("x");
  request.constraint = Regex("abb", /*left_out=*/'b');
  const GenerationDelta last = Run(std::move(request));
  EXPECT_EQ(last.finish, FinishReason::kFormat);
  EXPECT_NE(last.error.find("format"), std::string::npos) << last.error;
  EXPECT_EQ(last.text, "a");
}

TEST(MaskWorker, ForbidsInEachRowWhatItsOwnConstraintDoes) {
  MaskWorker worker;
  const std::vector<std::shared_ptr<MaskJob>> rows = {std::make_shared<MaskJob>(Regex("a"), ""),
                                                      nullptr,
                                                      std::make_shared<MaskJob>(Regex("b"), "")};
  for (int round = 0; round < 50; ++round) {
    worker.Begin(rows);
    worker.Wait(std::chrono::minutes(1), true);
    for (const auto& [row, letter] : {std::pair<size_t, size_t>{0, 'a'}, {2, 'b'}}) {
      ASSERT_TRUE(worker.Ready(row));
      std::vector<float> logits(HashModel::kVocabSize, 1.0f);
      ASSERT_TRUE(worker.Apply(row, logits).ok());
      for (size_t id = 0; id < logits.size(); ++id) {
        EXPECT_EQ(logits[id], id == letter ? 1.0f : kForbiddenLogit) << id;
      }
    }
  }
  worker.Begin({});  // a step without
  worker.Wait(std::chrono::milliseconds(0), false);
}

TEST(MaskWorker, WaitsForOneRowAtLeastAndAMaskThatWasLateIsThereLater) {
  Gate gate;
  MaskWorker worker;
  const auto late = Held(Regex("b"), gate);
  const auto quick = std::make_shared<MaskJob>(Regex("a"), "");
  worker.Begin(std::vector{quick, late});
  worker.Wait(std::chrono::milliseconds(0), false);
  EXPECT_TRUE(worker.Ready(0)) << "it was first, and nothing else could go on";
  EXPECT_FALSE(worker.Ready(1));
  worker.Begin(std::vector{late});
  worker.Wait(std::chrono::milliseconds(0), true);
  EXPECT_FALSE(worker.Ready(0));
  gate.Open();
  worker.Begin(std::vector{late});
  worker.Wait(std::chrono::milliseconds(0), false);
  ASSERT_TRUE(worker.Ready(0));
  EXPECT_TRUE(worker.AllowsOnly(0, std::vector<int32_t>{'b'}));
  EXPECT_FALSE(worker.AllowsOnly(0, std::vector<int32_t>{'a'}));
}

TEST(MaskWorker, TenantsTakeTurns) {
  Gate gate;
  MaskWorker worker;
  std::string order;  // the worker's, until Wait has seen all
  std::vector<std::shared_ptr<MaskJob>> rows;
  const auto constraint = Regex("a");
  for (const char tenant : {'a', 'a', 'a', 'a', 'b', 'b', 'c'}) {
    rows.push_back(std::make_shared<MaskJob>(constraint->Clone(), std::string(1, tenant)));
    rows.back()->before = [&order, tenant] { order += tenant; };
  }
  worker.Begin(rows);
  worker.Wait(std::chrono::minutes(1), false);
  EXPECT_EQ(order, "abcabaa");
}

}  // namespace
}  // namespace quern
