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

Result<std::unique_ptr<Matrix>> WeightUploader::LoadMatrix(WeightType type,
                                                           std::span<const std::byte> data,
                                                           int64_t rows, int64_t cols,
                                                           const Backend::PartTaken& taken) {
  QUERN_TRY(CheckType(type, rows, cols));
  const bool dense = kernels::IsFloatType(type);
  const auto device_bytes = [&](int64_t count) {
    return dense ? 2 * count * cols : kernels::GgufBytes({type, count, cols, nullptr});
  };
  DeviceBuffer memory;
  QUERN_TRY(
      memory.Allocate(static_cast<size_t>(device_bytes(rows)), stream_.get(), "a weight matrix"));
  const int64_t row_bytes = static_cast<int64_t>(data.size()) / rows;
  // Whole tiles of 32 rows.
  const int64_t part_rows = std::max<int64_t>(1, kPartBytes / (row_bytes * 32)) * 32;
  int64_t to = 0;
  for (int64_t first = 0, part = 0; first < rows; first += part_rows, ++part) {
    const int64_t count = std::min(part_rows, rows - first);
    const auto bytes = static_cast<size_t>(device_bytes(count));
    Stage& stage = stages_[part % 2];
    QUERN_TRY(stage.copied.Synchronize("copying weights"));
    QUERN_TRY(stage.memory.Reserve(bytes, "pinned memory for weights"));
    const std::byte* source = data.data() + first * row_bytes;
    if (!dense) {
      WriteGguf({type, count, cols, nullptr}, source, stage.memory.as<uint8_t>());
    } else if (!WriteDense(type, source, count, cols, stage.memory.as<uint16_t>())) {
      return MakeError(ErrorCode::kUnsupported,
                       "holds numbers beyond 65,504, the largest of binary16: keep activations in "
                       "bfloat16 (--activations bf16)");
    }
    QUERN_TRY(CudaStatus(cudaMemcpyAsync(memory.as<uint8_t>() + to, stage.memory.as<uint8_t>(),
                                         bytes, cudaMemcpyHostToDevice, stream_.get()),
                         "copying weights"));
    QUERN_TRY(stage.copied.Record(stream_.get()));
    taken(data.subspan(static_cast<size_t>(first * row_bytes),
                       static_cast<size_t>(count * row_bytes)));
    to += static_cast<int64_t>(bytes);
  }
  return std::unique_ptr<Matrix>(std::make_unique<CudaMatrix>(
      kernels::GgufMatrix{type, rows, cols, nullptr}, dense, std::move(memory)));
}

Result<std::unique_ptr<Vector>> WeightUploader::LoadVector(std::span<const float> values) {
  DeviceBuffer memory;
  QUERN_TRY(memory.Allocate(values.size_bytes(), stream_.get(), "a norm's weights"));
  Stage& stage = stages_[0];
  QUERN_TRY(stage.copied.Synchronize("copying weights"));
  QUERN_TRY(stage.memory.Reserve(values.size_bytes(), "pinned memory for weights"));
  std::memcpy(stage.memory.as<float>(), values.data(), values.size_bytes());
  QUERN_TRY(CudaStatus(cudaMemcpyAsync(memory.as<float>(), stage.memory.as<float>(),
                                       values.size_bytes(), cudaMemcpyHostToDevice, stream_.get()),
                       "copying weights"));
  QUERN_TRY(stage.copied.Record(stream_.get()));
  return std::unique_ptr<Vector>(
      std::make_unique<CudaVector>(std::ssize(values), std::move(memory)));
}

}  // namespace quern
