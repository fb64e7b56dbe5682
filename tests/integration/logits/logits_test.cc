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
// llama.cpp, we would not notice through the first that a thousandfold had been lost. What is
// compared, and how: tests/recordings/logits/make.py.
namespace quern {
namespace {

struct Comparison {
  std::vector<double> divergences;
  int top1_differs = 0;  // where the reference's two best are further apart than its error
  int top1_differs_anywhere = 0;
};

Comparison Compare(Model& model, const KvLayout& layout, const Recording& recording) {
  Comparison result;
  // Nearer ties than this are decided by float32's rounding, or by K and V being stored in 16 bits.
  const double error = recording.header["reference_error"].get<double>() +
                       recording.header["kv_f16_error"].get<double>();
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

void ExpectNearReference(const std::string& file, const std::string& recording_file,
                         const Distance& usual) {
  QUERN_NEED_MODEL(file);
  const Recording recording =
      ReadRecording(std::string(QUERN_TESTS_DIR) + "/recordings/logits/" + recording_file);
  auto opened = GgufFile::Open(test_support::ModelPath(file));
  ASSERT_TRUE(opened) << opened.error().message;
  auto model = Model::Load(std::move(opened).value(), {});
  ASSERT_TRUE(model) << model.error().message;
  size_t longest = 0;
  for (const auto& prompt : recording.header["prompts"]) {
    longest = std::max(longest, prompt["tokens"].size());
  }
  EXPECT_GE(recording.header["prompts"].size(), 20u);
  EXPECT_EQ(longest, 2048u);
  const KvLayout layout = LayoutFor(static_cast<int64_t>(longest));
  ASSERT_TRUE((*model)->AllocateKv(layout));

  const Comparison result = Compare(**model, layout, recording);
  ASSERT_EQ(result.divergences.size(), recording.positions.size());
  const auto& bar = recording.header["llama_cpp_kl"];
  const double mean = std::accumulate(result.divergences.begin(), result.divergences.end(), 0.0) /
                      static_cast<double>(result.divergences.size());
  const double p99 = Percentile(result.divergences, 99);
  std::printf(
      "%s: %zu positions; KL mean %.3g (llama.cpp %.3g), p99 %.3g (llama.cpp %.3g); top-1 differs "
      "at %d "
      "(llama.cpp %d)\n",
      file.c_str(), result.divergences.size(), mean, bar["mean"].get<double>(), p99,
      bar["p99"].get<double>(), result.top1_differs_anywhere,
      recording.header["llama_cpp_top1_differs"].get<int>());
  EXPECT_LE(mean, bar["mean"].get<double>());
  EXPECT_LE(p99, bar["p99"].get<double>());
  // Room for another instruction set's order of sums, not for fewer bits somewhere.
  constexpr double kRoom = 20;
  EXPECT_LE(mean, kRoom * usual.mean);
  EXPECT_LE(p99, kRoom * usual.p99);
  EXPECT_EQ(result.top1_differs, 0);
}

// The usual distances are docs/correctness.md's.
TEST(Logits, Smollm2IsAsNearTheReferenceAsItWasAndNoFurtherThanLlamaCpp) {
  ExpectNearReference("SmolLM2-135M-Instruct.Q4_1.gguf", "SmolLM2-135M-Instruct.Q4_1.logits",
                      {.mean = 7.4e-7, .p99 = 5.3e-6});
}

TEST(Logits, Gemma3IsAsNearTheReferenceAsItWasAndNoFurtherThanLlamaCpp) {
  ExpectNearReference("gemma-3-270m.Q4_K_M.gguf", "gemma-3-270m.Q4_K_M.logits",
                      {.mean = 4.3e-7, .p99 = 4.7e-6});
}

}  // namespace
}  // namespace quern
