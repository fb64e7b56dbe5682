#pragma once

#include <cuda_runtime.h>

#include <deque>
#include <string>
#include <vector>

#include "runtime/backend/cuda/cuda_experts.h"
#include "runtime/backend/cuda/cuda_kv.h"
#include "runtime/backend/cuda/cuda_limits.h"
#include "runtime/backend/cuda/cuda_status.h"
#include "runtime/backend/cuda/cuda_weights.h"
#include "runtime/backend/cuda/device_memory.h"
#include "runtime/backend/cuda/graph_cache.h"
#include "runtime/backend/cuda/make_cuda_backend.h"
#include "runtime/backend/cuda/step_inputs.h"

namespace quern {

// Everything goes to one stream, in the order of the calls. What the host prepares for a step is
// copied from pinned memory; the first thing that fails is kept, and given by each later call that
// can say so.
class CudaBackend : public Backend {
 public:
  // Of the current device, which `gpu` describes.
  static Result<std::unique_ptr<CudaBackend>> Make(const CudaOptions& options, GpuInfo gpu);
  ~CudaBackend() override;

  std::string Describe() const override;
  std::optional<GpuInfo> gpu() const override { return gpu_; }
  int ranks() const override;
  Result<std::optional<BackendMemory>> memory() const override;
  Status CheckSizes(const ModelSizes& sizes) const override {
    return CheckSizesForCuda(sizes, ranks());
  }
  Status ReserveSteps(const LargestStep& step) override;
  bool lost() const override;
  Result<std::unique_ptr<Matrix>> LoadMatrix(kernels::WeightType type,
                                             std::span<const std::byte> data, int64_t rows,
                                             int64_t cols, const PartTaken& taken) override;
  Result<std::unique_ptr<ExpertMatrices>> LoadExperts(kernels::WeightType type,
                                                      std::span<const std::byte> data, int experts,
                                                      int64_t rows, int64_t cols,
                                                      const PartTaken& taken) override;
  Result<std::unique_ptr<Matrix>> LoadRouter(std::span<const std::byte> data, int64_t experts,
                                             int64_t cols) override;
  Result<std::unique_ptr<Vector>> LoadVector(std::span<const float> values) override;
  Status AllocateKv(const KvShape& shape, const KvLayout& layout) override;
  Tensor* NewTensor(TensorKind kind, int64_t width) override;
  int AddRope(RopeSpec spec) override;
  int AddExperts(const ExpertsSpec& spec) override { return experts_.Add(spec); }

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
  bool draws() const override { return true; }
  Status Draw(const Tensor& x, const Matrix& head, float softcap, std::span<const TokenDraw> draws,
              std::span<int32_t> tokens) override;
  Status Read(const Tensor& x, std::span<float> to) override;
  Status Finish() override;

  // Steps that were repeated from a recording, and that were not; for tests.
  const GraphCache& graphs() const { return graphs_; }

 private:
  struct OwnedTensor {
    Tensor tensor;
    TensorKind kind;
    DeviceBuffer memory;
  };
  struct Rope {
    RopeSpec spec;
    DeviceBuffer frequencies;  // double [pairs]
  };
  // Inputs of a step on their way: two, so that one can be filled while the other is copied.
  struct Stage {
    PinnedBuffer memory;
    CudaEvent copied;
  };

  CudaBackend(const CudaOptions& options, GpuInfo gpu);

  // CUDA's current device is one of each thread.
  Status UseDevice() const;
  // Until what was recorded has happened; with other ranks, no longer than they are there: then no
  // recorded step is kept.
  Status Wait(const CudaEvent& event, const char* what);
  // What fails first is kept.
  void Note(Status status) {
    if (status_.ok() && !status.ok()) status_ = std::move(status);
  }
  void Run(std::string wrong) { Note(KernelStatus(std::move(wrong))); }
  int64_t ElementBytes(TensorKind kind) const { return kind == TensorKind::kResidual ? 4 : 2; }
  // At least so large from now on, with zeros. Of memory that no recorded step uses.
  Status Grow(DeviceBuffer& buffer, size_t bytes, const char* what);
  // The same of memory that they use: they are forgotten where it moves.
  Status GrowRecorded(DeviceBuffer& buffer, size_t bytes, const char* what);
  // For the logits of so many rows, and drawing from them.
  Status ReserveLogits(int64_t rows, int64_t vocabulary);
  // Memory and inputs for the batch's rows.
  Status BeginStep(const ForwardBatch& batch);
  Status ReserveTensors(int64_t rows);
  void SetRows(int64_t rows);
  // The batch's sequences that are there now.
  void SetPresent(size_t sequences);
  template <typename T>
  const T* Input(size_t offset) const {
    return reinterpret_cast<const T*>(inputs_.as<std::byte>() + offset);
  }
  // y[.., column] = x times the transpose of weight; float32 where `y` is.
  void Multiply(const Tensor& x, const CudaMatrix& weight, void* y, int64_t y_stride,
                bool float32_y);
  // logits_ [x.rows, their stride], on the device.
  Status MakeLogits(const Tensor& x, const Matrix& head, float softcap);
  void Append(const AttentionSpec& spec, const CudaKv::Layer& layer, const Tensor& qkv);
  void Attend(const AttentionSpec& spec, const CudaKv::Layer& layer, const AttentionRun& run,
              const Tensor& qkv, const Tensor& out);
  void RotateBack(const AttentionSpec& spec, const CudaKv::Layer& layer, const Tensor& out);
  // Copies `bytes` from the device to pinned memory in parts, and from there to `to` as they come.
  Status CopyToHost(const void* from, size_t bytes, void* to);

  const CudaOptions options_;
  const GpuInfo gpu_;
  const CudaWait wait_;
  CudaStream stream_;
  WeightUploader weights_;
  Status status_;

  std::deque<OwnedTensor> tensors_;  // a deque: NewTensor's pointers stay
  int64_t capacity_ = 0;             // rows of each tensor
  std::deque<Rope> ropes_;
  CudaExperts experts_;  // with room for capacity_ rows
  CudaKv kv_;
  GraphCache graphs_;

  ForwardBatch batch_;
  size_t present_ = 0;  // of its sequences
  StepSize size_;
  std::optional<StepLayout> layout_;
  std::vector<AttentionRun> runs_;  // of the sequences that are present
  Stage stages_[2];
  int stage_ = 0;
  DeviceBuffer inputs_;
  DeviceBuffer attention_workspace_;
  DeviceBuffer held_;  // rows of the sequence that left
  int64_t held_rows_ = 0;

  DeviceBuffer row_numbers_;  // int32, of RmsNormRows
  DeviceBuffer rows_;         // float32, what it picked
  DeviceBuffer logits_;       // float32
  DeviceBuffer draws_;        // TokenDraw
  DeviceBuffer drawn_;        // int32
  DeviceBuffer draw_workspace_;
  PinnedBuffer to_host_;
  std::vector<CudaEvent> arrived_;
  CudaEvent finished_;
};

}  // namespace quern
