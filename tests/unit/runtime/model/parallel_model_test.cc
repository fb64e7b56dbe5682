// A model split over processes, beside the same model in one: the same steps, in which sequences
// join and leave.
#include "runtime/model/parallel_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "tests/unit/runtime/model/parallel_model_fixture.h"

namespace quern::testing {
namespace {

using ::testing::HasSubstr;

constexpr int kSteps = 64;

// Splitting changes the order of float32 sums and nothing else. Where the result is rounded to a
// coarser format - 16 bits of an activation that is to be multiplied with quantised weights, what
// the KV cache stores - a sum that lay near the border of two steps may fall to the other side,
// which is one step of that format. At most, every value that a layer's two halves add to the
// residual is off by a step of each format that it went through: relative to the largest of it, and
// through the norm before the head, that is so much of the largest logit.
double BoundFor(const SplitCase& of, double largest_logit) {
  const double sums = 0x1p-24 * (of.model.width + of.model.ffn_width);
  const double activations = of.model.type == GgmlType::kF32 ? 0 : 0x1p-15;
  double kv = 0;
  if (of.kv == KvDtype::kF16) kv = 0x1p-11;
  if (of.kv == KvDtype::kInt8) kv = 1.0 / 127;
  return 2.0 * of.model.layers * (sums + activations + kv) * largest_logit;
}

// All experts are chosen, each with its weight: of some, another one may be where two nearly tie.
TinyModel TinyExperts(GgmlType type) {
  TinyModel tiny = Tiny("qwen3moe", 8, 4, type);
  tiny.experts_used = tiny.experts;
  return tiny;
}

std::vector<SplitCase> Cases() {
  return {{"llama_split_f32", Tiny("llama", 8, 4, GgmlType::kF32), KvDtype::kF32},
          {"llama_copied_f32", Tiny("llama", 4, 1, GgmlType::kF32), KvDtype::kF32},
          {"llama_q8_0_f16", Tiny("llama", 8, 2, GgmlType::kQ8_0), KvDtype::kF16, 2},
          {"llama_q8_0_int8", Tiny("llama", 8, 4, GgmlType::kQ8_0), KvDtype::kInt8},
          {"qwen3_f32", Tiny("qwen3", 8, 4, GgmlType::kF32), KvDtype::kF32},
          {"qwen3moe_f32", TinyExperts(GgmlType::kF32), KvDtype::kF32},
          {"qwen3moe_q8_0_f16", TinyExperts(GgmlType::kQ8_0), KvDtype::kF16, 2},
          {"gemma3_split_f32", Tiny("gemma3", 4, 4, GgmlType::kF32), KvDtype::kF32},
          {"gemma3_copied_f16", Tiny("gemma3", 4, 1, GgmlType::kF16), KvDtype::kF16},
          {"gemma3_q4_k_f16", Tiny("gemma3", 4, 1, GgmlType::kQ4_K), KvDtype::kF16}};
}

struct Stream {
  std::vector<int32_t> tokens;  // teacher-forced
  int32_t done = 0;
  int32_t joins = 0;  // step
  std::vector<int32_t> blocks;
};

// Steps of a prompt's chunk or one token of each sequence that has joined; where one ends, another
// takes its place and its blocks.
class Schedule {
 public:
  explicit Schedule(unsigned seed, int32_t vocab) : random_(seed), vocab_(vocab) {
    for (int i = 0; i < kSequences; ++i) {
      streams_.push_back(New(i, i * 5));
    }
  }

  // Calls forward(batch): all rows' logits are wanted.
  template <typename F>
  void Step(int32_t step, const F& forward) {
    std::vector<int32_t> tokens, positions, rows;
    std::vector<ForwardBatch::Sequence> sequences;
    for (int i = 0; i < kSequences; ++i) {
      Stream& stream = streams_[static_cast<size_t>(i)];
      if (stream.done == std::ssize(stream.tokens)) stream = New(i, step + 2);
      if (step < stream.joins) continue;
      const int32_t prompt = stream.done == 0 ? 1 + static_cast<int32_t>(random_() % 9) : 1;
      const auto count =
          std::min(prompt, static_cast<int32_t>(std::ssize(stream.tokens)) - stream.done);
      sequences.push_back(
          {static_cast<int32_t>(tokens.size()), count, stream.done + count, stream.blocks});
      for (int32_t at = 0; at < count; ++at) {
        rows.push_back(static_cast<int32_t>(tokens.size()));
        positions.push_back(stream.done);
        tokens.push_back(stream.tokens[static_cast<size_t>(stream.done++)]);
      }
    }
    if (!sequences.empty()) forward(ForwardBatch{tokens, positions, sequences, rows});
  }

 private:
  Stream New(int slot, int32_t joins) {
    Stream stream;
    stream.joins = joins;
    const auto length = 8 + random_() % (kBlockTokens * kBlocksOfEach - 8);
    for (size_t i = 0; i < length; ++i) {
      stream.tokens.push_back(static_cast<int32_t>(random_() % static_cast<unsigned>(vocab_)));
    }
    for (int i = 0; i < kBlocksOfEach; ++i) stream.blocks.push_back(slot * kBlocksOfEach + i);
    return stream;
  }

  std::mt19937 random_;
  int32_t vocab_;
  std::vector<Stream> streams_;
};

// "" where `split` is as near to `whole` as it has to be.
std::string Compare(std::span<const float> whole, std::span<const float> split, double bound) {
  const auto best = std::max_element(whole.begin(), whole.end());
  double second = -INFINITY;
  for (auto at = whole.begin(); at != whole.end(); ++at) {
    if (at != best) second = std::max<double>(second, *at);
  }
  for (size_t i = 0; i < whole.size(); ++i) {
    if (std::abs(whole[i] - split[i]) <= bound) continue;
    return fmt::format("logit {} is {} rather than {}: more than {:.2g} apart", i, split[i],
                       whole[i], bound);
  }
  if (*best - second <= 2 * bound) return "";
  const auto chosen = std::max_element(split.begin(), split.end()) - split.begin();
  return chosen == best - whole.begin() ? "" : "another token is the likeliest";
}

double Largest(std::span<const float> logits) {
  double largest = 0;
  for (const float logit : logits) largest = std::max<double>(largest, std::abs(logit));
  return largest;
}

class AgreementTest : public ParallelModelTest,
                      public ::testing::WithParamInterface<std::tuple<SplitCase, int>> {
 protected:
  // The same steps by both.
  static std::string CompareOver(const SplitCase& of, unsigned seed, Model& split) {
    auto whole = of.model.Load(of.threads, of.kv);
    if (!whole || !(*whole)->AllocateKv(kLayout)) return "no model of one process";
    const auto vocab = static_cast<size_t>(split.info().vocab_size);
    std::string wrong;
    double apart = 0;
    Schedule schedule(seed, split.info().vocab_size);
    for (int32_t step = 0; step < kSteps && wrong.empty(); ++step) {
      schedule.Step(step, [&](const ForwardBatch& batch) {
        std::vector<float> a(batch.tokens.size() * vocab), b(a.size());
        const Status one = (*whole)->Forward(batch, a), many = split.Forward(batch, b);
        if (!one || !many) {
          wrong = (one ? many : one).error().message;
          return;
        }
        const double bound = BoundFor(of, Largest(a));
        for (size_t row = 0; row < batch.tokens.size() && wrong.empty(); ++row) {
          wrong = Compare(std::span(a).subspan(row * vocab, vocab),
                          std::span(b).subspan(row * vocab, vocab), bound);
          if (!wrong.empty()) wrong += fmt::format(" (step {}, row {})", step, row);
        }
        for (size_t i = 0; i < a.size(); ++i) {
          apart = std::max(apart, std::abs(a[i] - b[i]) / bound);
        }
      });
    }
    fmt::print("logits are at most {:.3f} of the bound apart\n", apart);
    std::fflush(stdout);
    return wrong;
  }
};
INSTANTIATE_TEST_SUITE_P(Families, AgreementTest,
                         ::testing::Combine(::testing::ValuesIn(Cases()), ::testing::Values(2, 4)),
                         [](const auto& info) {
                           return fmt::format("{}_over_{}", std::get<0>(info.param).name,
                                              std::get<1>(info.param));
                         });

TEST_P(AgreementTest, WithOneProcessWhileSequencesJoinAndLeave) {
  const auto& [of, size] = GetParam();
  const unsigned seed = std::random_device()();
  const auto results = Lead(size, of, [&](Model& split) { return CompareOver(of, seed, split); });
  ExpectNothingSaid(results, fmt::format("seed {}", seed));
}

// What a request gets must not depend on who else is there.
TEST_F(ParallelModelTest, ASequenceHasTheSameBitsWhateverIsBesideIt) {
  for (const int size : {2, 4}) {
    for (const SplitCase& of : Cases()) {
      const auto results = Lead(size, of, [&](Model& model) -> std::string {
        const auto vocab = static_cast<size_t>(model.info().vocab_size);
        std::vector<int32_t> blocks[3], tokens, positions;
        std::vector<ForwardBatch::Sequence> sequences;
        for (int32_t i = 0; i < 3; ++i) {
          for (int32_t at = 0; at < 3; ++at) blocks[i].push_back(3 * i + at);
          sequences.push_back({10 * i, 10, 10, blocks[i]});
          for (int32_t at = 0; at < 10; ++at) {
            tokens.push_back((7 * at + 13 * i + at * at) % 50);
            positions.push_back(at);
          }
        }
        const std::vector<int32_t> last = {29};
        std::vector<float> together(vocab), alone(vocab), read(vocab),
            hidden(2 * static_cast<size_t>(model.info().width));
        Status status = model.Forward({tokens, positions, sequences, last}, together);
        if (status) status = model.ReadLogits(last, read);
        const std::vector<int32_t> two = {3, 29};
        if (status) status = model.ReadHidden(two, hidden);
        if (!status) return status.error().message;
        if (read != together) return "read again, the logits are others";
        if (Largest(hidden) == 0) return "no hidden state";
        const std::span only(tokens.data() + 20, 10);
        sequences = {{0, 10, 10, blocks[0]}};
        const std::vector<int32_t> its_last = {9};
        status = model.Forward({only, std::span(positions).first(10), sequences, its_last}, alone);
        if (!status) return status.error().message;
        return alone == together ? "" : "alone, the logits are others";
      });
      ExpectNothingSaid(results, fmt::format("{} over {}", of.name, size));
    }
  }
}

TEST_F(ParallelModelTest, ALongPromptIsMoreThanOneMessage) {
  SplitCase of{"llama", Tiny("llama", 4, 2, GgmlType::kF32), KvDtype::kF32};
  of.model.context = 4096;
  const auto results = Lead(2, of, [&](Model& split) -> std::string {
    auto whole = of.model.Load(1, of.kv);
    if (!whole) return "no model of one process";
    constexpr int32_t kLong = 1500;
    std::vector<int32_t> tokens(kLong), positions(kLong), blocks;
    for (int32_t i = 0; i < kLong; ++i) {
      positions[static_cast<size_t>(i)] = i;
      tokens[static_cast<size_t>(i)] = i * i % 53;
      if (i % kBlockTokens == 0) blocks.push_back(i / kBlockTokens);
    }
    const KvLayout layout{kBlockTokens, static_cast<int32_t>(blocks.size())};
    if (!split.AllocateKv(layout) || !(*whole)->AllocateKv(layout)) return "no KV cache";
    const std::vector<ForwardBatch::Sequence> sequences = {{0, kLong, kLong, blocks}};
    const std::vector<int32_t> rows = {kLong - 1};
    std::vector<float> a(53), b(53);
    const ForwardBatch batch{tokens, positions, sequences, rows};
    if (!(*whole)->Forward(batch, a) || !split.Forward(batch, b)) return "a step failed";
    return Compare(a, b, BoundFor(of, Largest(a)));
  });
  ExpectNothingSaid(results, "a long prompt");
}

TEST_F(ParallelModelTest, ALayeredChunkGoesOnWhereItWasHeld) {
  const SplitCase of{"llama", Tiny("llama", 4, 2, GgmlType::kF32), KvDtype::kF32};
  const auto results = Lead(2, of, [&](Model& model) -> std::string {
    const std::vector<int32_t> tokens = {1, 2, 3, 4, 5}, positions = {0, 1, 2, 3, 4},
                               blocks = {0, 1}, last = {4};
    const std::vector<ForwardBatch::Sequence> sequences = {{0, 5, 5, blocks}};
    std::vector<float> once(53), twice(53);
    Status status = model.Forward({tokens, positions, sequences, last}, once);
    if (status) status = model.Forward({tokens, positions, sequences, {}, 0, 1}, {});
    if (status) status = model.Forward({tokens, positions, sequences, last, 1}, twice);
    if (!status) return status.error().message;
    return once == twice ? "" : "other logits";
  });
  ExpectNothingSaid(results, "a layered chunk");
}

TEST_F(ParallelModelTest, ItsMemoryIsAShareOfTheWholes) {
  const SplitCase split{"split", Tiny("llama", 8, 4, GgmlType::kQ8_0)};
  const SplitCase copied{"copied", Tiny("llama", 8, 1, GgmlType::kQ8_0)};
  for (const SplitCase* of : {&split, &copied}) {
    const auto results = Lead(4, *of, [&](Model& model) -> std::string {
      const auto whole = of->model.Load();
      const ModelInfo &a = (*whole)->info(), &b = model.info();
      const bool is_split = of == &split;
      if (b.kv_bytes_per_token != a.kv_bytes_per_token / (is_split ? 4 : 1)) return "KV bytes";
      if (b.weight_bytes > a.weight_bytes / 2) return "weight bytes";
      if (a.ranks != 1 || a.parameters != b.parameters || a.vocab_size != b.vocab_size) {
        return "another model";
      }
      return "";
    });
    ExpectNothingSaid(results, of->name);
  }
}

TEST_F(ParallelModelTest, WhatDoesNotSplitIsRefusedAndTheGroupGoesOn) {
  TinyModel smollm2 = Tiny("llama", 9, 3, GgmlType::kF32);
  const auto results = Run(2, [&](Communicator& group) -> std::string {
    int loads = 0;
    const LoadPart part = [&]() -> Result<std::unique_ptr<Model>> {
      if (++loads == 1) return Part(smollm2, group, 1, KvDtype::kF16)();
      if (loads == 2 && group.rank() == 1) return MakeError(ErrorCode::kDataLoss, "torn");
      return Part(TinyModel(), group, 1, KvDtype::kF16)();
    };
    if (group.rank() == 1) {
      const Status followed = FollowParallelModel(group, part);
      return followed ? "" : followed.error().message;
    }
    const auto load = [&] { return LoadParallelModel(group, part, [](const Error&) {}); };
    const auto refused = load();
    if (refused) return "it was split";
    const auto torn = load();
    if (torn || torn.error().code != ErrorCode::kDataLoss) return "not the other's error";
    auto model = load();
    if (!model) return model.error().message;
    const Status kv = (*model)->AllocateKv({kBlockTokens, 0});
    if (kv) return "a KV cache of nothing";
    if (const Status again = (*model)->AllocateKv(kLayout); !again) return again.error().message;
    model->reset();
    if (!EndFollowers(group)) return "no end";
    return refused.error().message + "; " + torn.error().message;
  });
  EXPECT_THAT(results[0], HasSubstr("tiny.gguf: this model cannot be split over 2 processes: its 9 "
                                    "attention heads cannot be split evenly"));
  EXPECT_THAT(results[0], HasSubstr("; rank 1 of 2: torn"));
  EXPECT_EQ(results[1], "");
}

TEST_F(ParallelModelTest, ARankThatDiesEndsEveryStepFromThenOnWithAnError) {
  const auto results = Run(4, [&](Communicator& group) -> std::string {
    const LoadPart part = Part(Tiny("llama", 4, 2, GgmlType::kF32), group, 1, KvDtype::kF16);
    if (group.rank() == 2) {
      // Loads, and ends in the first step.
      const Status followed = FollowParallelModel(group, [&]() -> Result<std::unique_ptr<Model>> {
        auto loaded = part();
        alarm(1);
        return loaded;
      });
      return followed ? "followed" : followed.error().message;
    }
    if (group.rank() > 0) {
      const Status followed = FollowParallelModel(group, part);
      return followed ? "it followed to the end" : "lost";
    }
    int lost = 0;
    auto model = LoadParallelModel(group, part, [&](const Error&) { ++lost; });
    if (!model || !(*model)->AllocateKv(kLayout)) return "no model";
    const std::vector<int32_t> tokens = {1}, positions = {0}, blocks = {0}, rows = {0};
    const std::vector<ForwardBatch::Sequence> sequences = {{0, 1, 1, blocks}};
    std::vector<float> logits(53);
    Status status;
    const auto begin = std::chrono::steady_clock::now();
    while (status.ok()) status = (*model)->Forward({tokens, positions, sequences, rows}, logits);
    if (std::chrono::steady_clock::now() - begin > std::chrono::seconds(20)) return "too late";
    const Status again = (*model)->Forward({tokens, positions, sequences, rows}, logits);
    if (again || again.error().message != status.error().message) return "it went on";
    if ((*model)->ReadLogits(rows, logits)) return "it went on reading";
    model->reset();
    return lost == 1 ? status.error().message : "on_lost was called " + std::to_string(lost);
  });
  EXPECT_THAT(results[0], HasSubstr("rank 0 of 4"));
  EXPECT_THAT(results[0], HasSubstr("failed: another rank has ended"));
  EXPECT_EQ(results[1], "lost");
  EXPECT_THAT(results[2], HasSubstr("ended with status 14"));  // SIGALRM
  EXPECT_EQ(results[3], "lost");
}

}  // namespace
}  // namespace quern::testing
