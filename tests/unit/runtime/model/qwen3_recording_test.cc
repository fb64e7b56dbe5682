// Tiny Qwen 3 models against Hugging Face's transformers: tests/recordings/qwen3/make.py.
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "runtime/model/scoring.h"

namespace quern {
namespace {

const std::string kDirectory = QUERN_TESTS_DIR "/recordings/qwen3/";

class Qwen3Recording : public ::testing::TestWithParam<const char*> {
 protected:
  static nlohmann::json Recorded() {
    std::ifstream in(kDirectory + "recordings.json");
    const auto all = nlohmann::json::parse(in);
    for (const auto& recorded : all["models"]) {
      if (recorded["model"] == std::string(GetParam()) + ".gguf") return recorded;
    }
    throw std::runtime_error(std::string("there is no recording of ") + GetParam());
  }

  // The most that a logit differs from what is recorded.
  static double Difference(const nlohmann::json& recorded, bool float32) {
    auto file = GgufFile::Open(kDirectory + recorded["model"].get<std::string>());
    EXPECT_TRUE(file) << file.error().message;
    auto model = Model::Load(std::move(file).value(),
                             {.threads = 2, .kv_dtype = KvDtype::kF32, .float32_weights = float32});
    EXPECT_TRUE(model) << model.error().message;
    const auto tokens = recorded["tokens"].get<std::vector<int32_t>>();
    const KvLayout layout = LayoutFor((*model)->info(), std::ssize(tokens));
    EXPECT_TRUE((*model)->AllocateKv(layout));
    std::vector<bool> wanted(tokens.size(), false);
    for (const auto& position : recorded["positions"]) wanted[position.get<size_t>()] = true;
    double most = 0;
    size_t next = 0;
    const Status status =
        ScoreSequence(**model, layout, tokens, wanted, [&](int32_t, std::span<const float> logits) {
          const auto expected = recorded["logits"][next++].get<std::vector<double>>();
          EXPECT_EQ(expected.size(), logits.size());
          for (size_t i = 0; i < logits.size(); ++i) {
            const double difference = std::fabs(logits[i] - expected[i]);
            most = difference <= most ? most : difference;  // NaN stays
          }
        });
    EXPECT_TRUE(status) << status.error().message;
    EXPECT_EQ(next, recorded["positions"].size());
    std::printf("%s, %s: a logit differs by %.3g, float32 of transformers by %.3g\n", GetParam(),
                float32 ? "all in float32" : "as stored", most,
                recorded["float32_error"].get<double>());
    return most;
  }
};
INSTANTIATE_TEST_SUITE_P(Models, Qwen3Recording, ::testing::Values("qwen3", "qwen3moe"),
                         [](const auto& info) { return std::string(info.param); });

// Room for another order of sums, in which no value is rounded more coarsely than transformers'
// float32 rounds it.
TEST_P(Qwen3Recording, LogitsInFloat32AreThoseOfTransformers) {
  const auto recorded = Recorded();
  EXPECT_LE(Difference(recorded, true), 4 * recorded["float32_error"].get<double>());
}

// Activations of products with quantised weights are rounded to 2^-16 of the largest of 32, 2^8
// times as coarsely as float32 rounds them; each product's sum of 64 or more roundings in float32
// is one rounding here.
TEST_P(Qwen3Recording, LogitsAsServedDifferByWhatActivationsAreRounded) {
  const auto recorded = Recorded();
  EXPECT_LE(Difference(recorded, false), 256 * recorded["float32_error"].get<double>());
}

}  // namespace
}  // namespace quern
