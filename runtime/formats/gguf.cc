#include "runtime/formats/gguf.h"

#include <cstring>

#include "runtime/formats/gguf_fields.h"
#include "runtime/formats/mapped_file.h"

namespace quern {
namespace {

template <typename T>
T Load(std::span<const std::byte> bytes, uint64_t offset) {
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof(T));  // the format does not align metadata
  return value;
}

// The integer at `offset`, or nullopt if `type` is none or it does not fit.
std::optional<int64_t> LoadInt(std::span<const std::byte> bytes, GgufValueType type,
                               uint64_t offset) {
  switch (type) {
    case GgufValueType::kBool:
    case GgufValueType::kUint8:
      return Load<uint8_t>(bytes, offset);
    case GgufValueType::kInt8:
      return Load<int8_t>(bytes, offset);
    case GgufValueType::kUint16:
      return Load<uint16_t>(bytes, offset);
    case GgufValueType::kInt16:
      return Load<int16_t>(bytes, offset);
    case GgufValueType::kUint32:
      return Load<uint32_t>(bytes, offset);
    case GgufValueType::kInt32:
      return Load<int32_t>(bytes, offset);
    case GgufValueType::kInt64:
      return Load<int64_t>(bytes, offset);
    case GgufValueType::kUint64: {
      const auto value = Load<uint64_t>(bytes, offset);
      if (value > INT64_MAX) return std::nullopt;
      return static_cast<int64_t>(value);
    }
    default:
      return std::nullopt;
  }
}

}  // namespace

GgufFile::GgufFile() = default;
GgufFile::~GgufFile() = default;

const GgufTensor* GgufFile::FindTensor(std::string_view name) const {
  const auto found = tensor_index_.find(name);
  return found == tensor_index_.end() ? nullptr : &tensors_[found->second];
}

const GgufFile::Value* GgufFile::FindValue(std::string_view key) const {
  const auto found = value_index_.find(key);
  return found == value_index_.end() ? nullptr : &values_[found->second];
}

bool GgufFile::Has(std::string_view key) const { return FindValue(key) != nullptr; }

std::optional<std::string_view> GgufFile::FindString(std::string_view key) const {
  const Value* value = FindValue(key);
  if (!value || value->is_array || value->type != GgufValueType::kString) return std::nullopt;
  const auto length = Load<uint64_t>(bytes_, value->begin);
  return std::string_view(reinterpret_cast<const char*>(bytes_.data()) + value->begin + 8, length);
}

std::optional<uint64_t> GgufFile::FindUint(std::string_view key) const {
  const Value* value = FindValue(key);
  if (!value || value->is_array || value->type == GgufValueType::kBool) return std::nullopt;
  if (value->type == GgufValueType::kUint64) return Load<uint64_t>(bytes_, value->begin);
  const auto integer = LoadInt(bytes_, value->type, value->begin);
  if (!integer || *integer < 0) return std::nullopt;
  return static_cast<uint64_t>(*integer);
}

std::optional<double> GgufFile::FindFloat(std::string_view key) const {
  const Value* value = FindValue(key);
  if (!value || value->is_array) return std::nullopt;
  if (value->type == GgufValueType::kFloat32) return Load<float>(bytes_, value->begin);
  if (value->type == GgufValueType::kFloat64) return Load<double>(bytes_, value->begin);
  return std::nullopt;
}

std::optional<bool> GgufFile::FindBool(std::string_view key) const {
  const Value* value = FindValue(key);
  if (!value || value->is_array || value->type != GgufValueType::kBool) return std::nullopt;
  return Load<uint8_t>(bytes_, value->begin) != 0;
}

std::optional<std::vector<std::string_view>> GgufFile::FindStringArray(std::string_view key) const {
  const Value* value = FindValue(key);
  if (!value || !value->is_array || value->type != GgufValueType::kString) return std::nullopt;
  std::vector<std::string_view> out;
  out.reserve(value->count);
  uint64_t offset = value->begin;
  for (uint64_t i = 0; i < value->count; ++i) {  // lengths were checked when the file was read
    const auto length = Load<uint64_t>(bytes_, offset);
    out.emplace_back(reinterpret_cast<const char*>(bytes_.data()) + offset + 8, length);
    offset += 8 + length;
  }
  return out;
}

std::optional<std::vector<int64_t>> GgufFile::FindIntArray(std::string_view key,
                                                           uint64_t max_count) const {
  const Value* value = FindValue(key);
  if (!value || !value->is_array || value->count > max_count) return std::nullopt;
  const uint64_t width = GgufScalarBytes(value->type);
  if (width == 0) return std::nullopt;
  std::vector<int64_t> out;
  out.reserve(value->count);
  for (uint64_t i = 0; i < value->count; ++i) {
    const auto integer = LoadInt(bytes_, value->type, value->begin + i * width);
    if (!integer) return std::nullopt;
    out.push_back(*integer);
  }
  return out;
}

std::optional<std::vector<float>> GgufFile::FindFloatArray(std::string_view key) const {
  const Value* value = FindValue(key);
  if (!value || !value->is_array) return std::nullopt;
  const bool is_double = value->type == GgufValueType::kFloat64;
  if (!is_double && value->type != GgufValueType::kFloat32) return std::nullopt;
  std::vector<float> out;
  out.reserve(value->count);
  for (uint64_t i = 0; i < value->count; ++i) {
    out.push_back(is_double ? static_cast<float>(Load<double>(bytes_, value->begin + i * 8))
                            : Load<float>(bytes_, value->begin + i * 4));
  }
  return out;
}

std::vector<std::string_view> GgufFile::Keys() const {
  std::vector<std::string_view> keys;
  keys.reserve(values_.size());
  for (const Value& value : values_) keys.push_back(value.key);
  return keys;
}

Error GgufFile::WrongType(std::string_view key, std::string_view wanted) const {
  const Value* value = FindValue(key);
  if (!value) {
    return MakeError(ErrorCode::kInvalidArgument, "{}: metadata key '{}' is missing: {} is needed",
                     path_, key, wanted);
  }
  return MakeError(ErrorCode::kInvalidArgument,
                   "{}: metadata key '{}' at byte {} is {}{}: {} is needed", path_, key,
                   value->type_offset, value->is_array ? "an array of " : "of type ",
                   GgufValueTypeName(value->type), wanted);
}

Result<std::string_view> GgufFile::RequireString(std::string_view key) const {
  if (auto value = FindString(key)) return *value;
  return WrongType(key, "a string");
}

Result<uint64_t> GgufFile::RequireUint(std::string_view key) const {
  if (auto value = FindUint(key)) return *value;
  return WrongType(key, "an integer that is not negative");
}

Result<double> GgufFile::RequireFloat(std::string_view key) const {
  if (auto value = FindFloat(key)) return *value;
  return WrongType(key, "a float (f32 or f64)");
}

void GgufFile::ReleasePages(std::span<const std::byte> data) const {
  if (mapping_) mapping_->ReleasePages(data);
}

}  // namespace quern
