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

Status CheckColumns(const Part& cols, const kernels::WeightTypeInfo& info) {
  const int64_t block = info.block_elements;
  if (cols.begin % block == 0 && cols.size % block == 0) return {};
  return MakeError(ErrorCode::kUnsupported,
                   "columns {} to {} of {} cannot be split off: the weights are stored as {}, in "
                   "blocks of {} columns, and a part must begin and end with one",
                   cols.begin, cols.end(), cols.whole, info.name, block);
}

// Of each of the matrices in `data`, the bytes `cols` of the rows `rows`.
std::vector<std::byte> Gather(std::span<const std::byte> data, int64_t matrices, const Part& rows,
                              const Part& cols) {
  std::vector<std::byte> gathered;
  gathered.reserve(static_cast<size_t>(matrices * rows.size * cols.size));
  for (int64_t matrix = 0; matrix < matrices; ++matrix) {
    for (int64_t row = rows.begin; row < rows.end(); ++row) {
      const int64_t at = (matrix * rows.whole + row) * cols.whole + cols.begin;
      const auto part = data.subspan(static_cast<size_t>(at), static_cast<size_t>(cols.size));
      gathered.insert(gathered.end(), part.begin(), part.end());
    }
  }
  return gathered;
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
  for (uint64_t dim : dims) elements *= dim;  // at most 2^24 x 2^24 x kMaxRoutedExperts
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

int64_t WeightLoader::BlockOf(std::string_view name_end) const {
  int64_t most = 1;
  for (const GgufTensor& tensor : file_.tensors()) {
    const kernels::WeightTypeInfo* info = kernels::FindWeightTypeInfo(KernelType(tensor.type));
    if (info == nullptr || !tensor.name.ends_with(name_end)) continue;
    most = std::max<int64_t>(most, info->block_elements);
  }
  return most;
}

bool WeightLoader::Expands(const GgufTensor& tensor) const {
  return float32_ && !kernels::IsFloatType(KernelType(tensor.type));
}

template <typename Loaded, typename Load>
Result<std::unique_ptr<Loaded>> WeightLoader::Take(const GgufTensor& tensor, bool expand,
                                                   int64_t matrices, const Part& rows,
                                                   const Part& cols, const Load& load) {
  const auto take = [&]() -> Result<std::unique_ptr<Loaded>> {
    const kernels::WeightType type = KernelType(tensor.type);
    const kernels::WeightTypeInfo& info = *kernels::FindWeightTypeInfo(type);
    QUERN_TRY(CheckColumns(cols, info));
    const auto bytes = [&](int64_t columns) {
      return columns / info.block_elements * info.block_bytes;
    };
    const Part row_bytes(bytes(cols.begin), bytes(cols.size), bytes(cols.whole));
    std::span<const std::byte> data = tensor.data;
    std::vector<std::byte> gathered;
    if (cols.size < cols.whole || (matrices > 1 && rows.size < rows.whole)) {
      gathered = Gather(data, matrices, rows, row_bytes);
      data = gathered;
      file_.ReleasePages(tensor.data);  // so that it is not there twice
    } else if (rows.size < rows.whole) {
      data = data.subspan(static_cast<size_t>(rows.begin * row_bytes.whole),
                          static_cast<size_t>(rows.size * row_bytes.whole));
    }
    if (!expand || type == kernels::WeightType::kF32) {
      return load(type, data, [&](std::span<const std::byte> part) {
        if (gathered.empty()) file_.ReleasePages(part);
      });
    }
    const int64_t elements = matrices * rows.size * cols.size;
    QUERN_TRY(CheckRoomToExpand(elements));
    const std::vector<float> expanded = Dequantize(type, data, elements);
    return load(kernels::WeightType::kF32, std::as_bytes(std::span(expanded)),
                [](std::span<const std::byte>) {});
  };
  auto taken = take();
  if (!taken) return std::move(taken).error().Within(fmt::format("tensor {}", tensor.name));
  file_.ReleasePages(tensor.data);
  resident_bytes_ += (*taken)->bytes();
  return taken;
}

Result<std::unique_ptr<Matrix>> WeightLoader::LoadMatrix(const std::string& name, const Part& rows,
                                                         const Part& cols) {
  QUERN_ASSIGN(const GgufTensor* tensor,
               Find(name, {static_cast<uint64_t>(cols.whole), static_cast<uint64_t>(rows.whole)}));
  return Take<Matrix>(*tensor, Expands(*tensor), 1, rows, cols,
                      [&](auto type, auto data, const auto& taken) {
                        return backend_->LoadMatrix(type, data, rows.size, cols.size, taken);
                      });
}

Result<std::unique_ptr<Matrix>> WeightLoader::LoadHead(const std::string& name, const Part& rows,
                                                       const Part& cols) {
  QUERN_ASSIGN(const GgufTensor* tensor,
               Find(name, {static_cast<uint64_t>(cols.whole), static_cast<uint64_t>(rows.whole)}));
  return Take<Matrix>(*tensor, Expands(*tensor), 1, rows, cols,
                      [&](auto type, auto data, const auto& taken) {
                        return backend_->LoadHead(type, data, rows.size, cols.size, taken);
                      });
}

Result<std::unique_ptr<Matrix>> WeightLoader::LoadRouter(const std::string& name, int64_t experts,
                                                         int64_t cols) {
  QUERN_ASSIGN(const GgufTensor* tensor,
               Find(name, {static_cast<uint64_t>(cols), static_cast<uint64_t>(experts)}));
  return Take<Matrix>(*tensor, true, 1, experts, cols, [&](auto, auto data, const auto&) {
    return backend_->LoadRouter(data, experts, cols);
  });
}

Result<std::unique_ptr<ExpertMatrices>> WeightLoader::LoadExperts(const std::string& name,
                                                                  int experts, const Part& rows,
                                                                  const Part& cols) {
  QUERN_ASSIGN(const GgufTensor* tensor,
               Find(name, {static_cast<uint64_t>(cols.whole), static_cast<uint64_t>(rows.whole),
                           static_cast<uint64_t>(experts)}));
  return Take<ExpertMatrices>(
      *tensor, Expands(*tensor), experts, rows, cols, [&](auto type, auto data, const auto& taken) {
        return backend_->LoadExperts(type, data, experts, rows.size, cols.size, taken);
      });
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
