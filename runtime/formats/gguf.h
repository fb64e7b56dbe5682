#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "runtime/base/result.h"

namespace quern {

class MappedFile;
enum class GgufValueType : uint32_t;  // gguf_fields.h

// Storage types of tensors, with GGUF's numbers (ggml.h, `enum ggml_type`).
enum class GgmlType : uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ5_0 = 6,
  kQ5_1 = 7,
  kQ8_0 = 8,
  kQ8_1 = 9,
  kQ2_K = 10,
  kQ3_K = 11,
  kQ4_K = 12,
  kQ5_K = 13,
  kQ6_K = 14,
  kQ8_K = 15,
  kIQ2_XXS = 16,
  kIQ2_XS = 17,
  kIQ3_XXS = 18,
  kIQ1_S = 19,
  kIQ4_NL = 20,
  kIQ3_S = 21,
  kIQ2_S = 22,
  kIQ4_XS = 23,
  kI8 = 24,
  kI16 = 25,
  kI32 = 26,
  kI64 = 27,
  kF64 = 28,
  kIQ1_M = 29,
  kBF16 = 30,
  kTQ1_0 = 34,
  kTQ2_0 = 35,
  kMXFP4 = 39,
};

struct GgmlTypeInfo {
  const char* name;    // "Q4_K"
  int block_elements;  // elements in one block
  int block_bytes;     // bytes of one block
};

// Null where the number is no known type.
const GgmlTypeInfo* FindGgmlTypeInfo(GgmlType type);

// One tensor of a file. `data` points into the mapping and lives as long as the GgufFile.
struct GgufTensor {
  std::string_view name;
  GgmlType type;
  // dims[0] is the row length (fastest varying, "ne0"); a weight of shape [out, in] has dims {in,
  // out}.
  std::vector<uint64_t> dims;
  uint64_t file_offset;  // bytes from the start of the file
  std::span<const std::byte> data;
};

// A GGUF v3 (or v2) file, memory-mapped read-only; every field is checked against the file's size
// before it is used, so that no content of the file can make a later read leave it. Immutable,
// thread-safe. Spec: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
class GgufFile {
 public:
  // Errors: kNotFound (no file), kInvalidArgument (not GGUF), kDataLoss (truncated, overlapping,
  // contradictory), kUnsupported (version, big-endian, unknown tensor type); each with the offset
  // in the file.
  static Result<std::unique_ptr<GgufFile>> Open(const std::string& path);
  // The same over bytes in memory that outlive the object (tests, fuzzing).
  static Result<std::unique_ptr<GgufFile>> Parse(std::span<const std::byte> bytes,
                                                 std::string name);

  ~GgufFile();
  GgufFile(const GgufFile&) = delete;
  GgufFile& operator=(const GgufFile&) = delete;

  const std::string& path() const { return path_; }
  uint64_t size_bytes() const { return bytes_.size(); }
  uint32_t version() const { return version_; }
  std::span<const GgufTensor> tensors() const { return tensors_; }  // in the file's order
  const GgufTensor* FindTensor(std::string_view name) const;        // null if absent

  // Metadata. nullopt when the key is absent or of another type; Require* tell the two apart.
  bool Has(std::string_view key) const;
  std::optional<std::string_view> FindString(std::string_view key) const;
  std::optional<uint64_t> FindUint(
      std::string_view key) const;  // any integer type that is not negative
  std::optional<double> FindFloat(std::string_view key) const;  // f32 or f64
  std::optional<bool> FindBool(std::string_view key) const;
  std::optional<std::vector<std::string_view>> FindStringArray(std::string_view key) const;
  // Also of bools. nullopt, too, for more than `max_count` values: what is returned takes eight
  // times the memory that small integers take in the file.
  std::optional<std::vector<int64_t>> FindIntArray(std::string_view key, uint64_t max_count) const;
  std::optional<std::vector<float>> FindFloatArray(std::string_view key) const;  // f32 or f64
  std::vector<std::string_view> Keys() const;  // in the file's order

  // kInvalidArgument: says which key is missing or mistyped, and what type was wanted.
  Result<std::string_view> RequireString(std::string_view key) const;
  Result<uint64_t> RequireUint(std::string_view key) const;
  Result<double> RequireFloat(std::string_view key) const;

  // Lets the kernel drop the mapped pages of `data` (whole pages inside it): for weights that have
  // been repacked. Reading them again stays allowed. Nothing happens to a file that came from
  // Parse().
  void ReleasePages(std::span<const std::byte> data) const;

 private:
  friend class GgufParser;

  // A metadata value where it lies in the file. For an array `type` is that of its elements.
  struct Value {
    std::string_view key;
    GgufValueType type;
    bool is_array;
    uint64_t count;        // elements; 1 for a scalar
    uint64_t begin;        // offset of the first value's bytes
    uint64_t type_offset;  // where the type is written, for messages
  };

  GgufFile();
  const Value* FindValue(std::string_view key) const;
  Error WrongType(std::string_view key, std::string_view wanted) const;

  std::string path_;
  std::unique_ptr<MappedFile> mapping_;  // null after Parse()
  std::span<const std::byte> bytes_;
  uint32_t version_ = 0;
  std::vector<Value> values_;
  std::vector<GgufTensor> tensors_;
  // Views into the file.
  std::unordered_map<std::string_view, size_t> value_index_;
  std::unordered_map<std::string_view, size_t> tensor_index_;
};

}  // namespace quern
