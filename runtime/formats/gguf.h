#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/result.h"

namespace quern {

// Storage types of tensors, with GGUF's numbers (ggml.h, `enum ggml_type`).
enum class GgmlType : uint32_t {
  kF32 = 0, kF16 = 1, kQ4_0 = 2, kQ4_1 = 3, kQ5_0 = 6, kQ5_1 = 7, kQ8_0 = 8, kQ8_1 = 9,
  kQ2_K = 10, kQ3_K = 11, kQ4_K = 12, kQ5_K = 13, kQ6_K = 14, kQ8_K = 15,
  kIQ2_XXS = 16, kIQ2_XS = 17, kIQ3_XXS = 18, kIQ1_S = 19, kIQ4_NL = 20, kIQ3_S = 21, kIQ2_S = 22,
  kIQ4_XS = 23, kI8 = 24, kI16 = 25, kI32 = 26, kI64 = 27, kF64 = 28, kIQ1_M = 29, kBF16 = 30,
  kTQ1_0 = 34, kTQ2_0 = 35, kMXFP4 = 39,
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
  // dims[0] is the row length (fastest varying, "ne0"); a weight of shape [out, in] has dims {in, out}.
  std::vector<uint64_t> dims;
  uint64_t file_offset;  // bytes from the start of the file
  std::span<const std::byte> data;
};

// A GGUF v3 (or v2) file, memory-mapped read-only; every field is checked against the file's size before it
// is used, so that no content of the file can make a later read leave it. Immutable, thread-safe.
// Spec: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
class GgufFile {
 public:
  // Errors: kNotFound (no file), kInvalidArgument (not GGUF), kDataLoss (truncated, overlapping, contradictory),
  // kUnsupported (version, big-endian, unknown tensor type); each with the offset in the file.
  static Result<std::unique_ptr<GgufFile>> Open(const std::string& path);
  // The same over bytes in memory that outlive the object (tests, fuzzing).
  static Result<std::unique_ptr<GgufFile>> Parse(std::span<const std::byte> bytes, std::string name);

  virtual ~GgufFile() = default;

  virtual const std::string& path() const = 0;
  virtual uint64_t size_bytes() const = 0;
  virtual std::span<const GgufTensor> tensors() const = 0;
  virtual const GgufTensor* FindTensor(std::string_view name) const = 0;  // null if absent

  // Metadata. nullopt when the key is absent; kInvalidArgument-style errors for a wrong type come from Require*.
  virtual bool Has(std::string_view key) const = 0;
  virtual std::optional<std::string_view> FindString(std::string_view key) const = 0;
  virtual std::optional<uint64_t> FindUint(std::string_view key) const = 0;  // any integer type that is not negative
  virtual std::optional<double> FindFloat(std::string_view key) const = 0;   // f32 or f64
  virtual std::optional<bool> FindBool(std::string_view key) const = 0;
  virtual std::optional<std::vector<std::string_view>> FindStringArray(std::string_view key) const = 0;
  virtual std::optional<std::vector<int64_t>> FindIntArray(std::string_view key) const = 0;  // also of bools
  virtual std::optional<std::vector<float>> FindFloatArray(std::string_view key) const = 0;
  virtual std::vector<std::string_view> Keys() const = 0;

  // The error says which key is missing or mistyped, and what type was wanted.
  Result<std::string_view> RequireString(std::string_view key) const;
  Result<uint64_t> RequireUint(std::string_view key) const;
  Result<double> RequireFloat(std::string_view key) const;

  // Lets the kernel drop the mapped pages of [data.begin, data.end): for weights that have been repacked.
  virtual void ReleasePages(std::span<const std::byte> data) const = 0;
};

}  // namespace quern
