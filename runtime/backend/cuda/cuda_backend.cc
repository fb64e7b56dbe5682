#include "runtime/backend/cuda/cuda_backend.h"

#include <algorithm>
#include <cassert>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "quern/kernels/add_rms_norm.h"
#include "quern/kernels/device_attention.h"
#include "quern/kernels/embedding_gather.h"
#include "quern/kernels/gated_product.h"
#include "quern/kernels/gemm.h"
#include "quern/kernels/gguf_gather.h"
#include "quern/kernels/gguf_matmul.h"
#include "quern/kernels/select_rows.h"
#include "runtime/backend/cuda/cuda_status.h"
#include "runtime/base/cgroup.h"
#include "runtime/distributed/device_communicator.h"

namespace quern {
namespace {

// Decoding steps of more rows are launched as they are: launching no longer weighs then.
constexpr int32_t kMostGraphRows = 512;
constexpr size_t kMostGraphs = 256;

size_t AttentionBytes(const LargestStep& step, const StepSize& size) {
  kernels::DeviceAttentionArgs args{};
  args.q_heads = step.heads;
  args.kv.kv_heads = step.kv_heads;
  args.kv.head_dim = step.head_dim;
  args.sequences = size.sequences;
  args.max_queries = 1;
  args.max_context = size.context_tokens;
  args.scale = 1;
  return kernels::DecodeAttentionWorkspaceBytes(args);
}

}  // namespace

CudaBackend::CudaBackend(const CudaOptions& options, GpuInfo gpu)
    : options_(options),
      gpu_(std::move(gpu)),
      wait_(WaitForSteps(CpuQuota())),
      weights_(stream_, options.activations,
               options.threads > 0 ? options.threads : DefaultThreads()),
      experts_(options.activations),
      graphs_(kMostGraphs) {}

Result<std::unique_ptr<CudaBackend>> CudaBackend::Make(const CudaOptions& options, GpuInfo gpu) {
  std::unique_ptr<CudaBackend> backend(new CudaBackend(options, std::move(gpu)));
  QUERN_TRY(backend->stream_.Create());
  return backend;
}

CudaBackend::~CudaBackend() {
  static_cast<void>(UseDevice());
  // A sum with a rank that has ended is given up there, and would be waited for without an end
  // here.
  if (ranks() > 1) static_cast<void>(Finish());
  graphs_.Clear();
  tensors_.clear();
  ropes_.clear();
  experts_.Free();
  kv_ = {};
  for (DeviceBuffer* buffer : {&inputs_, &attention_workspace_, &held_, &row_numbers_, &rows_,
                               &logits_, &draws_, &drawn_, &draw_workspace_}) {
    *buffer = {};
  }
  // What was freed in the stream's order is the system's again once the stream has come there.
  static_cast<void>(stream_.Synchronize("the last step"));
  cudaMemPool_t pool = nullptr;
  if (cudaDeviceGetDefaultMemPool(&pool, options_.device) == cudaSuccess) {
    static_cast<void>(cudaMemPoolTrimTo(pool, 0));
  }
}

std::string CudaBackend::Describe() const {
  return gpu_.name + (options_.activations == kernels::ActivationType::kF16 ? ", f16" : ", bf16");
}

Result<std::optional<BackendMemory>> CudaBackend::memory() const {
  QUERN_TRY(UseDevice());
  QUERN_TRY(stream_.Synchronize("copying weights"));
  size_t left = 0, total = 0;
  QUERN_TRY(CudaStatus(cudaMemGetInfo(&left, &total), "asking for the GPU's memory"));
  return std::optional(BackendMemory{static_cast<int64_t>(total), static_cast<int64_t>(left)});
}

Status CudaBackend::ReserveSteps(const LargestStep& step) {
  QUERN_TRY(UseDevice());
  StepSize size;
  size.sequences = FilledUp(step.sequences);
  size.rows = std::max(step.tokens, size.sequences);
  size.context_tokens = FilledUpContext(step.context_tokens);
  const StepKv kv{.block_tokens = kv_.limits().block_tokens, .groups = 2};
  QUERN_TRY(ReserveTensors(size.rows));
  QUERN_TRY(GrowRecorded(inputs_, StepLayout(size, kv).bytes, "the inputs of a step"));
  QUERN_TRY(GrowRecorded(attention_workspace_, AttentionBytes(step, size),
                         "attention's parts of long contexts"));
  return ReserveLogits(step.sequences, step.vocabulary);
}

bool CudaBackend::lost() const {
  return !status_.ok() && status_.error().code != ErrorCode::kResourceExhausted;
}

Status CudaBackend::Finish() {
  Note(finished_.Record(stream_.get(), wait_));
  Note(Wait(finished_, "a step on the GPU"));
  return status_;
}

Result<std::unique_ptr<Matrix>> CudaBackend::LoadMatrix(kernels::WeightType type,
                                                        std::span<const std::byte> data,
                                                        int64_t rows, int64_t cols,
                                                        const PartTaken& taken) {
  QUERN_TRY(UseDevice());
  return weights_.LoadMatrix(type, data, rows, cols, taken);
}

Result<std::unique_ptr<Vector>> CudaBackend::LoadVector(std::span<const float> values) {
  QUERN_TRY(UseDevice());
  return weights_.LoadVector(values);
}

Result<std::unique_ptr<ExpertMatrices>> CudaBackend::LoadExperts(kernels::WeightType type,
                                                                 std::span<const std::byte> data,
                                                                 int experts, int64_t rows,
                                                                 int64_t cols,
                                                                 const PartTaken& taken) {
  QUERN_TRY(UseDevice());
  return weights_.LoadExperts(type, data, experts, rows, cols, taken);
}

Result<std::unique_ptr<Matrix>> CudaBackend::LoadRouter(std::span<const std::byte> data,
                                                        int64_t experts, int64_t cols) {
  QUERN_TRY(UseDevice());
  return weights_.LoadRouter(data, experts, cols);
}

Status CudaBackend::UseDevice() const {
  return CudaStatus(cudaSetDevice(options_.device), "choosing the GPU");
}

int CudaBackend::ranks() const { return options_.group != nullptr ? options_.group->size() : 1; }

Status CudaBackend::Wait(const CudaEvent& event, const char* what) {
  if (ranks() > 1) {
    const Status others = options_.group->Await([&] { return event.Done(); });
    if (!others.ok()) {
      graphs_.Clear();  // what the group holds is freed with them
      return others;
    }
  }
  return event.Synchronize(what);
}

Tensor* CudaBackend::NewTensor(TensorKind kind, int64_t width) {
  tensors_.push_back({{.width = width}, kind, {}});
  return &tensors_.back().tensor;
}

int CudaBackend::AddRope(RopeSpec spec) {
  Note(UseDevice());
  Rope& rope = ropes_.emplace_back();
  const size_t bytes = spec.frequencies.size() * sizeof(double);
  Note(rope.frequencies.Allocate(bytes, stream_.get(), "a table of frequencies"));
  if (status_.ok()) {
    Note(CudaStatus(cudaMemcpyAsync(rope.frequencies.as<double>(), spec.frequencies.data(), bytes,
                                    cudaMemcpyHostToDevice, stream_.get()),
                    "copying frequencies"));
    Note(stream_.Synchronize("copying frequencies"));
  }
  rope.spec = std::move(spec);
  return static_cast<int>(ropes_.size()) - 1;
}

Status CudaBackend::Grow(DeviceBuffer& buffer, size_t bytes, const char* what) {
  if (bytes <= buffer.size()) return {};
  return buffer.Allocate(std::max(bytes, buffer.size() + buffer.size() / 2), stream_.get(), what);
}

Status CudaBackend::GrowRecorded(DeviceBuffer& buffer, size_t bytes, const char* what) {
  if (bytes <= buffer.size()) return {};
  graphs_.Clear();
  return Grow(buffer, bytes, what);
}

Status CudaBackend::ReserveTensors(int64_t rows) {
  if (rows <= capacity_) return {};
  for (const OwnedTensor& owned : tensors_) {
    QUERN_TRY(CheckStepForCuda(rows, owned.tensor.width));
  }
  graphs_.Clear();
  capacity_ = std::max(rows, capacity_ + capacity_ / 2);
  for (OwnedTensor& owned : tensors_) {
    const int64_t bytes = capacity_ * owned.tensor.width * ElementBytes(owned.kind);
    const Status status = owned.memory.Allocate(static_cast<size_t>(bytes), stream_.get(),
                                                "the activations of a step");
    owned.tensor.data = owned.memory.as<void>();
    if (status.ok()) continue;
    capacity_ = 0;
    return status;
  }
  const Status status = experts_.Reserve(capacity_, stream_.get());
  if (!status.ok()) capacity_ = 0;
  return status;
}

void CudaBackend::SetRows(int64_t rows) {
  for (OwnedTensor& owned : tensors_) owned.tensor.rows = rows;
}

void CudaBackend::SetPresent(size_t sequences) {
  present_ = sequences;
  runs_ = AttentionRuns(batch_.sequences.first(sequences));
}

Status CudaBackend::BeginStep(const ForwardBatch& batch) {
  batch_ = batch;
  const bool graphs = options_.graphs && (ranks() == 1 || options_.group->recordable());
  size_ = SizeOf(batch, graphs ? kMostGraphRows : 0);
  layout_.emplace(size_, kv_.limits());
  QUERN_TRY(ReserveTensors(size_.rows));
  QUERN_TRY(GrowRecorded(inputs_, layout_->bytes, "the inputs of a step"));
  Stage& stage = stages_[std::exchange(stage_, 1 - stage_)];
  QUERN_TRY(Wait(stage.copied, "copying a step's inputs"));
  QUERN_TRY(stage.memory.Reserve(layout_->bytes, "pinned memory for a step's inputs"));
  auto* from = stage.memory.as<std::byte>();
  for (const StepCopy& part : WriteStepInputs(batch, size_, *layout_, kv_.limits(), from)) {
    QUERN_TRY(CudaStatus(
        cudaMemcpy2DAsync(inputs_.as<std::byte>() + part.offset, part.pitch, from + part.offset,
                          part.pitch, part.width, part.rows, cudaMemcpyHostToDevice, stream_.get()),
        "copying a step's inputs"));
  }
  QUERN_TRY(stage.copied.Record(stream_.get(), wait_));
  SetRows(size_.rows);
  if (size_.padded) {
    present_ = batch.sequences.size();
    runs_ = {{0, size_.sequences, 1, size_.context_tokens, true}};
    return {};
  }
  const size_t away = batch.last_waits() ? 1 : 0;
  SetPresent(batch.sequences.size() - away);
  if (away > 0) SetRows(size_.rows - batch.sequences.back().num_rows);
  return {};
}

Status CudaBackend::RunStep(const ForwardBatch& batch, const std::function<void()>& layers) {
  if (lost()) return status_;
  status_ = {};  // too little memory for a step leaves room for others
  QUERN_TRY(UseDevice());
  if (const Status begun = BeginStep(batch); !begun.ok()) {
    Note(begun);
    return begun;
  }
  if (size_.padded) {
    Note(graphs_.Run(size_, stream_.get(), [&] {
      layers();
      return status_;
    }));
    SetRows(std::ssize(batch.tokens));
  } else {
    layers();
  }
  if (lost()) graphs_.Clear();
  return status_;
}

void CudaBackend::HoldLast(Tensor* x) {
  const int64_t rows = batch_.sequences[present_ - 1].num_rows;
  x->rows -= rows;
  held_rows_ = rows;
  SetPresent(present_ - 1);
  const auto bytes = static_cast<size_t>(rows * x->width) * sizeof(float);
  Note(Grow(held_, bytes, "the rows of a prompt's chunk that waits"));
  if (!status_.ok()) return;
  Note(CudaStatus(
      cudaMemcpyAsync(held_.as<float>(), static_cast<float*>(x->data) + x->rows * x->width, bytes,
                      cudaMemcpyDeviceToDevice, stream_.get()),
      "holding a prompt's chunk"));
}

void CudaBackend::ResumeLast(Tensor* x) {
  // Also in release builds: another sequence's rows would give its text away.
  if (held_rows_ != batch_.sequences[present_].num_rows) std::abort();
  const auto bytes = static_cast<size_t>(held_rows_ * x->width) * sizeof(float);
  Note(
      CudaStatus(cudaMemcpyAsync(static_cast<float*>(x->data) + x->rows * x->width,
                                 held_.as<float>(), bytes, cudaMemcpyDeviceToDevice, stream_.get()),
                 "going on with a prompt's chunk"));
  x->rows += held_rows_;
  SetPresent(present_ + 1);
}

void CudaBackend::Embed(const Matrix& table, int64_t first, float scale, Tensor* residual) {
  if (!status_.ok()) return;
  assert(residual->width == table.cols());
  const CudaMatrix& matrix = OnDevice(table);
  const auto* ids = Input<int32_t>(layout_->tokens);
  auto* out = static_cast<float*>(residual->data);
  const auto first_id = static_cast<int32_t>(first);
  const float absent = ranks() > 1 ? 0.0f : kernels::kNoRow;
  if (matrix.dense()) {
    Run(kernels::EmbeddingGather(
        {options_.activations, matrix.shape().data, matrix.cols(), matrix.rows(), matrix.cols(),
         ids, residual->rows, scale, out, residual->width, first_id, absent},
        stream_.get()));
  } else {
    Run(kernels::GgufGather(
        {matrix.shape(), ids, residual->rows, scale, out, residual->width, first_id, absent},
        stream_.get()));
  }
}

void CudaBackend::AllReduce(Tensor* x) {
  if (ranks() == 1 || !status_.ok() || x->rows == 0) return;
  const auto owned =
      std::ranges::find_if(tensors_, [x](const OwnedTensor& one) { return &one.tensor == x; });
  assert(owned != tensors_.end());
  DeviceNumber type = DeviceNumber::kF32;
  if (owned->kind == TensorKind::kActivations) {
    const bool half = options_.activations == kernels::ActivationType::kF16;
    type = half ? DeviceNumber::kF16 : DeviceNumber::kBF16;
  }
  Note(options_.group->AllReduceSum(x->data, x->rows * x->width, type, stream_.get()));
}

void CudaBackend::AddRmsNorm(const Tensor* x, const Vector* x_weight, const Vector* weight,
                             float epsilon, Tensor* residual, Tensor* out) {
  if (out != nullptr) out->rows = residual->rows;
  if (!status_.ok() || (x == nullptr && out == nullptr)) return;
  kernels::AddRmsNormArgs args{};
  args.type = options_.activations;
  args.tokens = residual->rows;
  args.hidden = args.residual_stride = args.x_stride = args.y_stride = residual->width;
  args.epsilon = epsilon;
  args.residual = static_cast<float*>(residual->data);
  if (x != nullptr) {
    args.x = x->data;
    args.x_weight = OnDevice(x_weight);
  }
  if (out != nullptr) {
    args.weight = OnDevice(weight);
    args.y = out->data;
  }
  Run(kernels::AddRmsNorm(args, stream_.get()));
}

void CudaBackend::Multiply(const Tensor& x, const CudaMatrix& weight, void* y, int64_t y_stride,
                           bool float32_y) {
  assert(weight.cols() == x.width);
  if (!status_.ok() || x.rows == 0) return;
  if (weight.dense()) {
    kernels::GemmArgs args{};
    args.type = options_.activations;
    args.w = weight.shape().data;
    args.rows = weight.rows();
    args.w_stride = args.cols = args.x_stride = weight.cols();
    args.x = x.data;
    args.y = y;
    args.y_stride = y_stride;
    args.batch = x.rows;
    args.float32_y = float32_y;
    Run(kernels::Gemm(args, stream_.get()));
    return;
  }
  kernels::GgufMatMulArgs args{};
  args.weights = weight.shape();
  args.type = options_.activations;
  args.x = x.data;
  args.x_stride = x.width;
  args.y = y;
  args.y_stride = y_stride;
  args.batch = x.rows;
  args.float32_y = float32_y;
  Run(kernels::GgufMatMul(args, stream_.get()));
}

void CudaBackend::MatMul(const Tensor& x, std::initializer_list<Projection> projections) {
  for (const Projection& projection : projections) {
    Tensor& out = *projection.out;
    assert(out.width >= projection.column + projection.weight->rows());
    out.rows = x.rows;
    Multiply(x, OnDevice(*projection.weight), static_cast<uint16_t*>(out.data) + projection.column,
             out.width, false);
  }
}

void CudaBackend::GatedActivation(kernels::Gate kind, const Tensor& up, Tensor* gate) {
  if (!status_.ok()) return;
  kernels::GatedProductArgs args{};
  args.gate_kind = kind;
  args.type = options_.activations;
  args.tokens = gate->rows;
  args.inner = args.gate_stride = args.up_stride = args.y_stride = gate->width;
  args.gate = gate->data;
  args.up = up.data;
  args.y = gate->data;
  Run(kernels::GatedProduct(args, stream_.get()));
}

void CudaBackend::Experts(int number, const Tensor& x, Tensor* out) {
  out->rows = x.rows;
  if (!status_.ok() || x.rows == 0) return;
  // Where the last query ends is how many rows are not there to fill up.
  const int32_t* used =
      size_.padded ? Input<int32_t>(layout_->query_begins) + size_.sequences : nullptr;
  Note(experts_.Run(number, x, used, *out, stream_.get()));
}

void CudaBackend::RmsNormRows(const Tensor& residual, std::span<const int32_t> rows,
                              const Vector& weight, float epsilon, Tensor* out) {
  out->rows = std::ssize(rows);
  if (!status_.ok() || rows.empty()) return;
  const auto row_bytes = static_cast<size_t>(residual.width) * sizeof(float);
  Note(Grow(row_numbers_, rows.size_bytes(), "the rows whose logits are wanted"));
  Note(Grow(rows_, rows.size() * row_bytes, "the rows whose logits are wanted"));
  if (!status_.ok()) return;
  // From pageable memory: CUDA copies it aside before it returns.
  Note(CudaStatus(cudaMemcpyAsync(row_numbers_.as<int32_t>(), rows.data(), rows.size_bytes(),
                                  cudaMemcpyHostToDevice, stream_.get()),
                  "copying row numbers"));
  Run(kernels::SelectRows({static_cast<const float*>(residual.data), residual.rows, residual.width,
                           row_numbers_.as<int32_t>(), std::ssize(rows), residual.width,
                           rows_.as<float>(), residual.width},
                          stream_.get()));
  Tensor picked{std::ssize(rows), residual.width, rows_.as<float>()};
  AddRmsNorm(nullptr, nullptr, &weight, epsilon, &picked, out);
}

}  // namespace quern
