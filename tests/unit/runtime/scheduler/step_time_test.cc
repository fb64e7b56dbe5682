#include "runtime/scheduler/step_time.h"

#include <gtest/gtest.h>

#include <random>

namespace quern {
namespace {

constexpr StepTimeCoefficients kMachine = {.base = 8e-3,
                                           .per_decode_sequence = 1e-3,
                                           .per_prefill_token = 1.2e-3,
                                           .per_attended_token = 2e-7,
                                           .per_loaded_token = 3e-6};

StepShape Decodes(int32_t sequences, int32_t context) {
  return {.decode_sequences = sequences,
          .attended_tokens = int64_t{sequences} * context,
          .loaded_tokens = int64_t{sequences} * context};
}

StepShape Prefill(int32_t tokens, int32_t context, int32_t decodes = 0) {
  return {.decode_sequences = decodes,
          .prefill_tokens = static_cast<double>(tokens),
          .attended_tokens = int64_t{tokens} * (context + tokens / 2) + int64_t{decodes} * 300,
          .loaded_tokens = context + tokens + int64_t{decodes} * 300};
}

// Steps of every kind, each up to `noise` longer or shorter than kMachine says.
void ObserveVaried(StepTimeModel& model, int steps, double noise, uint32_t seed = 7) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<double> off(-noise, noise);
  std::uniform_int_distribution<int32_t> decodes(0, 32), tokens(1, 512), context(0, 4000);
  for (int i = 0; i < steps; ++i) {
    const StepShape shape = i % 2 == 0 ? Decodes(decodes(random) + 1, context(random))
                                       : Prefill(tokens(random), context(random), decodes(random));
    model.Observe(shape, kMachine.Predict(shape) * (1 + off(random)));
  }
}

TEST(StepTimeModel, FindsTheCoefficientsThatTheTimesWereMadeFrom) {
  StepTimeModel model;
  ObserveVaried(model, 2000, 0.0);
  const StepTimeCoefficients& fit = model.fit();
  EXPECT_NEAR(fit.base, kMachine.base, 0.01 * kMachine.base);
  EXPECT_NEAR(fit.per_decode_sequence, kMachine.per_decode_sequence,
              0.01 * kMachine.per_decode_sequence);
  EXPECT_NEAR(fit.per_prefill_token, kMachine.per_prefill_token, 0.01 * kMachine.per_prefill_token);
  EXPECT_NEAR(fit.per_attended_token, kMachine.per_attended_token,
              0.01 * kMachine.per_attended_token);
  EXPECT_NEAR(fit.per_loaded_token, kMachine.per_loaded_token, 0.01 * kMachine.per_loaded_token);
  EXPECT_LT(model.error_ratio(), 0.01);
}

TEST(StepTimeModel, PredictsThroughNoiseAndSaysHowWell) {
  StepTimeModel model;
  ObserveVaried(model, 2000, 0.3);
  for (const StepShape& shape : {Decodes(8, 500), Prefill(256, 0), Prefill(64, 2000, 8)}) {
    const double real = kMachine.Predict(shape);
    EXPECT_NEAR(model.fit().Predict(shape), real, 0.1 * real);
  }
  EXPECT_GT(model.error_ratio(), 0.08);  // the noise's mean is 0.15
  EXPECT_LT(model.error_ratio(), 0.25);
}

TEST(StepTimeModel, IsNotReadyBeforeItSawBothKindsOfSteps) {
  StepTimeModel model;
  EXPECT_FALSE(model.ready());
  for (int i = 0; i < 100; ++i) model.Observe(Decodes(8, 100), 0.01);
  EXPECT_FALSE(model.ready());
  for (int i = 0; i < 8; ++i) model.Observe(Prefill(128, 0), 0.1);
  EXPECT_TRUE(model.ready());
}

TEST(StepTimeModel, KeepsWhatItKnowsOfPrefillWhileOnlyDecodesRun) {
  StepTimeModel model;
  ObserveVaried(model, 400, 0.05);
  const double before = model.fit().Predict(Prefill(256, 0));
  for (int i = 0; i < 20'000; ++i)
    model.Observe(Decodes(8, 300), kMachine.Predict(Decodes(8, 300)));
  EXPECT_NEAR(model.fit().Predict(Prefill(256, 0)), before, 0.1 * before);
}

TEST(StepTimeModel, FollowsAMachineThatBecameSlower) {
  StepTimeModel model;
  ObserveVaried(model, 1000, 0.05);
  std::mt19937 random(3);
  std::uniform_int_distribution<int32_t> decodes(1, 32);
  for (int i = 0; i < 3000; ++i) {
    const StepShape shape = Decodes(decodes(random), 300);
    model.Observe(shape, 2 * kMachine.Predict(shape));
  }
  const double real = 2 * kMachine.Predict(Decodes(8, 300));
  EXPECT_NEAR(model.fit().Predict(Decodes(8, 300)), real, 0.15 * real);
}

TEST(StepTimeModel, OneStepThatWasHeldUpChangesLittle) {
  StepTimeModel model;
  ObserveVaried(model, 1000, 0.02);
  const double before = model.fit().Predict(Decodes(8, 300));
  model.Observe(Decodes(8, 300), 50 * before);
  EXPECT_NEAR(model.fit().Predict(Decodes(8, 300)), before, 0.1 * before);
}

TEST(StepTimeModel, NothingIsEverNegativeOrWithoutABound) {
  StepTimeModel model;
  model.Observe(Decodes(1, 1), 0);   // ignored
  model.Observe(Decodes(1, 1), -1);  // ignored
  EXPECT_EQ(model.fit().Predict(Decodes(4, 100)), 0);
  // Equal shapes cannot be told apart into terms; what they take is still known.
  for (int i = 0; i < 50; ++i) model.Observe(Decodes(4, 100), 0.02);
  EXPECT_NEAR(model.fit().Predict(Decodes(4, 100)), 0.02, 1e-6);
  // Larger steps that take less: a slope below 0 would fit best.
  for (int i = 0; i < 50; ++i) model.Observe(Prefill(512, 0, 4), 0.001);
  const StepTimeCoefficients& fit = model.fit();
  for (const double value : {fit.base, fit.per_decode_sequence, fit.per_prefill_token,
                             fit.per_attended_token, fit.per_loaded_token}) {
    EXPECT_GE(value, 0);
  }
}

TEST(PrefillBudget, KeepsAStepWithStreamsWithinTheSlowdown) {
  const PrefillPressure pressure = {
      .decoding = 8, .prefilling = 1, .decode_context = 8 * 300, .prefill_context = 4000};
  const int32_t budget = PrefillBudget(kMachine, pressure, 2, 1, 512);
  const double alone = kMachine.Predict(Decodes(8, 300));
  const auto with = [&](int32_t tokens) { return kMachine.Predict(Prefill(tokens, 4000, 8)); };
  EXPECT_LE(with(budget), 1.001 * (1 + kMeanOfExcess) * alone);
  EXPECT_GT(with(budget + 1), 0.999 * (1 + kMeanOfExcess) * alone);
}

// A small chunk late in a long prompt loads as much as a large one.
// What a chunk adds to a step per token that it brings the prompt, seconds.
double PerToken(const LayeredChunk& chunk, int32_t context, int32_t layers) {
  const double whole =
      kMachine.Predict(Prefill(chunk.tokens, context)) - kMachine.Predict(StepShape{});
  const int32_t steps = (layers + chunk.layers - 1) / chunk.layers;
  EXPECT_GT(steps, 1);
  return whole * chunk.layers / layers / (static_cast<double>(chunk.tokens) / steps);
}

TEST(LayeredChunkFor, FillsWhatAStepMayTakeLongerAndCostsLessThanOrdinaryChunks) {
  for (const int32_t layers : {12, 30, 80}) {
    for (const int32_t context : {1000, 3000, 4000}) {
      const PrefillPressure pressure = {
          .decoding = 8, .prefilling = 1, .decode_context = 8 * 300, .prefill_context = context};
      const int32_t ordinary = PrefillBudget(kMachine, pressure, 2, 4, 512);
      const LayeredChunk chunk =
          LayeredChunkFor(kMachine, pressure, 2,
                          {.ordinary_tokens = ordinary, .least = 4, .most = 480, .layers = layers});
      ASSERT_GE(chunk.tokens, kLayeredTokens / 2) << context;
      const double allowed = kMeanOfExcess * kMachine.Predict(Decodes(8, 300));
      const double whole =
          kMachine.Predict(Prefill(chunk.tokens, context)) - kMachine.Predict(StepShape{});
      EXPECT_LE(whole * chunk.layers / layers, 1.001 * allowed) << context;
      EXPECT_GE(whole * chunk.layers / layers, 0.95 * allowed) << context;
      const double alone =
          kMachine.Predict(Prefill(ordinary, context)) - kMachine.Predict(StepShape{});
      EXPECT_LT(PerToken(chunk, context, layers), alone / ordinary) << context;
      EXPECT_NEAR(chunk.load_tokens,
                  kMachine.per_loaded_token * context /
                      (kMachine.per_prefill_token + kMachine.per_attended_token * context),
                  1);
    }
  }
}

TEST(LayeredChunkFor, IsNoneWhereOrdinaryChunksAreAsGood) {
  const PrefillPressure pressure = {
      .decoding = 8, .prefilling = 1, .decode_context = 8 * 300, .prefill_context = 3000};
  const LayeredBounds bounds = {.ordinary_tokens = PrefillBudget(kMachine, pressure, 2, 4, 512),
                                .least = 4,
                                .most = 480,
                                .layers = 30};
  const auto chunk = [&](const PrefillPressure& of, LayeredBounds in) {
    return LayeredChunkFor(kMachine, of, 2, in).tokens;
  };
  EXPECT_GT(chunk(pressure, bounds), 0);
  PrefillPressure first = pressure;
  first.prefill_context = 0;  // there is nothing to load
  LayeredBounds many = bounds;
  many.ordinary_tokens = PrefillBudget(kMachine, first, 2, 4, 512);
  EXPECT_EQ(chunk(first, many), 0);
  LayeredBounds on_its_way = many;  // or all the layers that are left would make one long step
  on_its_way.goes_on = true;
  EXPECT_GT(chunk(first, on_its_way), 0);
  many.ordinary_tokens = kLayeredTokens;
  EXPECT_EQ(chunk(pressure, many), 0);
  LayeredBounds small = bounds;
  small.most = 12;  // the batch has no room for more
  EXPECT_EQ(chunk(pressure, small), 0);
  PrefillPressure none = pressure;
  none.decoding = 0;
  EXPECT_EQ(chunk(none, bounds), 0);
  EXPECT_EQ(LayeredChunkFor({}, pressure, 2, bounds).tokens, 0) << "nothing known";
}

TEST(LayeredChunkFor, BringsAPromptOnByTheLeastWhateverThatCosts) {
  const PrefillPressure pressure = {
      .decoding = 1, .prefilling = 1, .decode_context = 10, .prefill_context = 100'000};
  const LayeredChunk chunk = LayeredChunkFor(
      kMachine, pressure, 2, {.ordinary_tokens = 4, .least = 4, .most = 480, .layers = 30});
  ASSERT_GT(chunk.tokens, 0);
  EXPECT_GE(chunk.tokens, 4 * ((30 + chunk.layers - 1) / chunk.layers));
}

TEST(PrefillBudget, IsTheLeastWhereLoadingTheContextAloneTakesAllThatIsAllowed) {
  PrefillPressure pressure = {
      .decoding = 8, .prefilling = 1, .decode_context = 8 * 300, .prefill_context = 1000};
  EXPECT_GT(PrefillBudget(kMachine, pressure, 2, 1, 512), 4);
  pressure.prefill_context = 40'000;
  EXPECT_EQ(PrefillBudget(kMachine, pressure, 2, 4, 512), 4);
}

TEST(PrefillBudget, GivesPromptsTheSquareOfTheRatioWhereMoreOfThemWaitThanStream) {
  const PrefillPressure one = {.decoding = 4, .prefilling = 1};
  const PrefillPressure many = {.decoding = 4, .prefilling = 28};
  constexpr StepTimeCoefficients kLinear = {
      .base = 8e-3, .per_decode_sequence = 1e-3, .per_prefill_token = 1.2e-3};
  const int32_t little = PrefillBudget(kLinear, one, 2, 1, 4096);
  EXPECT_NEAR(PrefillBudget(kLinear, many, 2, 1, 4096) * kMeanOfExcess, 49 * little, 49);
}

TEST(PrefillBudget, SharesNothingBeyondTheSlowdownWhereFewerPromptsWaitThanStream) {
  const PrefillPressure pressure = {.decoding = 4, .prefilling = 3};
  const int32_t at_two = PrefillBudget(kMachine, pressure, 2, 1, 4096);
  const int32_t at_least = PrefillBudget(kMachine, pressure, 1.25, 1, 4096);
  EXPECT_NEAR(at_least, at_two / 4, 1);
}

TEST(PrefillBudget, IsAllWhereNothingStreamsAndNeverLessThanTheLeast) {
  EXPECT_EQ(PrefillBudget(kMachine, {.decoding = 0, .prefilling = 3}, 2, 16, 512), 512);
  EXPECT_EQ(PrefillBudget(kMachine, {.decoding = 1, .prefilling = 1}, 1, 16, 512), 16);
  EXPECT_EQ(PrefillBudget({}, {.decoding = 1, .prefilling = 1}, 2, 16, 512), 512);  // nothing known
}

}  // namespace
}  // namespace quern
