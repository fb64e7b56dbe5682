#include "runtime/model/weight_loader.h"

#include <algorithm>

#include "runtime/base/cgroup.h"
#include "runtime/formats/file_signature.h"

namespace quern {
namespace {

// The kernels' types have GGUF's numbers.
kernels::WeightType KernelType(GgmlType type) {
  return static_cast<kernels::WeightType>(static_cast<uint32_t>(type));
}

std::string SupportedTypes() {
  std::string names;
  for (kernels::WeightType type : kernels::kAllWeightTypes) {
    if (!names.empty()) names += ", ";
    names += kernels::FindWeightTypeInfo(type)->name;
  }
  return names;
}

std::string DimsText(const std::vector<uint64_t>& dims) {
  std::string text;
  for (uint64_t dim : dims) text += (text.empty() ? "" : " x ") + std::to_string(dim);
  return text;
}

// The system would give the memory now and kill the process when it is used.
Status CheckRoomToExpand(int64_t elements) {
  constexpr double kMiB = 1024.0 * 1024.0;
  const double wanted = 2.0 * sizeof(float) * static_cast<double>(elements);
  const double left = static_cast<double>(MemoryLimitBytes() - ProcessMemoryUse().resident_bytes);
  if (wanted <= left) return {};
  return MakeError(
      ErrorCode::kResourceExhausted,
      "expanding to float32 takes {:.1f} MiB, half of them for a while only, but {:.1f} "
      "MiB are left of this process's memory limit: raise the limit",
      wanted / kMiB, std::max(0.0, left) / kMiB);
}

}  // namespace

Result<const GgufTensor*> WeightLoader::Find(const std::string& name, std::vector<uint64_t> dims) {
  const GgufTensor* tensor = file_.FindTensor(name);
  if (tensor == nullptr) {
    return MakeError(ErrorCode::kDataLoss, "tensor {} is missing (expected {})", name,
                     DimsText(dims));
  }
  if (tensor->dims != dims) {
    return MakeError(ErrorCode::kDataLoss, "tensor {} is {}: expected {}", name,
                     DimsText(tensor->dims), DimsText(dims));
  }
  const kernels::WeightTypeInfo* info = kernels::FindWeightTypeInfo(KernelType(tensor->type));
  if (info == nullptr) {
    const GgmlTypeInfo* known = FindGgmlTypeInfo(tensor->type);
    return MakeError(
        ErrorCode::kUnsupported,
        "tensor {} (at byte {}) is stored as {}, which is not supported; supported: {}", name,
        tensor->file_offset, known != nullptr ? known->name : "an unknown type", SupportedTypes());
  }
  // The file reader has checked sizes against its own table; a kernel must not rely on that table
  // being the same.
  uint64_t elements = 1;
  for (uint64_t dim : dims) elements *= dim;
  const auto block = static_cast<uint64_t>(info->block_elements);
  if (dims[0] % block != 0 ||
      tensor->data.size() != elements / block * static_cast<uint64_t>(info->block_bytes)) {
    return MakeError(ErrorCode::kDataLoss,
                     "tensor {}: rows of {} elements are not whole {} blocks of {}", name, dims[0],
                     info->name, block);
  }
  used_.insert(name);
  return tensor;
}

Result<std::unique_ptr<Matrix>> WeightLoader::Take(const GgufTensor& tensor, int64_t rows,
                                                   int64_t cols) {
  const kernels::WeightType type = KernelType(tensor.type);
  if (float32_ && !kernels::IsFloatType(type)) {
    QUERN_TRY(CheckRoomToExpand(rows * cols));
    const std::vector<float> expanded = Dequantize(type, tensor.data, rows * cols);
    return backend_->LoadMatrix(kernels::WeightType::kF32, std::as_bytes(std::span(expanded)), rows,
                                cols, [](std::span<const std::byte>) {});
  }
  return backend_->LoadMatrix(
      type, tensor.data, rows, cols,
      [this](std::span<const std::byte> part) { file_.ReleasePages(part); });
}

Result<std::unique_ptr<Matrix>> WeightLoader::LoadMatrix(const std::string& name, int64_t rows,
                                                         int64_t cols) {
  QUERN_ASSIGN(const GgufTensor* tensor,
               Find(name, {static_cast<uint64_t>(cols), static_cast<uint64_t>(rows)}));
  auto matrix = Take(*tensor, rows, cols);
  if (!matrix) return std::move(matrix).error().Within("tensor " + name);
  file_.ReleasePages(tensor->data);
  resident_bytes_ += (*matrix)->bytes();
  return matrix;
}

Result<std::vector<float>> WeightLoader::ReadVector(const std::string& name, int64_t size) {
  QUERN_ASSIGN(const GgufTensor* tensor, Find(name, {static_cast<uint64_t>(size)}));
  return Dequantize(KernelType(tensor->type), tensor->data, size);
}

Result<std::unique_ptr<Vector>> WeightLoader::LoadVector(const std::string& name, int64_t size) {
  QUERN_ASSIGN(const std::vector<float> values, ReadVector(name, size));
  auto vector = backend_->LoadVector(values);
  if (!vector) return std::move(vector).error().Within("tensor " + name);
  resident_bytes_ += size * static_cast<int64_t>(sizeof(float));
  return vector;
}

Status WeightLoader::CheckAllUsed() const {
  for (const GgufTensor& tensor : file_.tensors()) {
    if (used_.contains(tensor.name)) continue;
    return MakeError(ErrorCode::kUnsupported,
                     "tensor {} is not part of this architecture as this build knows it: leaving "
                     "it out would give wrong answers",
                     Printable(tensor.name));
  }
  return {};
}

}  // namespace quern
