#include "runtime/backend/cpu/cpu_backend.h"

#include <algorithm>
#include <cassert>

#include "quern/kernels/dequantize.h"
#include "runtime/backend/cpu/cpu_matrix.h"
#include "runtime/base/cgroup.h"
#include "runtime/distributed/communicator.h"

namespace quern {
namespace {

constexpr double kMiB = 1024.0 * 1024.0;
// Of each of several threads, for the parts of contexts that they share: 512 KiB.
constexpr size_t kAttentionPartFloats = size_t{1} << 17;
// A matrix is repacked in parts of about this many bytes.
constexpr int64_t kPartBytes = 4 << 20;

// Of this process's share of the memory limit.
int64_t MemoryLeft(const Communicator* group) {
  return MemoryLimitBytes() / (group != nullptr ? group->size() : 1) -
         ProcessMemoryUse().resident_bytes;
}

// Why `what`, of so many bytes, could not be had, where `left` are left of the memory limit.
Error NoMemoryFor(std::string_view what, double bytes, double left, std::string_view remedy) {
  if (bytes <= left) {
    return MakeError(ErrorCode::kResourceExhausted,
                     "{} needs {:.1f} MiB, which the system refuses: raise this process's limit of "
                     "address space (ulimit -v), or let the system overcommit memory",
                     what, bytes / kMiB);
  }
  return MakeError(
      ErrorCode::kResourceExhausted,
      "{} needs {:.1f} MiB, but {:.1f} MiB are left of this process's memory limit: {}", what,
      bytes / kMiB, std::max(0.0, left) / kMiB, remedy);
}

}  // namespace

Result<std::unique_ptr<Backend>> MakeCpuBackend(int threads, Communicator* group) {
  const char* error = nullptr;
  const kernels::CpuKernels* kernels = kernels::SelectCpuKernels(&error);
  if (kernels == nullptr) return MakeError(ErrorCode::kInvalidArgument, "{}", error);
  return std::unique_ptr<Backend>(std::make_unique<CpuBackend>(
      *kernels, threads > 0 ? threads : DefaultThreads(), MemoryLeft(group), group));
}

std::string CpuBackend::Describe() const {
  return fmt::format("{}, {} thread{}", kernels_.name, pool_.threads(),
                     pool_.threads() == 1 ? "" : "s");
}

int CpuBackend::ranks() const { return group_ != nullptr ? group_->size() : 1; }

Result<std::unique_ptr<Matrix>> CpuBackend::LoadMatrix(kernels::WeightType type,
                                                       std::span<const std::byte> data,
                                                       int64_t rows, int64_t cols,
                                                       const PartTaken& taken) {
  const kernels::PackedMatrix shape{type, kernels_.lanes, rows, cols, nullptr};
  QUERN_ASSIGN(AlignedMemory memory, TakeWeightMemory(kernels::PackedBytes(shape)));
  Pack(shape, data, memory.as<uint8_t>(), taken);
  return std::unique_ptr<Matrix>(std::make_unique<CpuMatrix>(shape, std::move(memory)));
}

Result<std::unique_ptr<Matrix>> CpuBackend::LoadHead(kernels::WeightType type,
                                                     std::span<const std::byte> data, int64_t rows,
                                                     int64_t cols, const PartTaken& taken) {
  if (type != kernels::WeightType::kQ8_0) return LoadMatrix(type, data, rows, cols, taken);
  kernels::PackedMatrix shape{type, kernels_.lanes, rows, cols, nullptr};
  shape.planes = true;
  QUERN_ASSIGN(AlignedMemory memory, TakeWeightMemory(kernels::PackedBytes(shape)));
  Pack(shape, data, memory.as<uint8_t>(), taken);
  auto matrix = std::make_unique<CpuMatrix>(shape, std::move(memory));
  matrix->set_greatest_scales(GreatestScales(matrix->packed(), pool_));
  return std::unique_ptr<Matrix>(std::move(matrix));
}

Result<std::unique_ptr<Matrix>> CpuBackend::LoadRouter(std::span<const std::byte> data,
                                                       int64_t experts, int64_t cols) {
  return LoadMatrix(kernels::WeightType::kF32, data, experts, cols,
                    [](std::span<const std::byte>) {});
}

Result<std::unique_ptr<ExpertMatrices>> CpuBackend::LoadExperts(kernels::WeightType type,
                                                                std::span<const std::byte> data,
                                                                int experts, int64_t rows,
                                                                int64_t cols,
                                                                const PartTaken& taken) {
  constexpr int64_t kAlignment = 64;  // of each expert's tiles
  const kernels::PackedMatrix shape{type, kernels_.lanes, rows, cols, nullptr};
  const int64_t stride = (kernels::PackedBytes(shape) + kAlignment - 1) / kAlignment * kAlignment;
  QUERN_ASSIGN(AlignedMemory memory, TakeWeightMemory(experts * stride));
  const size_t source_bytes = data.size() / static_cast<size_t>(experts);
  std::vector<kernels::PackedMatrix> packed(static_cast<size_t>(experts), shape);
  for (size_t i = 0; i < packed.size(); ++i) {
    uint8_t* tiles = memory.as<uint8_t>() + static_cast<int64_t>(i) * stride;
    Pack(shape, data.subspan(i * source_bytes, source_bytes), tiles, taken);
    packed[i].data = tiles;
  }
  return std::unique_ptr<ExpertMatrices>(
      std::make_unique<CpuExperts>(std::move(packed), std::move(memory)));
}

Result<AlignedMemory> CpuBackend::TakeWeightMemory(int64_t bytes) {
  // The system would give the memory now and kill the process when it is touched. A matrix of few
  // rows is padded to whole tiles, so that a file's size alone does not tell.
  AlignedMemory memory;
  if (bytes <= memory_left_) memory = AlignedMemory(static_cast<size_t>(bytes), true);
  if (memory.data() == nullptr) {
    return NoMemoryFor("a weight matrix", static_cast<double>(bytes),
                       static_cast<double>(memory_left_),
                       "raise the limit, or take a model with smaller weights");
  }
  memory_left_ -= bytes;
  return memory;
}

void CpuBackend::Pack(const kernels::PackedMatrix& shape, std::span<const std::byte> data,
                      uint8_t* memory, const PartTaken& taken) {
  const int64_t row_bytes = static_cast<int64_t>(data.size()) / shape.rows;
  const int64_t part = std::max<int64_t>(1, kPartBytes / (row_bytes * shape.lanes));
  for (int64_t first = 0; first < shape.tiles(); first += part) {
    const int64_t last = std::min(shape.tiles(), first + part);
    pool_.ParallelFor(last - first, 16, [&](int64_t begin, int64_t end, int) {
      kernels::PackTiles(shape, data.data(), first + begin, first + end, memory);
    });
    const int64_t begin_byte = first * shape.lanes * row_bytes;
    const int64_t end_byte = std::min(shape.rows, last * shape.lanes) * row_bytes;
    taken(
        data.subspan(static_cast<size_t>(begin_byte), static_cast<size_t>(end_byte - begin_byte)));
  }
}

Result<std::unique_ptr<Vector>> CpuBackend::LoadVector(std::span<const float> values) {
  return std::unique_ptr<Vector>(
      std::make_unique<CpuVector>(std::vector<float>(values.begin(), values.end())));
}

Status CpuBackend::AllocateKv(const KvShape& shape, const KvLayout& layout) {
  const int window_layers = layout.window_blocks > 0 ? WindowLayers(shape) : 0;
  const auto bytes_of = [&](int layers, int32_t blocks) {
    return static_cast<double>(KvBytesPerToken(shape, layers)) * layout.block_tokens * blocks;
  };
  const double full_bytes = bytes_of(shape.layers - window_layers, layout.num_blocks);
  const double window_bytes = bytes_of(window_layers, layout.window_blocks);
  const double bytes = full_bytes + window_bytes;
  const double left = static_cast<double>(MemoryLeft(group_));
  if (layout.block_tokens < 1 || layout.num_blocks < 1) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "a KV cache needs at least one block of one token, not {} of {}",
                     layout.num_blocks, layout.block_tokens);
  }
  KvGroup full, windows;
  if (bytes <= left) {
    full = {AlignedMemory(static_cast<size_t>(full_bytes)), layout.num_blocks};
    windows = {AlignedMemory(static_cast<size_t>(window_bytes)), layout.window_blocks};
  }
  if (full.memory.data() == nullptr || (window_bytes > 0 && windows.memory.data() == nullptr)) {
    const int64_t tokens = static_cast<int64_t>(layout.block_tokens) * layout.num_blocks;
    return NoMemoryFor(fmt::format("a KV cache of {} tokens", tokens), bytes, left,
                       "ask for less, or raise the limit");
  }
  kv_shape_ = shape;
  kv_layout_ = layout;
  kv_full_ = std::move(full);
  kv_windows_ = std::move(windows);
  kv_layers_.clear();
  int ranks[2] = {0, 0};
  for (int layer = 0; layer < shape.layers; ++layer) {
    const bool windowed = window_layers > 0 && shape.windows[static_cast<size_t>(layer)] > 0;
    kv_layers_.push_back({windowed, ranks[windowed ? 1 : 0]++});
  }
  attention_scratch_.resize(static_cast<size_t>(kernels::AttentionScratchFloats(shape.head_dim)) *
                            static_cast<size_t>(pool_.threads()));
  if (pool_.threads() > 1) {
    attention_parts_.resize(kAttentionPartFloats * static_cast<size_t>(pool_.threads()));
  }
  return {};
}

Tensor* CpuBackend::NewTensor(TensorKind /*float32, both*/, int64_t width) {
  tensors_.push_back({});
  tensors_.back().tensor.width = width;
  widest_ = std::max(widest_, width);
  return &tensors_.back().tensor;
}

int CpuBackend::AddRope(RopeSpec spec) {
  ropes_.push_back({std::move(spec), {}, {}});
  return static_cast<int>(ropes_.size()) - 1;
}

Status CpuBackend::RunStep(const ForwardBatch& batch, const std::function<void()>& layers) {
  QUERN_TRY(BeginStep(batch));
  layers();
  return lost_;
}

Status CpuBackend::BeginStep(const ForwardBatch& batch) {
  batch_ = batch;
  row_sequences_.resize(batch.tokens.size());
  for (size_t i = 0; i < batch.sequences.size(); ++i) {
    const ForwardBatch::Sequence& sequence = batch.sequences[i];
    std::fill_n(row_sequences_.begin() + sequence.first_row, sequence.num_rows,
                static_cast<int32_t>(i));
  }
  const int64_t rows = static_cast<int64_t>(batch.tokens.size());
  bool fits = quantized_.Reserve(rows, widest_) && expert_workspace_.Reserve(rows);
  for (OwnedTensor& owned : tensors_) {
    const size_t bytes = static_cast<size_t>(rows * owned.tensor.width) * sizeof(float);
    if (owned.memory.size() < bytes) owned.memory = AlignedMemory(bytes);
    fits = fits && owned.memory.size() >= bytes;
    owned.tensor.data = owned.memory.data();
    owned.tensor.rows = rows;
  }
  if (batch.last_waits()) {
    batch_.sequences = batch.sequences.first(batch.sequences.size() - 1);
    for (OwnedTensor& owned : tensors_) owned.tensor.rows -= batch.sequences.back().num_rows;
  }
  if (!fits) {
    return MakeError(ErrorCode::kResourceExhausted,
                     "no memory for the activations of a step of {} tokens", rows);
  }
  for (RopeTable& table : ropes_) {
    const int pairs = static_cast<int>(table.spec.frequencies.size());
    const size_t size = static_cast<size_t>(rows * pairs);
    if (table.cosines.size() < size) {
      table.cosines.resize(size);
      table.sines.resize(size);
    }
    ForRows(rows, [&](int64_t row) {
      kernels::RopeAngles(batch_.positions[static_cast<size_t>(row)], table.spec.frequencies.data(),
                          pairs, table.cosines.data() + row * pairs,
                          table.sines.data() + row * pairs);
    });
  }
  return {};
}

void CpuBackend::HoldLast(Tensor* x) {
  const int64_t rows = batch_.sequences.back().num_rows;
  x->rows -= rows;
  held_.assign(Row(*x, x->rows), Row(*x, x->rows + rows));
  batch_.sequences = batch_.sequences.first(batch_.sequences.size() - 1);
}

void CpuBackend::ResumeLast(Tensor* x) {
  const std::span all(batch_.sequences.data(), batch_.sequences.size() + 1);
  // Also in release builds: another sequence's rows would give its text away.
  if (std::ssize(held_) != all.back().num_rows * x->width) std::abort();
  std::copy(held_.begin(), held_.end(), Row(*x, x->rows));
  x->rows += all.back().num_rows;
  batch_.sequences = all;
}

void CpuBackend::Embed(const Matrix& table, int64_t first, float scale, Tensor* residual) {
  assert(residual->width == table.cols());
  ForRows(residual->rows, [&](int64_t row) {
    const int64_t at = batch_.tokens[static_cast<size_t>(row)] - first;
    float* y = Row(*residual, row);
    if (at < 0 || at >= table.rows()) {
      assert(group_ != nullptr);
      std::fill_n(y, residual->width, 0.0f);
      return;
    }
    kernels::UnpackRow(Packed(table), at, y);
    for (int64_t i = 0; i < residual->width; ++i) y[i] *= scale;
  });
}

// Gathers the parts and adds them here, rank by rank, which sends more than a ring of sums but has
// one order for all elements, wherever they lie, and for the few rows of a decode step half the
// messages.
void CpuBackend::AllReduce(Tensor* x) {
  if (ranks() == 1 || !lost_.ok()) return;
  const int64_t count = x->rows * x->width;
  if (std::ssize(all_parts_) < count * ranks()) {
    all_parts_.resize(static_cast<size_t>(count * ranks()));
  }
  float* sum = Row(*x, 0);
  const std::span parts(all_parts_.data(), static_cast<size_t>(count * ranks()));
  lost_ = group_->AllGather({sum, static_cast<size_t>(count)}, parts);
  if (!lost_.ok()) return;
  constexpr int64_t kChunk = 8192;
  pool_.ParallelFor(count, kChunk, [&](int64_t begin, int64_t end, int) {
    std::copy(parts.data() + begin, parts.data() + end, sum + begin);
    for (int rank = 1; rank < ranks(); ++rank) {
      kernels_.add(parts.data() + rank * count + begin, end - begin, sum + begin);
    }
  });
}

void CpuBackend::AddRmsNorm(const Tensor* x, const Vector* x_weight, const Vector* weight,
                            float epsilon, Tensor* residual, Tensor* out) {
  const int64_t width = residual->width;
  assert(x == nullptr || (x->rows == residual->rows && x->width == width));
  if (out != nullptr) out->rows = residual->rows;
  ForRows(residual->rows, [&](int64_t row) {
    float* sum = Row(*residual, row);
    if (x != nullptr) {
      float* added = Row(*x, row);
      if (x_weight != nullptr) {
        kernels_.rms_norm(added, Values(*x_weight), epsilon, width, added);
      }
      kernels_.add(added, width, sum);
    }
    if (out != nullptr) kernels_.rms_norm(sum, Values(*weight), epsilon, width, Row(*out, row));
  });
}

void CpuBackend::MatMul(const Tensor& x, std::initializer_list<Projection> projections) {
  Product products[8];
  size_t count = 0;
  for (const Projection& projection : projections) {
    assert(count < std::size(products) &&
           projection.out->width >= projection.column + projection.weight->rows());
    projection.out->rows = x.rows;
    products[count++] = {&Packed(*projection.weight), Row(*projection.out, 0) + projection.column,
                         projection.out->width};
  }
  Multiply(x, std::span(products, count));
}

void CpuBackend::Quantize(const Tensor& x, const kernels::QuantizedActivations& out) {
  const int64_t groups = x.width / 32;
  const int64_t bundles = kernels::NumBundles(x.rows);
  int64_t parts = 1;  // of each bundle
  int64_t grain = bundles;
  if (x.rows >= kSerialRows) {
    parts = std::min((2 * pool_.threads() + bundles - 1) / bundles, groups);
    grain = std::max<int64_t>(1, bundles * parts / (4 * pool_.threads()));
  }
  pool_.ParallelFor(bundles * parts, grain, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t part = i % parts;
      kernels_.quantize_activations(Row(x, 0), x.width, kernels::BundleStart(i / parts, x.rows),
                                    part * groups / parts, (part + 1) * groups / parts, out);
    }
  });
}

void CpuBackend::Multiply(const Tensor& x, std::span<const Product> products) {
  if (x.rows == 0) return;
  int64_t tiles = 0;
  bool quantize = false;
  for (const Product& product : products) {
    assert(product.weight->cols == x.width);
    tiles += product.weight->tiles();
    quantize = quantize || !kernels::IsFloatType(product.weight->type);
  }
  const kernels::QuantizedActivations view = quantized_.View(x.rows, x.width);
  if (quantize) Quantize(x, view);
  // Four ranges a thread: enough to even out a thread that started late or was held up.
  const int64_t grain = (tiles + 4 * pool_.threads() - 1) / (4 * pool_.threads());
  pool_.ParallelFor(tiles, grain, [&](int64_t begin, int64_t end, int) {
    int64_t first = 0;  // of this product's tiles
    for (const Product& product : products) {
      const int64_t last = first + product.weight->tiles();
      if (begin < last && end > first) {
        const kernels::MatMulArgs args{product.weight, &view,     Row(x, 0),       x.width,
                                       x.rows,         product.y, product.y_stride};
        kernels_.matmul(args, std::max(begin, first) - first, std::min(end, last) - first);
      }
      first = last;
    }
  });
}

void CpuBackend::GatedActivation(kernels::Gate kind, const Tensor& up, Tensor* gate) {
  ForRows(gate->rows, [&](int64_t row) {
    kernels_.gated_activation(kind, Row(up, row), gate->width, Row(*gate, row));
  });
}

void CpuBackend::RmsNormRows(const Tensor& residual, std::span<const int32_t> rows,
                             const Vector& weight, float epsilon, Tensor* out) {
  assert(std::ssize(rows) <= residual.rows && out->width == residual.width);
  out->rows = std::ssize(rows);
  ForRows(out->rows, [&](int64_t row) {
    kernels_.rms_norm(Row(residual, rows[static_cast<size_t>(row)]), Values(weight), epsilon,
                      residual.width, Row(*out, row));
  });
}

Status CpuBackend::Logits(const Tensor& x, const Matrix& head, float softcap,
                          std::span<const int32_t> ranks, std::span<float> logits) {
  assert(std::ssize(logits) >= x.rows * head.rows());
  const auto& matrix = static_cast<const CpuMatrix&>(head);
  // The cap's rounding need not keep the order of two logits.
  if (softcap == 0 && HeadScreen::Takes(matrix, x.rows, ranks)) {
    const kernels::QuantizedActivations view = quantized_.View(x.rows, x.width);
    Quantize(x, view);
    if (head_screen_.Run(matrix, view, ranks, pool_, logits.data())) return {};
  }
  const Product product{&Packed(head), logits.data(), head.rows()};
  Multiply(x, std::span(&product, 1));
  if (softcap == 0) return {};
  constexpr int64_t kChunk = 8192;
  pool_.ParallelFor(x.rows * head.rows(), kChunk, [&](int64_t begin, int64_t end, int) {
    kernels_.softcap(softcap, end - begin, logits.data() + begin);
  });
  return {};
}

Status CpuBackend::Read(const Tensor& x, std::span<float> to) {
  assert(std::ssize(to) >= x.rows * x.width);
  std::copy(Row(x, 0), Row(x, x.rows), to.begin());
  return {};
}

}  // namespace quern
