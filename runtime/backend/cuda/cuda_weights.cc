#include "runtime/backend/cuda/cuda_weights.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <vector>

#include "quern/kernels/dequantize.h"
#include "quern/kernels/numeric_types.h"
#include "runtime/backend/cuda/cuda_status.h"

namespace quern {
namespace {

using kernels::ActivationType;
using kernels::WeightType;

// Of the file, laid out and copied at a time.
constexpr int64_t kPartBytes = 8 << 20;
constexpr WeightType kGgufTypes[] = {WeightType::kQ4_0, WeightType::kQ4_1, WeightType::kQ5_0,
                                     WeightType::kQ8_0, WeightType::kQ4_K, WeightType::kQ6_K};

Status CheckType(WeightType type, int64_t rows, int64_t cols) {
  if (kernels::IsFloatType(type)) {
    if (cols % 8 == 0) return {};
    return MakeError(ErrorCode::kUnsupported,
                     "rows of {} weights: on a GPU they must be a multiple of 8 long", cols);
  }
  if (std::ranges::find(kGgufTypes, type) != std::end(kGgufTypes)) {
    const std::string wrong = kernels::CheckGgufShape({type, rows, cols, nullptr});
    if (wrong.empty()) return {};
    return MakeError(ErrorCode::kUnsupported, "{}", wrong);
  }
  std::string names = "F32, F16, BF16";
  for (const WeightType known : kGgufTypes) {
    names += std::string(", ") + kernels::FindWeightTypeInfo(known)->name;
  }
  return MakeError(ErrorCode::kUnsupported,
                   "stored as {}, which the CUDA backend does not multiply with: it takes {}; the "
                   "CPU's takes {}, too (--device cpu)",
                   kernels::FindWeightTypeInfo(type)->name, names,
                   kernels::FindWeightTypeInfo(type)->name);
}

// To nearest, ties to even; too large becomes infinity.
uint16_t RoundTo(ActivationType type, float value) {
  if (type == ActivationType::kF16) return kernels::FloatToHalf(value);
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fff;  // NaN
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

Error OutOfRange(ActivationType type) {
  return {ErrorCode::kUnsupported,
          type == ActivationType::kF16
              ? "holds numbers beyond 65,504, the largest of binary16: keep activations in "
                "bfloat16 (--activations bf16)"
              : "holds numbers beyond the largest of bfloat16: take --device cpu"};
}

bool IsInfinite(ActivationType type, uint16_t bits) {
  return (bits & 0x7fffu) == (type == ActivationType::kF16 ? 0x7c00u : 0x7f80u);
}

}  // namespace

bool WeightUploader::WriteDense(WeightType type, const std::byte* source, int64_t rows,
                                int64_t cols, uint16_t* to) {
  const kernels::WeightTypeInfo& info = *kernels::FindWeightTypeInfo(type);
  const int64_t row_bytes = cols / info.block_elements * info.block_bytes;
  std::atomic<bool> fits = true;
  pool_.ParallelFor(rows, 16, [&](int64_t begin, int64_t end, int) {
    std::vector<float> row(static_cast<size_t>(cols));
    for (int64_t r = begin; r < end; ++r) {
      kernels::ref::DequantizeRow(type, source + r * row_bytes, cols, row.data());
      for (int64_t i = 0; i < cols; ++i) {
        const float value = row[static_cast<size_t>(i)];
        const uint16_t bits = RoundTo(activations_, value);
        if (IsInfinite(activations_, bits) && std::isfinite(value)) fits = false;
        to[r * cols + i] = bits;
      }
    }
  });
  return fits;
}

void WeightUploader::WriteGguf(const kernels::GgufMatrix& part, const std::byte* source,
                               uint8_t* to) {
  pool_.ParallelFor(part.row_tiles(), 4, [&](int64_t begin, int64_t end, int) {
    kernels::PackGgufTiles(part, source, begin, end, to);
  });
}

bool WeightUploader::WriteParts(const std::byte* source, int64_t count, uint16_t* high,
                                uint16_t* low) {
  const auto widen =
      activations_ == ActivationType::kF16 ? kernels::HalfToFloat : kernels::Bf16ToFloat;
  std::atomic<bool> fits = true;
  pool_.ParallelFor(count, 1 << 14, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      float value;
      std::memcpy(&value, source + i * 4, sizeof(value));
      high[i] = RoundTo(activations_, value);
      low[i] = RoundTo(activations_, value - widen(high[i]));
      if (IsInfinite(activations_, high[i]) && std::isfinite(value)) fits = false;
    }
  });
  return fits;
}

Result<WeightUploader::Stage*> WeightUploader::NextStage(size_t bytes) {
  Stage& stage = stages_[std::exchange(stage_, 1 - stage_)];
  QUERN_TRY(stage.copied.Synchronize("copying weights"));
  QUERN_TRY(stage.memory.Reserve(bytes, "pinned memory for weights"));
  return &stage;
}

Status WeightUploader::Copy(const Stage& stage, size_t from, size_t bytes, uint8_t* to) {
  return CudaStatus(cudaMemcpyAsync(to, stage.memory.as<uint8_t>() + from, bytes,
                                    cudaMemcpyHostToDevice, stream_.get()),
                    "copying weights");
}

Result<DeviceBuffer> WeightUploader::Upload(WeightType type, std::span<const std::byte> data,
                                            int64_t count, int64_t rows, int64_t cols,
                                            const Backend::PartTaken& taken) {
  QUERN_TRY(CheckType(type, rows, cols));
  const bool dense = kernels::IsFloatType(type);
  const int64_t row_bytes = std::ssize(data) / (count * rows);
  if (dense || rows % kernels::kGgufTileRows == 0) {  // they lie as one matrix does
    rows *= count;
    count = 1;
  }
  const auto device_bytes = [&](int64_t part) {
    return dense ? 2 * part * cols : kernels::GgufBytes({type, part, cols, nullptr});
  };
  DeviceBuffer memory;
  QUERN_TRY(memory.Allocate(static_cast<size_t>(count * device_bytes(rows)), stream_.get(),
                            "a weight matrix"));
  // Whole tiles of 32 rows.
  const int64_t part_rows = std::max<int64_t>(1, kPartBytes / (row_bytes * 32)) * 32;
  auto* to = memory.as<uint8_t>();
  for (int64_t end = 0, row = 0; row < count * rows;) {
    if (row == end) end += rows;  // of this matrix
    const int64_t part = std::min(part_rows, end - row);
    const auto bytes = static_cast<size_t>(device_bytes(part));
    QUERN_ASSIGN(Stage * stage, NextStage(bytes));
    const auto source =
        data.subspan(static_cast<size_t>(row * row_bytes), static_cast<size_t>(part * row_bytes));
    if (!dense) {
      WriteGguf({type, part, cols, nullptr}, source.data(), stage->memory.as<uint8_t>());
    } else if (!WriteDense(type, source.data(), part, cols, stage->memory.as<uint16_t>())) {
      return OutOfRange(activations_);
    }
    QUERN_TRY(Copy(*stage, 0, bytes, to));
    QUERN_TRY(stage->copied.Record(stream_.get(), CudaWait::kSleeps));
    taken(source);
    row += part;
    to += bytes;
  }
  return memory;
}

Result<std::unique_ptr<Matrix>> WeightUploader::LoadMatrix(WeightType type,
                                                           std::span<const std::byte> data,
                                                           int64_t rows, int64_t cols,
                                                           const Backend::PartTaken& taken) {
  QUERN_ASSIGN(DeviceBuffer memory, Upload(type, data, 1, rows, cols, taken));
  return std::unique_ptr<Matrix>(
      std::make_unique<CudaMatrix>(kernels::GgufMatrix{type, rows, cols, nullptr},
                                   kernels::IsFloatType(type), std::move(memory)));
}

Result<std::unique_ptr<ExpertMatrices>> WeightUploader::LoadExperts(
    WeightType type, std::span<const std::byte> data, int experts, int64_t rows, int64_t cols,
    const Backend::PartTaken& taken) {
  QUERN_ASSIGN(DeviceBuffer memory, Upload(type, data, experts, rows, cols, taken));
  return std::unique_ptr<ExpertMatrices>(
      std::make_unique<CudaExpertMatrices>(experts, kernels::GgufMatrix{type, rows, cols, nullptr},
                                           kernels::IsFloatType(type), std::move(memory)));
}

Result<std::unique_ptr<Matrix>> WeightUploader::LoadRouter(std::span<const std::byte> data,
                                                           int64_t experts, int64_t cols) {
  QUERN_TRY(CheckType(WeightType::kF32, experts, cols));
  const int64_t count = experts * cols;
  const auto bytes = static_cast<size_t>(2 * count);  // of either part
  DeviceBuffer memory;
  QUERN_TRY(memory.Allocate(2 * bytes, stream_.get(), "a router"));
  for (int64_t at = 0; at < count; at += kPartBytes / 4) {
    const int64_t part = std::min(kPartBytes / 4, count - at);
    const auto part_bytes = static_cast<size_t>(2 * part);
    QUERN_ASSIGN(Stage * stage, NextStage(2 * part_bytes));
    auto* high = stage->memory.as<uint16_t>();
    if (!WriteParts(data.data() + at * 4, part, high, high + part)) return OutOfRange(activations_);
    auto* to = memory.as<uint8_t>() + 2 * at;
    QUERN_TRY(Copy(*stage, 0, part_bytes, to));
    QUERN_TRY(Copy(*stage, part_bytes, part_bytes, to + bytes));
    QUERN_TRY(stage->copied.Record(stream_.get(), CudaWait::kSleeps));
  }
  return std::unique_ptr<Matrix>(std::make_unique<CudaRouter>(experts, cols, std::move(memory)));
}

Result<std::unique_ptr<Vector>> WeightUploader::LoadVector(std::span<const float> values) {
  const size_t bytes = values.size_bytes();
  DeviceBuffer memory;
  QUERN_TRY(memory.Allocate(bytes, stream_.get(), "a norm's weights"));
  QUERN_ASSIGN(Stage * stage, NextStage(bytes));
  std::memcpy(stage->memory.as<float>(), values.data(), bytes);
  QUERN_TRY(Copy(*stage, 0, bytes, memory.as<uint8_t>()));
  QUERN_TRY(stage->copied.Record(stream_.get(), CudaWait::kSleeps));
  return std::unique_ptr<Vector>(
      std::make_unique<CudaVector>(std::ssize(values), std::move(memory)));
}

}  // namespace quern
