#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <numeric>
#include <span>

#include "runtime/model/scoring.h"
#include "tests/integration/logits/recording.h"
#include "tests/support/models.h"

// The forward pass against the float32 logits of the dequantised weights, with llama.cpp's distance
// from them as one bar and twenty times our own as the other: a thousand times nearer than
// llama.cpp, we would not notice through the first that a thousandfold had been lost. Once as
// models are served, and once with everything in float32, where what is left are mistakes. What is
// compared, and how: tests/recordings/logits/make.py.
namespace quern {
namespace {

struct Comparison {
  std::vector<double> divergences;
  int top1_differs = 0;  // where the reference's two best are further apart than its error
  int top1_differs_anywhere = 0;
};

// `error`: nearer ties of the reference's two best may fall either way.
Comparison Compare(Model& model, const KvLayout& layout, const Recording& recording, double error) {
  Comparison result;
  size_t next = 0;
  for (const auto& prompt : recording.header["prompts"]) {
    const auto tokens = prompt["tokens"].get<std::vector<int32_t>>();
    std::vector<bool> wanted(tokens.size(), false);
    for (const auto& position : prompt["positions"]) wanted[position.get<size_t>()] = true;
    const Status status = ScoreSequence(
        model, layout, tokens, wanted, [&](int32_t position, std::span<const float> logits) {
          const RecordedPosition& reference = recording.positions[next++];
          result.divergences.push_back(Divergence(reference, logits, LogSumExp(logits)));
          if (static_cast<uint32_t>(TopK(logits, 1)[0].first) == reference.ids[0]) return;
          ++result.top1_differs_anywhere;
          const double gap = reference.log_probability[0] - reference.log_probability[1];
          if (gap <= error) return;
          ++result.top1_differs;
          ADD_FAILURE() << prompt["name"] << ", position " << position
                        << ": another token comes first, though the reference's best two are "
                        << gap << " apart";
        });
    EXPECT_TRUE(status) << status.error().message;
  }
  return result;
}

// KL divergence from the reference.
struct Distance {
  double mean;
  double p99;
};

struct Usual {
  Distance served;
  Distance float32;
};

void ExpectNear(const std::string& file, const Recording& recording, bool float32,
                const Distance& usual) {
  auto opened = GgufFile::Open(test_support::ModelPath(file));
  ASSERT_TRUE(opened) << opened.error().message;
  ModelOptions options;
  options.float32_weights = float32;
  if (float32) options.kv_dtype = KvDtype::kF32;
  auto model = Model::Load(std::move(opened).value(), options);
  ASSERT_TRUE(model) << model.error().message;
  const KvLayout layout = LayoutFor((*model)->info(), 2048);
  ASSERT_TRUE((*model)->AllocateKv(layout));

  // In float32, a tie is what the reference itself cannot decide. Storing K and V in 16 bits moves
  // logits by more; by how much was measured on the reference.
  double error = recording.header["reference_error"].get<double>();
  if (!float32) error += recording.header["kv_f16_error"].get<double>();
  const Comparison result = Compare(**model, layout, recording, error);
  ASSERT_EQ(result.divergences.size(), recording.positions.size());
  const auto& bar = recording.header["llama_cpp_kl"];
  const double mean = std::accumulate(result.divergences.begin(), result.divergences.end(), 0.0) /
                      static_cast<double>(result.divergences.size());
  const double p99 = Percentile(result.divergences, 99);
  std::printf(
      "%s, %s: %zu positions; KL mean %.3g (llama.cpp %.3g), p99 %.3g (llama.cpp %.3g); another "
      "token first at %d (llama.cpp %d)\n",
      file.c_str(), float32 ? "all in float32" : "as served", result.divergences.size(), mean,
      bar["mean"].get<double>(), p99, bar["p99"].get<double>(), result.top1_differs_anywhere,
      recording.header["llama_cpp_top1_differs"].get<int>());
  EXPECT_LE(mean, bar["mean"].get<double>());
  EXPECT_LE(p99, bar["p99"].get<double>());
  // Room for another instruction set's order of sums, not for fewer bits somewhere.
  constexpr double kRoom = 20;
  EXPECT_LE(mean, kRoom * usual.mean);
  EXPECT_LE(p99, kRoom * usual.p99);
  EXPECT_EQ(result.top1_differs, 0);
}

void ExpectNearReference(const std::string& file, const std::string& recording_file,
                         const Usual& usual) {
  QUERN_NEED_MODEL(file);
  const Recording recording =
      ReadRecording(std::string(QUERN_TESTS_DIR) + "/recordings/logits/" + recording_file);
  size_t longest = 0;
  for (const auto& prompt : recording.header["prompts"]) {
    longest = std::max(longest, prompt["tokens"].size());
  }
  EXPECT_GE(recording.header["prompts"].size(), 20u);
  EXPECT_EQ(longest, 2048u);
  ExpectNear(file, recording, false, usual.served);
  ExpectNear(file, recording, true, usual.float32);
}

// The usual distances are docs/correctness.md's.
TEST(Logits, Smollm2IsAsNearTheReferenceAsItWasAndNoFurtherThanLlamaCpp) {
  ExpectNearReference(
      "SmolLM2-135M-Instruct.Q4_1.gguf", "SmolLM2-135M-Instruct.Q4_1.logits",
      {.served = {.mean = 7.4e-7, .p99 = 5.3e-6}, .float32 = {.mean = 5.5e-11, .p99 = 2.1e-10}});
}

TEST(Logits, Gemma3IsAsNearTheReferenceAsItWasAndNoFurtherThanLlamaCpp) {
  ExpectNearReference(
      "gemma-3-270m.Q4_K_M.gguf", "gemma-3-270m.Q4_K_M.logits",
      {.served = {.mean = 4.3e-7, .p99 = 4.7e-6}, .float32 = {.mean = 5.2e-11, .p99 = 6.1e-10}});
}

}  // namespace
}  // namespace quern
