// The memory of devices that a model is split over.
#include <gtest/gtest.h>

#include <optional>
#include <utility>

#include "tests/unit/runtime/model/parallel_model_fixture.h"

namespace quern::testing {
namespace {

// A part of a model on a device with memory of its own, or an error of asking for it.
class WithMemory : public Model {
 public:
  WithMemory(std::unique_ptr<Model> part, Result<std::optional<BackendMemory>> memory)
      : part_(std::move(part)), memory_(std::move(memory)) {}
  const ModelInfo& info() const override { return part_->info(); }
  Result<std::optional<BackendMemory>> device_memory() const override { return memory_; }
  void SetKvDtype(KvDtype dtype) override { part_->SetKvDtype(dtype); }
  Status AllocateKv(const KvLayout& layout) override { return part_->AllocateKv(layout); }
  Status Forward(const ForwardBatch& batch, std::span<float> logits) override {
    return part_->Forward(batch, logits);
  }
  Status ReadLogits(std::span<const int32_t> rows, std::span<float> logits) override {
    return part_->ReadLogits(rows, logits);
  }
  Status ReadHidden(std::span<const int32_t> rows, std::span<float> hidden) override {
    return part_->ReadHidden(rows, hidden);
  }

 private:
  const std::unique_ptr<Model> part_;
  const Result<std::optional<BackendMemory>> memory_;
};

// Rank 0's answer, where each rank's device has such memory.
class MemoryTest : public ParallelModelTest {
 protected:
  using Memories = std::vector<Result<std::optional<BackendMemory>>>;
  std::string Ask(const Memories& memories) {
    const auto results = Run(static_cast<int>(memories.size()), [&](Communicator& group) {
      const LoadPart part = [&]() -> Result<std::unique_ptr<Model>> {
        QUERN_ASSIGN(auto model,
                     Part(Tiny("llama", 8, 4, GgmlType::kF32), group, 1, KvDtype::kF16)());
        return std::unique_ptr<Model>(std::make_unique<WithMemory>(
            std::move(model), memories[static_cast<size_t>(group.rank())]));
      };
      return Play(group, part, [](Model& model) -> std::string {
        const auto memory = model.device_memory();
        if (!memory) return memory.error().message;
        if (!*memory) return "none";
        return fmt::format("{} of {}", (*memory)->free_bytes, (*memory)->total_bytes);
      });
    });
    for (size_t rank = 1; rank < results.size(); ++rank) EXPECT_EQ(results[rank], "");
    return results[0];
  }
};

TEST_F(MemoryTest, IsTheLeastOfAllRanks) {
  const auto memory = [](int64_t total, int64_t free) {
    return Result<std::optional<BackendMemory>>(BackendMemory{total, free});
  };
  constexpr int64_t kLarge = int64_t{80} << 30;  // float32 would round it
  EXPECT_EQ(Ask({memory(kLarge + 3, 70), memory(kLarge, 80), memory(kLarge + 1, 60),
                 memory(kLarge + 2, 90)}),
            fmt::format("60 of {}", kLarge));
  EXPECT_EQ(Ask({memory(100, 30), memory(90, 80)}), "30 of 90");
}

TEST_F(MemoryTest, IsNoneWhereNoRankHasItsOwn) {
  EXPECT_EQ(Ask(Memories(2, std::optional<BackendMemory>())), "none");
}

TEST_F(MemoryTest, AnErrorOfOneRankIsOneOfAll) {
  EXPECT_EQ(Ask({std::optional<BackendMemory>(), MakeError(ErrorCode::kUnavailable, "no answer")}),
            "rank 1 of 2: no answer");
}

}  // namespace
}  // namespace quern::testing
