#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>

#include "runtime/base/result.h"
#include "runtime/formats/file_signature.h"

namespace quern {

// Value types of GGUF metadata (gguf.md, `enum gguf_metadata_value_type`).
enum class GgufValueType : uint32_t {
  kUint8 = 0,
  kInt8 = 1,
  kUint16 = 2,
  kInt16 = 3,
  kUint32 = 4,
  kInt32 = 5,
  kFloat32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kUint64 = 10,
  kInt64 = 11,
  kFloat64 = 12,
};

// "u32", "string", ...; null where the number is no known type.
const char* GgufValueTypeName(GgufValueType type);
// Bytes of one value of a fixed-size type; 0 for strings and arrays.
uint64_t GgufScalarBytes(GgufValueType type);

// Reads little-endian fields from the front of a file, one after the other. No read leaves the
// bytes: one that would returns an error naming the field and its offset.
class FieldReader {
 public:
  static_assert(std::endian::native == std::endian::little, "fields are copied as they lie");

  explicit FieldReader(std::span<const std::byte> bytes, uint64_t offset = 0)
      : bytes_(bytes), offset_(offset) {}

  uint64_t offset() const { return offset_; }
  uint64_t remaining() const { return bytes_.size() - offset_; }
  uint64_t size() const { return bytes_.size(); }

  template <typename T>
  Result<T> Read(std::string_view what) {
    if (remaining() < sizeof(T)) return Truncated(what, sizeof(T));
    T value;
    std::memcpy(&value, bytes_.data() + offset_, sizeof(T));
    offset_ += sizeof(T);
    return value;
  }

  // A u64 length and that many bytes. The view points into the file.
  Result<std::string_view> ReadString(std::string_view what, uint64_t max_bytes = UINT64_MAX) {
    const uint64_t at = offset_;
    QUERN_ASSIGN(const uint64_t length, Read<uint64_t>(what));
    if (length > remaining()) {
      return MakeError(ErrorCode::kDataLoss,
                       "{} at byte {} says it is {} bytes long, but only {} are left in the file "
                       "(truncated or corrupt: fetch it again)",
                       what, at, length, remaining());
    }
    if (length > max_bytes) {
      return MakeError(ErrorCode::kDataLoss,
                       "{} at byte {} is {} bytes long: at most {} are allowed", what, at, length,
                       max_bytes);
    }
    const std::string_view text(reinterpret_cast<const char*>(bytes_.data()) + offset_, length);
    offset_ += length;
    return text;
  }

  Status Skip(uint64_t count, std::string_view what) {
    if (count > remaining()) return Truncated(what, count);
    offset_ += count;
    return {};
  }

 private:
  Error Truncated(std::string_view what, uint64_t needed) const {
    return MakeError(ErrorCode::kDataLoss,
                     "{} at byte {} needs {} bytes, but the file ends at byte {} "
                     "(truncated: fetch it again)",
                     what, offset_, needed, bytes_.size());
  }

  std::span<const std::byte> bytes_;
  uint64_t offset_;
};

}  // namespace quern
