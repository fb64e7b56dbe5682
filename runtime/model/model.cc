#include "runtime/model/model.h"

#include <algorithm>
#include <functional>
#include <map>

#include "runtime/distributed/communicator.h"
#include "runtime/formats/file_signature.h"
#include "runtime/model/decoder.h"

namespace quern {
namespace {

struct Family {
  const char* architecture;
  bool experts;  // whether its layers have them
  std::unique_ptr<Decoder> (*make)(Hyperparameters, std::unique_ptr<Backend>);
};
constexpr Family kFamilies[] = {{"llama", false, MakeLlama},
                                {"gemma3", false, MakeGemma3},
                                {"qwen3", false, MakeQwen3},
                                {"qwen3moe", true, MakeQwen3}};

Result<const Family*> FindFamily(const GgufFile& file) {
  QUERN_ASSIGN(const std::string_view architecture, file.RequireString("general.architecture"));
  std::string names;
  for (const Family& family : kFamilies) {
    if (architecture == family.architecture) return &family;
    names += names.empty() ? "" : ", ";
    names += family.architecture;
  }
  return MakeError(
      ErrorCode::kUnsupported,
      "architecture '{}' (metadata key general.architecture) is not supported; supported: "
      "{}",
      Printable(architecture), names);
}

// Experts where the family has none, Mixtral's among llama's files, would only be missed as
// tensors.
Status CheckExperts(const GgufFile& file, const Family& family) {
  const std::string key = fmt::format("{}.expert_count", family.architecture);
  const uint64_t experts = file.FindUint(key).value_or(0);
  if ((experts > 0) == family.experts) return {};
  if (family.experts) {
    return MakeError(ErrorCode::kDataLoss,
                     "metadata {} is missing or 0: expected the number of experts of a layer", key);
  }
  return MakeError(ErrorCode::kUnsupported,
                   "metadata {} is {}: architecture '{}' is not supported with experts", key,
                   experts, family.architecture);
}

std::vector<StoredWeights> WeightsByType(const GgufFile& file) {
  std::map<std::string, int64_t> bytes;
  for (const GgufTensor& tensor : file.tensors()) {
    const GgmlTypeInfo* info = FindGgmlTypeInfo(tensor.type);
    if (info != nullptr) bytes[info->name] += static_cast<int64_t>(tensor.data.size());
  }
  std::vector<StoredWeights> stored;
  for (const auto& [type, size] : bytes) stored.push_back({type, size});
  std::ranges::stable_sort(stored, std::greater(), &StoredWeights::bytes);
  return stored;
}

ModelInfo Describe(const GgufFile& file, const Hyperparameters& h, int64_t weight_bytes,
                   std::string compute) {
  ModelInfo info;
  info.architecture = h.architecture;
  const size_t slash = file.path().find_last_of('/');
  const auto file_name = std::string_view(file.path()).substr(slash + 1);  // npos + 1: all of it
  info.name = Printable(file.FindString("general.name").value_or(file_name), 256);
  info.stored = WeightsByType(file);
  if (!info.stored.empty()) info.quantization = info.stored.front().type;
  info.vocab_size = h.vocab_size;
  info.width = h.width;
  info.pooling = h.pooling;
  info.context_tokens = h.context_tokens;
  for (const GgufTensor& tensor : file.tensors()) {
    int64_t elements = 1;
    for (uint64_t dim : tensor.dims) elements *= static_cast<int64_t>(dim);
    info.parameters += elements;
  }
  info.weight_bytes = weight_bytes;
  info.compute = std::move(compute);
  return info;
}

Result<std::unique_ptr<Model>> LoadDecoder(const GgufFile& file, const ModelOptions& options,
                                           std::unique_ptr<Backend> backend) {
  QUERN_TRY(RequireWholeModel(file));
  QUERN_ASSIGN(const Family* family, FindFamily(file));
  QUERN_TRY(CheckExperts(file, *family));
  QUERN_ASSIGN(Hyperparameters h, ReadHyperparameters(file));
  WeightLoader loader(file, backend.get(), options.float32_weights);
  std::string compute = backend->Describe();
  std::unique_ptr<Decoder> decoder = family->make(h, std::move(backend));
  QUERN_TRY(decoder->LoadWeights(loader, options.group));
  QUERN_TRY(loader.CheckAllUsed());
  ModelInfo info = Describe(file, h, loader.resident_bytes(), std::move(compute));
  if (options.group != nullptr) {
    info.ranks = options.group->size();
    info.compute += fmt::format(", in each of {} processes", info.ranks);
  }
  decoder->set_info(std::move(info), options.kv_dtype);
  return std::unique_ptr<Model>(std::move(decoder));
}

}  // namespace

Result<KvDtype> ParseKvDtype(std::string_view name) {
  for (const KvDtype dtype : {KvDtype::kF16, KvDtype::kF32, KvDtype::kInt8, KvDtype::kInt4}) {
    if (name == KvDtypeName(dtype)) return dtype;
  }
  return MakeError(ErrorCode::kInvalidArgument,
                   "'{}' is no dtype of a KV cache: use f16, f32, int8 or int4", Printable(name));
}

Status RequireWholeModel(const GgufFile& file) {
  const uint64_t count = file.FindUint("split.count").value_or(1);
  if (count <= 1) return {};
  return MakeError(
      ErrorCode::kUnsupported,
      "this is file {} of a model that is split over {} files, which is not supported: "
      "join them with llama.cpp's 'llama-gguf-split --merge FIRST-FILE JOINED-FILE'",
      file.FindUint("split.no").value_or(0) + 1, count);
}

Result<std::unique_ptr<Model>> Model::Load(std::unique_ptr<GgufFile> file,
                                           const ModelOptions& options) {
  QUERN_ASSIGN(std::unique_ptr<Backend> backend, MakeCpuBackend(options.threads, options.group));
  return Load(std::move(file), options, std::move(backend));
}

Result<std::unique_ptr<Model>> Model::Load(std::unique_ptr<GgufFile> file,
                                           const ModelOptions& options,
                                           std::unique_ptr<Backend> backend) {
  auto model = LoadDecoder(*file, options, std::move(backend));
  if (!model) return std::move(model).error().Within(file->path());
  return model;
}

}  // namespace quern
