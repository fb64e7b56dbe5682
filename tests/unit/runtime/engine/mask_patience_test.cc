// What a grammar whose masks are slow may cost the others: a bounded wait in each step.
#include <gtest/gtest.h>

#include <chrono>
#include <string>

#include "runtime/constraints/constraint_compiler.h"
#include "tests/unit/runtime/engine/step_loop_fixture.h"

namespace quern {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kForward{5};
constexpr milliseconds kPatience{2};  // docs/structured-output.md

// Moves by hand, and by each wait that is in vain. Waits take no time of the machine's then; while
// `in_time` is set they last until they are not in vain, and take none of this clock's.
class WaitingClock : public Clock {
 public:
  SteadyTime Now() const override { return SteadyTime(now_); }
  std::chrono::system_clock::time_point WallNow() const override { return {}; }
  bool WaitFor(std::condition_variable& changed, std::unique_lock<std::mutex>& lock,
               std::chrono::nanoseconds patience,
               const std::function<bool()>& done) const override {
    waits.push_back(patience);
    if (in_time) changed.wait(lock, done);
    if (done()) return true;
    now_ += patience;
    return false;
  }
  void Advance(std::chrono::nanoseconds by) { now_ += by; }

  bool in_time = false;
  mutable std::vector<std::chrono::nanoseconds> waits;

 private:
  mutable std::chrono::nanoseconds now_{0};
};

class MaskPatience : public testing::Test {
 protected:
  void SetUp() override {
    model_.on_forward = [this](const ForwardBatch&) -> Status {
      clock_.Advance(kForward);
      return {};
    };
    const EngineOptions options{.max_sequences = 8, .max_batch_tokens = 64, .kv_block_tokens = 4};
    const KvLayout layout{.block_tokens = 4, .num_blocks = 128};
    ASSERT_TRUE(model_.AllocateKv(layout).ok());
    loop_ = std::make_unique<StepLoop>(model_, tokenizer_, options, layout, &observer_, clock_);
    ConstraintVocabulary vocabulary{.token_bytes = {}, .end_of_generation = {ByteTokenizer::kEnd}};
    for (TokenId id = 0; id < tokenizer_.vocab_size(); ++id) {
      vocabulary.token_bytes.push_back(tokenizer_.TokenBytes(id, false));
    }
    compiler_ = ConstraintCompiler::Create(vocabulary).value();
  }
  ~MaskPatience() override { gate_.Open(); }

  // One that streams. With a `regex` it is held to it, and each of its masks waits at the gate.
  void Add(const std::string& tenant, int32_t max_tokens, const std::string& regex = "") {
    GenerationRequest request{.prompt = Bytes("p"), .max_tokens = max_tokens, .ignore_eos = true};
    request.tenant = std::make_shared<const Tenant>(Tenant{.name = tenant});
    if (!regex.empty()) {
      request.constraint =
          compiler_->Compile({.kind = ConstraintSpec::Kind::kRegex, .text = regex}).value();
    }
    const bool slow = request.constraint != nullptr;
    std::string& text = slow ? constrained_text_ : plain_text_;
    auto active = std::make_unique<ActiveRequest>(
        std::move(request), [&text](const GenerationDelta& delta) { text += delta.text; },
        tokenizer_);
    active->id = next_id_++;
    active->submitted = clock_.Now();
    if (slow) active->masks->before = [this] { gate_.Pass(); };
    loop_->Add(std::move(active));
  }

  void Step() {
    std::vector<RequestId> ended;
    loop_->Step();
    loop_->Deliver(ended);
  }

  WaitingClock clock_;
  Gate gate_;
  HashModel model_;
  ByteTokenizer tokenizer_;
  RecordingObserver observer_;
  std::unique_ptr<ConstraintCompiler> compiler_;
  std::string plain_text_, constrained_text_;  // outlive the loop, whose sinks write to them
  std::unique_ptr<StepLoop> loop_;
  RequestId next_id_ = 1;
};

TEST_F(MaskPatience, LateMasksCostTheOthersTwoMillisecondsAStepHoweverManyTheyAre) {
  constexpr int kSteps = 50;
  Add("plain", 1000);
  Add("slow", 20, "[a-z]{20}");
  Add("slow", 20, "[a-z]{20}");
  Add("slow too", 20, "[0-9]{20}");
  for (int i = 0; i < kSteps; ++i) Step();
  EXPECT_EQ(clock_.waits, std::vector<std::chrono::nanoseconds>(kSteps, kPatience));
  ASSERT_EQ(observer_.steps.size(), kSteps);
  for (const StepStats& step : observer_.steps) {
    EXPECT_DOUBLE_EQ(step.seconds, Seconds(kForward + kPatience).count());
  }
  EXPECT_EQ(constrained_text_, "") << "their masks are not there";
  // A token in each step: the first one's time is no gap.
  ASSERT_EQ(observer_.gaps.size(), kSteps - 1);
  for (const double gap : observer_.gaps) {
    EXPECT_DOUBLE_EQ(gap, Seconds(kForward + kPatience).count());
  }
}

TEST_F(MaskPatience, MasksThatAreInTimeCostNothing) {
  gate_.Open();
  clock_.in_time = true;
  Add("plain", 20);
  Add("quick", 20, "[a-z]{20}");
  for (int i = 0; i < 20; ++i) Step();
  EXPECT_EQ(constrained_text_.size(), 20u);
  for (const StepStats& step : observer_.steps) {
    EXPECT_DOUBLE_EQ(step.seconds, Seconds(kForward).count());
  }
}

TEST_F(MaskPatience, WithoutConstrainedSequencesNoStepWaits) {
  Add("plain", 20);
  for (int i = 0; i < 20; ++i) Step();
  EXPECT_FALSE(loop_->HasWork());
  EXPECT_TRUE(clock_.waits.empty());
}

}  // namespace
}  // namespace quern
