#include "tests/unit/runtime/backend/cuda/traffic.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <optional>

namespace quern::testing {
namespace {

constexpr int kSlots = 4;
constexpr int kBlockTokens = 16;
constexpr int kBlocksEach = 4;

struct Sequence {
  int number;
  std::vector<int32_t> tokens;
  int prompt;
  int done = 0;
  std::vector<int32_t> blocks;
};

class Traffic {
 public:
  Traffic(Model& model, uint64_t seed)
      : model_(model), random_(seed), vocabulary_(model.info().vocab_size), slots_(kSlots) {
    free_.resize(kSlots * kBlocksEach);
    std::iota(free_.begin(), free_.end(), 0);
    std::shuffle(free_.begin(), free_.end(), random_);
    const Status status = model.AllocateKv({kBlockTokens, kSlots * kBlocksEach});
    EXPECT_TRUE(status.ok()) << status.error().message;
  }

  void Step(const std::function<void(const StepRows& rows)>& stepped) {
    tokens_.clear(), positions_.clear(), sequences_.clear(), owners_.clear();
    for (std::optional<Sequence>& slot : slots_) {
      if (!slot && random_() % 4 == 0) Join(slot);
      if (slot) Schedule(*slot);
    }
    if (tokens_.empty()) return;
    std::vector<int32_t> rows(tokens_.size());
    std::iota(rows.begin(), rows.end(), 0);
    std::vector<float> logits(tokens_.size() * vocabulary_);
    const Status status = model_.Forward({tokens_, positions_, sequences_, rows}, logits);
    ASSERT_TRUE(status.ok()) << status.error().message;
    StepRows step;
    for (size_t row = 0; row < tokens_.size(); ++row) {
      step.emplace_back(owners_[row], positions_[row]);
      const auto begin = logits.begin() + static_cast<std::ptrdiff_t>(row * vocabulary_);
      all_[step.back()] = {begin, begin + static_cast<std::ptrdiff_t>(vocabulary_)};
    }
    if (stepped) stepped(step);
    for (std::optional<Sequence>& slot : slots_) {
      if (slot && slot->done == static_cast<int>(slot->tokens.size())) Leave(slot);
    }
  }

  AllLogits Take() { return std::move(all_); }

 private:
  void Join(std::optional<Sequence>& slot) {
    slot.emplace();
    slot->number = number_++;
    slot->prompt = 1 + static_cast<int>(random_() % 40);
    slot->tokens.resize(static_cast<size_t>(slot->prompt) + random_() % 24);
    for (int32_t& token : slot->tokens) token = static_cast<int32_t>(random_() % vocabulary_);
    slot->blocks.assign(free_.end() - kBlocksEach, free_.end());
    free_.resize(free_.size() - kBlocksEach);
  }
  void Schedule(Sequence& sequence) {
    const int left = sequence.prompt - sequence.done;
    const int rows = left > 1 ? 1 + static_cast<int>(random_() % static_cast<uint64_t>(left)) : 1;
    const auto first = static_cast<int32_t>(tokens_.size());
    for (int i = 0; i < rows; ++i, ++sequence.done) {
      tokens_.push_back(sequence.tokens[static_cast<size_t>(sequence.done)]);
      positions_.push_back(sequence.done);
      owners_.push_back(sequence.number);
    }
    sequences_.push_back({first, rows, sequence.done, sequence.blocks});
  }
  void Leave(std::optional<Sequence>& slot) {
    free_.insert(free_.begin(), slot->blocks.begin(), slot->blocks.end());
    slot.reset();
  }

  Model& model_;
  std::mt19937_64 random_;
  size_t vocabulary_;
  int number_ = 0;
  std::vector<std::optional<Sequence>> slots_;
  std::vector<int32_t> free_;
  std::vector<int32_t> tokens_, positions_;
  std::vector<int> owners_;
  std::vector<ForwardBatch::Sequence> sequences_;
  AllLogits all_;
};

}  // namespace

AllLogits RunTraffic(Model& model, uint64_t seed, int steps,
                     const std::function<void(const StepRows& rows)>& stepped) {
  Traffic traffic(model, seed);
  for (int step = 0; step < steps; ++step) traffic.Step(stepped);
  return traffic.Take();
}

}  // namespace quern::testing
