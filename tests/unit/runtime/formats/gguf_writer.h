#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "runtime/formats/gguf.h"
#include "runtime/formats/gguf_fields.h"

namespace quern::testing {

// Builds the bytes of a GGUF file, right ones and (by hand, with the append functions) wrong ones.
// Written against the specification and not with the reader's code, so that the two check each
// other.
class GgufWriter {
 public:
  explicit GgufWriter(uint32_t version = 3) : version_(version) {}

  template <typename T>
  GgufWriter& Scalar(std::string_view key, GgufValueType type, T value) {
    BeginKey(key, type);
    Append(metadata_, value);
    return *this;
  }
  GgufWriter& Uint(std::string_view key, uint32_t value) {
    return Scalar(key, GgufValueType::kUint32, value);
  }
  GgufWriter& Float(std::string_view key, float value) {
    return Scalar(key, GgufValueType::kFloat32, value);
  }
  GgufWriter& Bool(std::string_view key, bool value) {
    return Scalar(key, GgufValueType::kBool, static_cast<uint8_t>(value));
  }
  GgufWriter& String(std::string_view key, std::string_view value) {
    BeginKey(key, GgufValueType::kString);
    AppendString(metadata_, value);
    return *this;
  }
  template <typename T>
  GgufWriter& Array(std::string_view key, GgufValueType element, const std::vector<T>& values) {
    BeginKey(key, GgufValueType::kArray);
    Append(metadata_, static_cast<uint32_t>(element));
    Append(metadata_, static_cast<uint64_t>(values.size()));
    for (const T& value : values) {
      if constexpr (std::is_convertible_v<T, std::string_view>) {
        AppendString(metadata_, value);
      } else {
        Append(metadata_, value);
      }
    }
    return *this;
  }
  GgufWriter& Strings(std::string_view key, const std::vector<std::string>& values) {
    return Array(key, GgufValueType::kString, values);
  }
  GgufWriter& Ints(std::string_view key, const std::vector<int32_t>& values) {
    return Array(key, GgufValueType::kInt32, values);
  }
  GgufWriter& Floats(std::string_view key, const std::vector<float>& values) {
    return Array(key, GgufValueType::kFloat32, values);
  }

  // A tensor with its data laid after those before it; `offset` overrides where the table says it
  // is.
  GgufWriter& Tensor(std::string_view name, std::vector<uint64_t> dims, uint32_t type,
                     const std::vector<uint8_t>& data, int64_t offset = -1) {
    while (data_.size() % alignment_ != 0) data_.push_back(0);
    AppendString(table_, name);
    Append(table_, static_cast<uint32_t>(dims.size()));
    for (const uint64_t dim : dims) Append(table_, dim);
    Append(table_, type);
    Append(table_,
           offset < 0 ? static_cast<uint64_t>(data_.size()) : static_cast<uint64_t>(offset));
    data_.insert(data_.end(), data.begin(), data.end());
    ++tensors_;
    return *this;
  }
  // Of the data section; writes no key.
  GgufWriter& Alignment(uint64_t bytes) {
    alignment_ = bytes;
    return *this;
  }
  // Overrides the counts in the header.
  GgufWriter& Counts(uint64_t tensors, uint64_t keys) {
    tensors_ = tensors;
    keys_ = keys;
    return *this;
  }

  std::vector<uint8_t> Bytes() const {
    std::vector<uint8_t> out = {'G', 'G', 'U', 'F'};
    Append(out, version_);
    Append(out, tensors_);
    Append(out, keys_);
    out.insert(out.end(), metadata_.begin(), metadata_.end());
    out.insert(out.end(), table_.begin(), table_.end());
    if (!data_.empty()) {
      while (out.size() % alignment_ != 0) out.push_back(0);
      out.insert(out.end(), data_.begin(), data_.end());
    }
    return out;
  }

  template <typename T>
  static void Append(std::vector<uint8_t>& out, T value) {
    const auto* bytes = reinterpret_cast<const uint8_t*>(&value);
    out.insert(out.end(), bytes, bytes + sizeof(T));
  }
  static void AppendString(std::vector<uint8_t>& out, std::string_view text) {
    Append(out, static_cast<uint64_t>(text.size()));
    out.insert(out.end(), text.begin(), text.end());
  }

 private:
  void BeginKey(std::string_view key, GgufValueType type) {
    AppendString(metadata_, key);
    Append(metadata_, static_cast<uint32_t>(type));
    ++keys_;
  }

  uint32_t version_;
  uint64_t tensors_ = 0;
  uint64_t keys_ = 0;
  uint64_t alignment_ = 32;
  std::vector<uint8_t> metadata_, table_, data_;
};

inline std::span<const std::byte> AsBytes(const std::vector<uint8_t>& bytes) {
  return std::as_bytes(std::span(bytes));
}

}  // namespace quern::testing
