#pragma once

#include <deque>
#include <memory>
#include <vector>

#include "quern/kernels/cpu_kernels.h"
#include "runtime/backend/backend.h"
#include "runtime/backend/cpu/activation_buffer.h"
#include "runtime/backend/cpu/aligned_memory.h"
#include "runtime/backend/cpu/attention_plan.h"
#include "runtime/backend/cpu/expert_workspace.h"
#include "runtime/backend/cpu/head_screen.h"
#include "runtime/base/thread_pool.h"

namespace quern {

class CpuExperts;

class CpuBackend : public Backend {
 public:
  // `memory_bytes` is what all matrices together may take; `group` null: one rank.
  CpuBackend(const kernels::CpuKernels& kernels, int threads, int64_t memory_bytes,
             Communicator* group = nullptr)
      : kernels_(kernels),
        pool_(threads),
        memory_left_(memory_bytes),
        group_(group),
        head_screen_(kernels) {}

  std::string Describe() const override;
  int ranks() const override;

  Result<std::unique_ptr<Matrix>> LoadMatrix(kernels::WeightType type,
                                             std::span<const std::byte> data, int64_t rows,
                                             int64_t cols, const PartTaken& taken) override;
  Result<std::unique_ptr<Matrix>> LoadHead(kernels::WeightType type,
                                           std::span<const std::byte> data, int64_t rows,
                                           int64_t cols, const PartTaken& taken) override;
  Result<std::unique_ptr<Matrix>> LoadRouter(std::span<const std::byte> data, int64_t experts,
                                             int64_t cols) override;
  Result<std::unique_ptr<ExpertMatrices>> LoadExperts(kernels::WeightType type,
                                                      std::span<const std::byte> data, int experts,
                                                      int64_t rows, int64_t cols,
                                                      const PartTaken& taken) override;
  Result<std::unique_ptr<Vector>> LoadVector(std::span<const float> values) override;
  Status AllocateKv(const KvShape& shape, const KvLayout& layout) override;
  Tensor* NewTensor(TensorKind kind, int64_t width) override;
  int AddRope(RopeSpec spec) override;
  int AddExperts(const ExpertsSpec& spec) override;

  Status RunStep(const ForwardBatch& batch, const std::function<void()>& layers) override;
  void HoldLast(Tensor* x) override;
  void ResumeLast(Tensor* x) override;

  void Embed(const Matrix& table, int64_t first, float scale, Tensor* residual) override;
  void AllReduce(Tensor* x) override;
  void AddRmsNorm(const Tensor* x, const Vector* x_weight, const Vector* weight, float epsilon,
                  Tensor* residual, Tensor* out) override;
  void MatMul(const Tensor& x, std::initializer_list<Projection> projections) override;
  void Attention(const AttentionSpec& spec, Tensor* qkv, Tensor* out) override;
  void GatedActivation(kernels::Gate kind, const Tensor& up, Tensor* gate) override;
  void Experts(int number, const Tensor& x, Tensor* out) override;
  void RmsNormRows(const Tensor& residual, std::span<const int32_t> rows, const Vector& weight,
                   float epsilon, Tensor* out) override;
  Status Logits(const Tensor& x, const Matrix& head, float softcap, std::span<const int32_t> ranks,
                std::span<float> logits) override;
  HeadReads head_reads() const override { return head_screen_.reads(); }
  Status Read(const Tensor& x, std::span<float> to) override;

 private:
  // Rows of elementwise work below which handing it to other threads costs more than it saves.
  static constexpr int64_t kSerialRows = 16;

  struct OwnedTensor {
    Tensor tensor;
    AlignedMemory memory;
  };
  struct RopeTable {
    RopeSpec spec;
    std::vector<float> cosines;  // [rows, pairs] of the step
    std::vector<float> sines;
  };
  // One product of a MatMul: rows of x by `weight` into y.
  struct Product {
    const kernels::PackedMatrix* weight;
    float* y;
    int64_t y_stride;
  };

  // body(row) for all rows, on several threads when there are enough of them to be worth it.
  template <typename Body>
  void ForRows(int64_t rows, const Body& body) {
    const int64_t grain = rows < kSerialRows ? rows : 4;
    pool_.ParallelFor(rows, grain, [&](int64_t begin, int64_t end, int) {
      for (int64_t row = begin; row < end; ++row) body(row);
    });
  }
  // Of a tensor of this backend.
  static float* Row(const Tensor& x, int64_t row) {
    return static_cast<float*>(x.data) + row * x.width;
  }
  // Of all matrices' memory, or why it cannot be had.
  Result<AlignedMemory> TakeWeightMemory(int64_t bytes);
  // Repacks `data` into `memory`, in parts.
  void Pack(const kernels::PackedMatrix& shape, std::span<const std::byte> data, uint8_t* memory,
            const PartTaken& taken);
  // Makes everything ready for the batch's rows.
  Status BeginStep(const ForwardBatch& batch);
  void Quantize(const Tensor& x, const kernels::QuantizedActivations& out);
  void Multiply(const Tensor& x, std::span<const Product> products);

  // The same of experts: their rows lie one expert's after another's (ExpertWorkspace::plan()).
  struct ExpertProduct {
    const CpuExperts* weight;
    float* y;
  };
  // body(rows) for all bundles of an expert's rows, then those rows of x [pairs, width] are
  // quantised if `quantize`; on several threads where there are enough of them.
  template <typename Body>
  void PrepareExpertRows(const float* x, int64_t width, bool quantize, const Body& body);
  void MultiplyExperts(const float* x, int64_t width, std::span<const ExpertProduct> products);

  // Layers whose K and V lie in the same blocks: those that see all tokens, and, with blocks of
  // their own, those that see their last ones.
  struct KvGroup {
    AlignedMemory memory;
    int32_t num_blocks = 0;
  };
  struct KvLayer {
    bool windowed = false;  // its group
    int rank = 0;           // among the layers of its group
  };
  bool Windowed(int layer) const { return kv_layers_[static_cast<size_t>(layer)].windowed; }
  const KvGroup& GroupOf(int layer) const { return Windowed(layer) ? kv_windows_ : kv_full_; }
  std::span<const int32_t> BlocksOf(const ForwardBatch::Sequence& sequence, int layer) const {
    return Windowed(layer) ? sequence.window_blocks : sequence.blocks;
  }
  kernels::PagedKv LayerKv(int layer) const;
  // Stops the process where the batch lacks a block that this layer will read or write.
  void CheckBlocks(const AttentionSpec& spec) const;
  // One row's heads of Q and K normalised, turned and, for a quantised cache, rotated, and its K
  // and V appended to the cache.
  void PrepareRow(const AttentionSpec& spec, const kernels::PagedKv& kv, int64_t row,
                  const Tensor& qkv);
  void RunAttentionTask(const AttentionSpec& spec, const AttentionTask& task, const Tensor& qkv,
                        float* scratch, Tensor* out);
  void CombineAttention(const AttentionSplit& split, Tensor* out) const;

  const kernels::CpuKernels& kernels_;
  ThreadPool pool_;
  int64_t memory_left_;  // for matrices
  Communicator* const group_;
  Status lost_;                      // what became of the group
  std::vector<float> all_parts_;     // [ranks] of what is summed
  std::deque<OwnedTensor> tensors_;  // a deque: NewTensor's pointers stay
  std::vector<RopeTable> ropes_;
  std::vector<ExpertsSpec> experts_;
  ExpertWorkspace expert_workspace_;
  ActivationBuffer quantized_;
  HeadScreen head_screen_;
  int64_t widest_ = 0;

  KvShape kv_shape_;
  KvLayout kv_layout_;
  KvGroup kv_full_, kv_windows_;
  std::vector<KvLayer> kv_layers_;
  std::vector<float> attention_scratch_;  // [threads][AttentionScratchFloats]
  std::vector<float> attention_parts_;    // of contexts that threads share
  AttentionPlan attention_plan_;

  ForwardBatch batch_;                  // its sequences: those that are there now
  std::vector<int32_t> row_sequences_;  // [rows]: the sequence of each
  std::vector<float> held_;             // of the sequence that left
};

}  // namespace quern
