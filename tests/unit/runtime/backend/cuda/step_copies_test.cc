// Which parts of a step's inputs go to the device.

#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <vector>

#include "runtime/backend/cuda/step_inputs.h"

namespace quern::testing {
namespace {

constexpr int32_t kBlockCount = 1 << 20;

// A step of decoding, filled up, in which sequences have so many tokens.
class DecodingStep {
 public:
  DecodingStep(std::mt19937& random, const std::vector<int32_t>& lengths, int groups)
      : kv_{16, groups, {kBlockCount, kBlockCount}, 1 << 20} {
    for (const int32_t length : lengths) {
      std::vector<int32_t>& mine = blocks_.emplace_back(static_cast<size_t>((length + 15) / 16));
      for (int32_t& block : mine) block = static_cast<int32_t>(random() % kBlockCount);
      sequences_.push_back({static_cast<int32_t>(positions_.size()), 1, length, {}});
      positions_.push_back(length - 1);
    }
    for (size_t s = 0; s < sequences_.size(); ++s) {
      sequences_[s].blocks = blocks_[s];
      if (groups == 2) sequences_[s].window_blocks = blocks_[s];
    }
    const ForwardBatch batch{positions_, positions_, sequences_, {}};
    size_ = SizeOf(batch, 512);
    const StepLayout layout(size_, kv_);
    block_.resize(layout.bytes);
    copies_ = WriteStepInputs(batch, size_, layout, kv_, block_.data());
  }

  size_t bytes() const { return block_.size(); }
  size_t copies() const { return copies_.size(); }
  int32_t context_tokens() const { return size_.context_tokens; }

  // As the backend copies them. Returns how many bytes that are.
  size_t Copy() {
    device_.assign(block_.size(), std::byte{0xcd});
    std::vector<bool> there(block_.size());
    size_t copied = 0;
    for (const StepCopy& part : copies_) {
      for (size_t row = 0; row < part.rows; ++row) {
        const size_t at = part.offset + row * part.pitch;
        EXPECT_LE(at + part.width, block_.size());
        for (size_t i = at; i < at + part.width; ++i) {
          EXPECT_FALSE(there[i]) << "byte " << i << " is copied twice";
          there[i] = true;
          device_[i] = block_[i];
        }
        copied += part.width;
      }
    }
    return copied;
  }

  void ExpectAllThatIsRead() const {
    const StepLayout layout(size_, kv_);
    EXPECT_EQ(std::memcmp(block_.data(), device_.data(), layout.tables[0]), 0);
    for (int group = 0; group < kv_.groups; ++group) {
      for (size_t s = 0; s < static_cast<size_t>(size_.sequences); ++s) {
        // A sequence that fills the step up has one token.
        const auto expected = s < blocks_.size() ? blocks_[s] : std::vector<int32_t>{0};
        std::vector<int32_t> got(expected.size());
        std::memcpy(got.data(),
                    device_.data() + layout.tables[group] +
                        s * static_cast<size_t>(layout.table_stride) * sizeof(int32_t),
                    got.size() * sizeof(int32_t));
        EXPECT_EQ(got, expected) << "sequence " << s;
      }
    }
  }

 private:
  StepKv kv_;
  std::vector<int32_t> positions_;
  std::vector<std::vector<int32_t>> blocks_;
  std::vector<ForwardBatch::Sequence> sequences_;
  StepSize size_;
  std::vector<std::byte> block_, device_;
  std::vector<StepCopy> copies_;
};

class StepCopiesTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const uint32_t seed = std::random_device{}();
    random_.seed(seed);
    RecordProperty("seed", std::to_string(seed));
  }
  std::mt19937 random_;
};

TEST_F(StepCopiesTest, ALongSequenceBesideShortOnesCostsItsOwnTable) {
  std::vector<int32_t> lengths(500, 300);
  lengths[random_() % lengths.size()] = 131072;
  for (const int groups : {1, 2}) {
    SCOPED_TRACE(groups);
    DecodingStep step(random_, lengths, groups);
    EXPECT_EQ(step.context_tokens(), 131072);
    EXPECT_GT(step.bytes(), static_cast<size_t>(groups) * (size_t{16} << 20));
    // 512 rows of 32 columns, the long one's 8,192, and what is no table.
    EXPECT_LT(step.Copy(), static_cast<size_t>(groups) * (100 << 10) + (20 << 10));
    EXPECT_EQ(step.copies(), static_cast<size_t>(1 + 2 * groups));
    step.ExpectAllThatIsRead();
  }
}

TEST_F(StepCopiesTest, AreOneWhereTablesAreSmallOrAllAreLong) {
  for (const auto& lengths : {std::vector<int32_t>(8, 4000), std::vector<int32_t>{1, 1, 8000},
                              std::vector<int32_t>(64, 65536)}) {
    DecodingStep step(random_, lengths, 1);
    EXPECT_EQ(step.Copy(), step.bytes());
    EXPECT_EQ(step.copies(), 1u);
    step.ExpectAllThatIsRead();
  }
}

TEST_F(StepCopiesTest, BringWhatIsReadOnceAndNoMoreThanAll) {
  size_t parted = 0;
  for (int i = 0; i < 30; ++i) {
    std::vector<int32_t> lengths(1 + random_() % 200);
    for (int32_t& length : lengths) {
      length = static_cast<int32_t>(1 + (random_() % 100000 >> random_() % 17));
    }
    DecodingStep step(random_, lengths, static_cast<int>(1 + random_() % 2));
    EXPECT_LE(step.Copy(), step.bytes());
    parted += step.copies() > 1;
    step.ExpectAllThatIsRead();
  }
  EXPECT_GT(parted, 0u);
}

}  // namespace
}  // namespace quern::testing
