// Steps that are recorded and repeated give what steps give that are not.

#include <gtest/gtest.h>

#include <iostream>
#include <random>
#include <vector>

#include "runtime/backend/cuda/cuda_status.h"
#include "runtime/backend/cuda/graph_cache.h"
#include "tests/unit/runtime/backend/cuda/cuda_models.h"
#include "tests/unit/runtime/backend/cuda/traffic.h"

namespace quern::testing {
namespace {

using kernels::ActivationType;

constexpr int kTrafficSteps = 36;

class RecordedStepsTest : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    seed_ = std::random_device{}();
    random_.seed(seed_);
    recorded_ = Load(true);
    plain_ = Load(false);
    ASSERT_TRUE(recorded_.model && plain_.model);
  }
  void TearDown() override {
    if (HasFailure()) std::cout << "seed " << seed_ << "\n";
    if (plain_.backend == nullptr) return;
    EXPECT_EQ(plain_.backend->graphs().launched(), 0);
    EXPECT_EQ(plain_.backend->graphs().recorded(), 0);
  }
  static ModelOnCuda Load(bool graphs) {
    return LoadOnCuda(SmallModel(GetParam()),
                      {.activations = ActivationType::kF16, .threads = 1, .graphs = graphs});
  }
  void Allocate(int32_t blocks) {
    for (const ModelOnCuda* each : {&recorded_, &plain_}) {
      const Status status = each->model->AllocateKv({kBlockTokens, blocks});
      ASSERT_TRUE(status.ok()) << status.error().message;
    }
  }
  // The step in both ways.
  void Same(const StepBatch& batch) {
    ASSERT_EQ(ForwardAll(*recorded_.model, batch), ForwardAll(*plain_.model, batch));
  }
  // The next `rows` of each of the sequences.
  void Step(std::vector<std::vector<int32_t>>& sequences, int32_t rows, int32_t blocks_each) {
    StepBatch batch;
    for (size_t s = 0; s < sequences.size(); ++s) {
      const auto more = RandomTokens(random_, rows);
      sequences[s].insert(sequences[s].end(), more.begin(), more.end());
      batch.Add(sequences[s], rows, BlocksFrom(static_cast<int32_t>(s) * blocks_each, blocks_each));
    }
    Same(batch);
  }
  struct Counts {
    int64_t launched, recorded, repeated;
    bool operator==(const Counts&) const = default;
  };
  Counts counts() const {
    const GraphCache& graphs = recorded_.backend->graphs();
    return {graphs.launched(), graphs.recorded(), graphs.repeated()};
  }

  uint32_t seed_ = 0;
  std::mt19937 random_;
  ModelOnCuda recorded_, plain_;
};
INSTANTIATE_TEST_SUITE_P(Families, RecordedStepsTest, ::testing::Values("llama", "gemma3"),
                         [](const auto& info) { return std::string(info.param); });
using GrowingStepsTest = RecordedStepsTest;  // of one family: what matters is the same in both
INSTANTIATE_TEST_SUITE_P(OneFamily, GrowingStepsTest, ::testing::Values("llama"),
                         [](const auto& info) { return std::string(info.param); });

TEST_P(RecordedStepsTest, GiveTheSameBitsOverRandomTraffic) {
  const AllLogits with = RunTraffic(*recorded_.model, seed_, kTrafficSteps);
  const AllLogits without = RunTraffic(*plain_.model, seed_, kTrafficSteps);
  ASSERT_GT(with.size(), 60u);
  EXPECT_EQ(with, without);
  EXPECT_GE(counts().recorded, 1);
  EXPECT_GE(counts().repeated, 1);
}

// The first of a size runs as it is, the second is recorded, the third is a repetition.
TEST_P(GrowingStepsTest, ALargerStepBetweenThemIsRightAndForgetsThem) {
  Allocate(5 * 6);
  std::vector<std::vector<int32_t>> sequences(3);
  for (int i = 0; i < 4; ++i) Step(sequences, 1, 6);
  // The first made attention's room, which forgot what there was.
  const Counts before = counts();
  EXPECT_EQ(before.launched + before.recorded + before.repeated, 4);
  EXPECT_GE(before.repeated, 1);
  Step(sequences, 25, 6);  // 75 rows: what a step works in moves
  EXPECT_EQ(counts(), before) << "a prefill is not recorded";
  Step(sequences, 1, 6);
  EXPECT_EQ(counts().launched, before.launched + 1);
  Step(sequences, 1, 6);
  EXPECT_EQ(counts().recorded, before.recorded + 1);
  Step(sequences, 1, 6);
  EXPECT_EQ(counts().repeated, before.repeated + 1);
  Step(sequences, 20, 6);  // fits: what is recorded stays
  Step(sequences, 1, 6);
  EXPECT_EQ(counts().repeated, before.repeated + 2);
  // More sequences, and fewer again, in sizes of their own.
  sequences.resize(5);
  for (int i = 0; i < 4; ++i) Step(sequences, 1, 6);
  sequences.resize(2);
  for (int i = 0; i < 4; ++i) Step(sequences, 1, 6);
  EXPECT_GE(counts().repeated, before.repeated + 4);
}

// Of one long prompt the inputs fit where those of nine sequences were, the activations do not.
TEST_P(GrowingStepsTest, ActivationsThatMoveAloneForgetThem) {
  constexpr int32_t kPrompt = 9;  // after nine sequences
  Allocate(9 + 3);
  std::vector<std::vector<int32_t>> sequences(9);
  for (int i = 0; i < 4; ++i) Step(sequences, 1, 1);
  const Counts before = counts();
  EXPECT_GE(before.repeated, 1);
  StepBatch batch;
  const auto prompt = RandomTokens(random_, 40);
  batch.Add(prompt, 40, BlocksFrom(kPrompt, 3));
  for (const ModelOnCuda* each : {&recorded_, &plain_}) {
    ASSERT_TRUE(each->model->Forward(batch.batch(), {}).ok());
  }
  Step(sequences, 1, 1);
  EXPECT_EQ(counts(), (Counts{before.launched + 1, before.recorded, before.repeated}));
}

TEST_P(GrowingStepsTest, AContextThatGrowsBeyondAPowerOfTwoIsAnotherSize) {
  constexpr int32_t kBlocks = 20;
  Allocate(kBlocks);
  std::vector<std::vector<int32_t>> sequences(1);
  Step(sequences, 251, kBlocks);
  for (int i = 0; i < 5; ++i) Step(sequences, 1, kBlocks);  // to 256
  const Counts before = counts();
  EXPECT_GE(before.repeated, 1);
  Step(sequences, 1, kBlocks);
  EXPECT_EQ(counts(), (Counts{before.launched + 1, before.recorded, before.repeated}));
  for (int i = 0; i < 4; ++i) Step(sequences, 1, kBlocks);
  EXPECT_GT(counts().repeated, before.repeated);
}

TEST_P(GrowingStepsTest, ANewCacheForgetsThem) {
  Allocate(4);
  std::vector<std::vector<int32_t>> sequences(1);
  for (int i = 0; i < 4; ++i) Step(sequences, 1, 4);
  EXPECT_GE(counts().repeated, 1);
  Allocate(9);
  sequences.assign(1, {});
  const Counts before = counts();
  Step(sequences, 1, 4);
  EXPECT_EQ(counts(), (Counts{before.launched + 1, before.recorded, before.repeated}));
  for (int i = 0; i < 3; ++i) Step(sequences, 1, 4);
}

// A stream, and what a step does to memory on it: a set to `byte`.
class GraphCacheTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(stream_.Create().ok());
    ASSERT_TRUE(memory_.Allocate(64, stream_.get(), "a test").ok());
  }
  StepSize Size(int32_t rows) const { return {rows, rows, 256, true}; }
  // Runs a step of this size, which is to set memory to `rows`, whatever it finds there.
  void Run(GraphCache& cache, int32_t rows) {
    ASSERT_EQ(cudaMemsetAsync(memory_.as<void>(), 0xff, 64, stream_.get()), cudaSuccess);
    const Status status = cache.Run(Size(rows), stream_.get(), [&] {
      return CudaStatus(cudaMemsetAsync(memory_.as<void>(), rows, 64, stream_.get()), "a test");
    });
    ASSERT_TRUE(status.ok()) << status.error().message;
    unsigned char bytes[64];
    ASSERT_EQ(cudaMemcpyAsync(bytes, memory_.as<void>(), 64, cudaMemcpyDeviceToHost, stream_.get()),
              cudaSuccess);
    ASSERT_TRUE(stream_.Synchronize("a test").ok());
    for (const unsigned char byte : bytes) ASSERT_EQ(byte, rows);
  }
  static void ExpectCounts(const GraphCache& cache, int launched, int recorded, int repeated) {
    EXPECT_EQ(cache.launched(), launched);
    EXPECT_EQ(cache.recorded(), recorded);
    EXPECT_EQ(cache.repeated(), repeated);
  }

  CudaStream stream_;
  DeviceBuffer memory_;
};

TEST_F(GraphCacheTest, BeyondItsLimitTheOneUsedLongestAgoGoes) {
  GraphCache cache(2);
  for (int i = 0; i < 3; ++i) Run(cache, 1);
  ExpectCounts(cache, 1, 1, 1);
  for (int i = 0; i < 2; ++i) Run(cache, 2);
  ExpectCounts(cache, 2, 2, 1);
  Run(cache, 1);
  ExpectCounts(cache, 2, 2, 2);
  Run(cache, 3);  // instead of 2
  ExpectCounts(cache, 3, 2, 2);
  Run(cache, 1);
  ExpectCounts(cache, 3, 2, 3);
  Run(cache, 2);  // instead of 3
  ExpectCounts(cache, 4, 2, 3);
  Run(cache, 2);
  ExpectCounts(cache, 4, 3, 3);
  Run(cache, 1);
  ExpectCounts(cache, 4, 3, 4);
  cache.Clear();
  Run(cache, 1);
  ExpectCounts(cache, 5, 3, 4);
}

TEST_F(GraphCacheTest, ARecordingThatFailsLeavesNothing) {
  GraphCache cache(4);
  Run(cache, 1);
  const Status failed = cache.Run(Size(1), stream_.get(), [] {
    void* memory = nullptr;
    EXPECT_NE(cudaMalloc(&memory, 64), cudaSuccess) << "not while a stream records";
    return Status();
  });
  ASSERT_FALSE(failed.ok());
  EXPECT_EQ(failed.error().code, ErrorCode::kInternal);
  EXPECT_NE(failed.error().message.find("recording a step"), std::string::npos);
  for (int i = 0; i < 2; ++i) Run(cache, 1);
  ExpectCounts(cache, 1, 1, 1);
}

// What of it was recorded before is not launched either.
TEST_F(GraphCacheTest, AStepThatFailsWhileItIsRecordedIsNotLaunched) {
  GraphCache cache(4);
  Run(cache, 1);
  const Status failed = cache.Run(Size(1), stream_.get(), [&]() -> Status {
    EXPECT_EQ(cudaMemsetAsync(memory_.as<void>(), 2, 64, stream_.get()), cudaSuccess);
    return MakeError(ErrorCode::kUnavailable, "a rank has ended");
  });
  ASSERT_FALSE(failed.ok());
  EXPECT_EQ(failed.error().message, "a rank has ended");
  unsigned char byte = 0;
  ASSERT_EQ(cudaMemcpyAsync(&byte, memory_.as<void>(), 1, cudaMemcpyDeviceToHost, stream_.get()),
            cudaSuccess);
  ASSERT_TRUE(stream_.Synchronize("a test").ok());
  EXPECT_EQ(byte, 1);
  for (int i = 0; i < 2; ++i) Run(cache, 1);
  ExpectCounts(cache, 1, 1, 1);
}

}  // namespace
}  // namespace quern::testing
