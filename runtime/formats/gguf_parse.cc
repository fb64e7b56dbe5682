// Reads a GGUF file's header, metadata and tensor table:
// https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
//
//   magic "GGUF" | u32 version | u64 tensors | u64 keys | keys * (name, type, value)
//   | tensors * (name, u32 dims, u64 dim[], u32 type, u64 offset) | padding | tensor data
//
// Offsets of tensors count from the start of the tensor data, and are multiples of
// `general.alignment`.

#include <algorithm>
#include <bit>
#include <limits>

#include "runtime/formats/gguf.h"
#include "runtime/formats/gguf_fields.h"
#include "runtime/formats/mapped_file.h"

namespace quern {
namespace {

// Far above any real model; each is also checked against the bytes that are left.
constexpr uint64_t kMaxKeys = 1 << 16;
constexpr uint64_t kMaxTensors = 1 << 20;
constexpr uint64_t kMaxKeyBytes = 65535;  // gguf.md
constexpr uint64_t kMaxTensorNameBytes = 255;
constexpr uint32_t kMaxDims = 4;
constexpr uint64_t kMaxAlignment = 1 << 20;
constexpr int kMaxArrayDepth = 4;

constexpr uint64_t kMinKeyBytes = 8 + 1 + 4 + 1;  // length, one character, type, one byte
constexpr uint64_t kMinTensorBytes =
    8 + 1 + 4 + 8 + 4 + 8;  // length, name, dims, dim, type, offset

bool MultiplyOverflows(uint64_t a, uint64_t b, uint64_t* product) {
  return __builtin_mul_overflow(a, b, product);
}

}  // namespace

const char* GgufValueTypeName(GgufValueType type) {
  switch (type) {
    case GgufValueType::kUint8:
      return "u8";
    case GgufValueType::kInt8:
      return "i8";
    case GgufValueType::kUint16:
      return "u16";
    case GgufValueType::kInt16:
      return "i16";
    case GgufValueType::kUint32:
      return "u32";
    case GgufValueType::kInt32:
      return "i32";
    case GgufValueType::kFloat32:
      return "f32";
    case GgufValueType::kBool:
      return "bool";
    case GgufValueType::kString:
      return "string";
    case GgufValueType::kArray:
      return "array";
    case GgufValueType::kUint64:
      return "u64";
    case GgufValueType::kInt64:
      return "i64";
    case GgufValueType::kFloat64:
      return "f64";
  }
  return nullptr;
}

uint64_t GgufScalarBytes(GgufValueType type) {
  switch (type) {
    case GgufValueType::kUint8:
    case GgufValueType::kInt8:
    case GgufValueType::kBool:
      return 1;
    case GgufValueType::kUint16:
    case GgufValueType::kInt16:
      return 2;
    case GgufValueType::kUint32:
    case GgufValueType::kInt32:
    case GgufValueType::kFloat32:
      return 4;
    case GgufValueType::kUint64:
    case GgufValueType::kInt64:
    case GgufValueType::kFloat64:
      return 8;
    case GgufValueType::kString:
    case GgufValueType::kArray:
      return 0;
  }
  return 0;
}

// Fills a GgufFile from its bytes_, front to back. Used once.
class GgufParser {
 public:
  explicit GgufParser(GgufFile& file) : file_(file), reader_(file.bytes_) {}

  Status Run() {
    QUERN_TRY(ReadHeader());
    QUERN_TRY(ReadMetadata());
    QUERN_TRY(ReadAlignment());
    QUERN_TRY(ReadTensorTable());
    QUERN_TRY(PlaceTensors());
    return CheckOverlaps();
  }

  static Result<std::unique_ptr<GgufFile>> Load(std::string name,
                                                std::unique_ptr<MappedFile> mapping,
                                                std::span<const std::byte> bytes) {
    std::unique_ptr<GgufFile> file(new GgufFile());
    file->path_ = std::move(name);
    file->mapping_ = std::move(mapping);
    file->bytes_ = bytes;
    if (auto status = GgufParser(*file).Run(); !status) {
      return std::move(status).error().Within(file->path_);
    }
    return file;
  }

 private:
  Status ReadHeader();
  Status ReadMetadata();
  Status ReadValue(GgufFile::Value& value);
  Status SkipArray(GgufValueType type, uint64_t count, const std::string& what, int depth);
  Status CheckBools(uint64_t begin, uint64_t count, const std::string& what);
  Result<GgufValueType> ReadType(const std::string& what);
  Status ReadAlignment();
  Status ReadTensorTable();
  Status ReadTensor(uint64_t index);
  Status PlaceTensors();
  Status CheckOverlaps();

  GgufFile& file_;
  FieldReader reader_;
  uint64_t keys_ = 0;
  uint64_t tensors_ = 0;
  uint64_t alignment_ = 32;
  std::vector<uint64_t> sizes_;  // bytes of each tensor
};

Status GgufParser::ReadHeader() {
  const std::string_view head(reinterpret_cast<const char*>(file_.bytes_.data()),
                              std::min<size_t>(file_.bytes_.size(), 4));
  if (head != "GGUF") {
    const std::string_view looks = DescribeSignature(file_.bytes_);
    return MakeError(ErrorCode::kInvalidArgument,
                     "not a GGUF file: it starts with '{}' at byte 0, where 'GGUF' should be{}{}",
                     Printable(head), looks.empty() ? "" : "; it looks like ", looks);
  }
  QUERN_TRY(reader_.Skip(4, "the magic"));
  QUERN_ASSIGN(file_.version_, reader_.Read<uint32_t>("the version"));
  const uint32_t version = file_.version_;
  if (version != 0 && (version & 0xffff) == 0) {
    return MakeError(
        ErrorCode::kUnsupported,
        "big-endian GGUF (version {} at byte 4 read the other way round): convert the model for "
        "little-endian machines",
        __builtin_bswap32(version));
  }
  if (version != 2 && version != 3) {
    return MakeError(ErrorCode::kUnsupported,
                     "GGUF version {} at byte 4: versions 2 and 3 are supported", version);
  }
  QUERN_ASSIGN(tensors_, reader_.Read<uint64_t>("the number of tensors"));
  QUERN_ASSIGN(keys_, reader_.Read<uint64_t>("the number of metadata keys"));
  if (keys_ > kMaxKeys || keys_ > reader_.remaining() / kMinKeyBytes) {
    return MakeError(
        ErrorCode::kDataLoss,
        "the header says there are {} metadata keys (byte 16): a file of {} bytes can hold at most "
        "{} (truncated or corrupt: fetch it again)",
        keys_, reader_.size(), std::min(kMaxKeys, reader_.remaining() / kMinKeyBytes));
  }
  if (tensors_ > kMaxTensors || tensors_ > reader_.remaining() / kMinTensorBytes) {
    return MakeError(
        ErrorCode::kDataLoss,
        "the header says there are {} tensors (byte 8): a file of {} bytes can hold at most {} "
        "(truncated or corrupt: fetch it again)",
        tensors_, reader_.size(), std::min(kMaxTensors, reader_.remaining() / kMinTensorBytes));
  }
  return {};
}

Status GgufParser::ReadMetadata() {
  file_.values_.reserve(keys_);
  file_.value_index_.reserve(keys_);
  for (uint64_t i = 0; i < keys_; ++i) {
    const uint64_t at = reader_.offset();
    GgufFile::Value value{};
    QUERN_ASSIGN(value.key,
                 reader_.ReadString(fmt::format("the name of metadata key {} of {}", i + 1, keys_),
                                    kMaxKeyBytes));
    if (value.key.empty()) {
      return MakeError(ErrorCode::kDataLoss,
                       "the name of metadata key {} of {} at byte {} is empty", i + 1, keys_, at);
    }
    QUERN_TRY(ReadValue(value));
    if (!file_.value_index_.emplace(value.key, file_.values_.size()).second) {
      return MakeError(ErrorCode::kDataLoss, "metadata key '{}' at byte {} is there a second time",
                       Printable(value.key), at);
    }
    file_.values_.push_back(value);
  }
  return {};
}

Result<GgufValueType> GgufParser::ReadType(const std::string& what) {
  const uint64_t at = reader_.offset();
  QUERN_ASSIGN(const uint32_t number, reader_.Read<uint32_t>(what + "'s type"));
  const auto type = static_cast<GgufValueType>(number);
  if (!GgufValueTypeName(type)) {
    return MakeError(ErrorCode::kUnsupported,
                     "{} has the unknown type {} at byte {}: known are 0 (u8) to 12 (f64)", what,
                     number, at);
  }
  return type;
}

Status GgufParser::ReadValue(GgufFile::Value& value) {
  const std::string what = fmt::format("metadata key '{}'", Printable(value.key));
  value.type_offset = reader_.offset();
  QUERN_ASSIGN(value.type, ReadType(what));
  value.count = 1;
  value.is_array = value.type == GgufValueType::kArray;
  if (value.is_array) {
    QUERN_ASSIGN(value.type, ReadType(what));
    QUERN_ASSIGN(value.count, reader_.Read<uint64_t>(what + "'s length"));
  }
  value.begin = reader_.offset();
  return SkipArray(value.type, value.count, what, 1);
}

// Moves over `count` values of `type`, checking each. A scalar is an array of one.
Status GgufParser::SkipArray(GgufValueType type, uint64_t count, const std::string& what,
                             int depth) {
  if (depth > kMaxArrayDepth) {
    return MakeError(ErrorCode::kUnsupported, "{} nests arrays more than {} deep at byte {}", what,
                     kMaxArrayDepth, reader_.offset());
  }
  const uint64_t begin = reader_.offset();
  const uint64_t width = GgufScalarBytes(type);
  // A string takes at least its length, an array its type and length.
  const uint64_t least = width ? width : (type == GgufValueType::kString ? 8 : 12);
  if (count > reader_.remaining() / least) {
    return MakeError(
        ErrorCode::kDataLoss,
        "{} holds {} values of type {} from byte {} on, but only {} bytes are left in the file "
        "(truncated or corrupt: fetch it again)",
        what, count, GgufValueTypeName(type), begin, reader_.remaining());
  }
  if (width) {
    QUERN_TRY(reader_.Skip(count * width, what));
    return type == GgufValueType::kBool ? CheckBools(begin, count, what) : Status();
  }
  for (uint64_t i = 0; i < count; ++i) {
    if (type == GgufValueType::kString) {
      if (auto text = reader_.ReadString(what); !text) return std::move(text).error();
    } else {
      QUERN_ASSIGN(const GgufValueType inner, ReadType(what));
      QUERN_ASSIGN(const uint64_t inner_count, reader_.Read<uint64_t>(what + "'s length"));
      QUERN_TRY(SkipArray(inner, inner_count, what, depth + 1));
    }
  }
  return {};
}

Status GgufParser::CheckBools(uint64_t begin, uint64_t count, const std::string& what) {
  for (uint64_t i = begin; i < begin + count; ++i) {
    if (const auto byte = static_cast<uint8_t>(file_.bytes_[i]); byte > 1) {
      return MakeError(ErrorCode::kDataLoss,
                       "{} holds {} as a bool at byte {}: 0 or 1 would be right", what, byte, i);
    }
  }
  return {};
}

Status GgufParser::ReadAlignment() {
  if (!file_.Has("general.alignment")) return {};
  QUERN_ASSIGN(alignment_, file_.RequireUint("general.alignment"));
  if (!std::has_single_bit(alignment_) || alignment_ < 8 || alignment_ > kMaxAlignment) {
    return MakeError(
        ErrorCode::kDataLoss,
        "general.alignment at byte {} is {}: a power of two from 8 to {} would be right",
        file_.FindValue("general.alignment")->begin, alignment_, kMaxAlignment);
  }
  return {};
}

Status GgufParser::ReadTensorTable() {
  file_.tensors_.reserve(tensors_);
  file_.tensor_index_.reserve(tensors_);
  sizes_.reserve(tensors_);
  for (uint64_t i = 0; i < tensors_; ++i) QUERN_TRY(ReadTensor(i));
  return {};
}

Status GgufParser::ReadTensor(uint64_t index) {
  const uint64_t at = reader_.offset();
  GgufTensor tensor{};
  QUERN_ASSIGN(tensor.name,
               reader_.ReadString(fmt::format("the name of tensor {} of {}", index + 1, tensors_),
                                  kMaxTensorNameBytes));
  const std::string what = fmt::format("tensor '{}'", Printable(tensor.name));
  QUERN_ASSIGN(const uint32_t dims, reader_.Read<uint32_t>(what + "'s number of dimensions"));
  if (dims < 1 || dims > kMaxDims) {
    return MakeError(ErrorCode::kDataLoss,
                     "{} has {} dimensions at byte {}: 1 to {} would be right", what, dims,
                     reader_.offset() - 4, kMaxDims);
  }
  uint64_t elements = 1;
  for (uint32_t d = 0; d < dims; ++d) {
    QUERN_ASSIGN(const uint64_t dim, reader_.Read<uint64_t>(what + "'s dimensions"));
    if (dim == 0 || MultiplyOverflows(elements, dim, &elements) ||
        elements > std::numeric_limits<int64_t>::max()) {
      return MakeError(
          ErrorCode::kDataLoss,
          "{} has dimension {} = {} at byte {}: dimensions are at least 1 and their product "
          "fits 63 bits",
          what, d, dim, reader_.offset() - 8);
    }
    tensor.dims.push_back(dim);
  }
  QUERN_ASSIGN(const uint32_t type, reader_.Read<uint32_t>(what + "'s type"));
  tensor.type = static_cast<GgmlType>(type);
  const GgmlTypeInfo* info = FindGgmlTypeInfo(tensor.type);
  if (!info) {
    return MakeError(
        ErrorCode::kUnsupported,
        "{} has the unknown storage type {} at byte {}: quantise the model to a known one, such as "
        "Q8_0 (8) or Q4_K (12)",
        what, type, reader_.offset() - 4);
  }
  const auto block = static_cast<uint64_t>(info->block_elements);
  uint64_t bytes = 0;
  if (tensor.dims[0] % block != 0 ||
      MultiplyOverflows(elements / block, static_cast<uint64_t>(info->block_bytes), &bytes)) {
    return MakeError(
        ErrorCode::kDataLoss,
        "{} at byte {} has rows of {} elements: {} needs a multiple of its block of {}", what, at,
        tensor.dims[0], info->name, block);
  }
  QUERN_ASSIGN(tensor.file_offset, reader_.Read<uint64_t>(what + "'s offset"));
  if (tensor.file_offset % alignment_ != 0) {
    return MakeError(
        ErrorCode::kDataLoss,
        "{} has data offset {} at byte {}: a multiple of the file's alignment, {}, would be right",
        what, tensor.file_offset, reader_.offset() - 8, alignment_);
  }
  if (!file_.tensor_index_.emplace(tensor.name, file_.tensors_.size()).second) {
    return MakeError(ErrorCode::kDataLoss, "{} at byte {} is there a second time", what, at);
  }
  file_.tensors_.push_back(std::move(tensor));
  sizes_.push_back(bytes);
  return {};
}

// Turns offsets into the data section into offsets into the file, and takes the views.
Status GgufParser::PlaceTensors() {
  const uint64_t size = file_.bytes_.size();
  const uint64_t data_begin = (reader_.offset() + alignment_ - 1) / alignment_ * alignment_;
  for (size_t i = 0; i < file_.tensors_.size(); ++i) {
    GgufTensor& tensor = file_.tensors_[i];
    uint64_t begin = 0;
    uint64_t end = 0;
    const bool overflows = __builtin_add_overflow(data_begin, tensor.file_offset, &begin) ||
                           __builtin_add_overflow(begin, sizes_[i], &end);
    if (overflows || end > size) {
      return MakeError(
          ErrorCode::kDataLoss,
          "tensor '{}' has its {} bytes of data at byte {}, but the file ends at byte {} "
          "(truncated: fetch it again)",
          Printable(tensor.name), sizes_[i], overflows ? "2^64 or more" : std::to_string(begin),
          size);
    }
    tensor.file_offset = begin;
    tensor.data = file_.bytes_.subspan(begin, sizes_[i]);
  }
  return {};
}

Status GgufParser::CheckOverlaps() {
  std::vector<const GgufTensor*> order;
  order.reserve(file_.tensors_.size());
  for (const GgufTensor& tensor : file_.tensors_) order.push_back(&tensor);
  std::sort(order.begin(), order.end(), [](const GgufTensor* a, const GgufTensor* b) {
    return a->file_offset < b->file_offset;
  });
  for (size_t i = 1; i < order.size(); ++i) {
    const GgufTensor& before = *order[i - 1];
    const GgufTensor& after = *order[i];
    if (before.file_offset + before.data.size() > after.file_offset) {
      return MakeError(
          ErrorCode::kDataLoss,
          "tensors '{}' (bytes {} to {}) and '{}' (from byte {}) overlap: each must have its "
          "own bytes",
          Printable(before.name), before.file_offset, before.file_offset + before.data.size(),
          Printable(after.name), after.file_offset);
    }
  }
  return {};
}

Result<std::unique_ptr<GgufFile>> GgufFile::Open(const std::string& path) {
  QUERN_ASSIGN(std::unique_ptr<MappedFile> mapping, MappedFile::Open(path));
  const std::span<const std::byte> bytes = mapping->bytes();
  return GgufParser::Load(path, std::move(mapping), bytes);
}

Result<std::unique_ptr<GgufFile>> GgufFile::Parse(std::span<const std::byte> bytes,
                                                  std::string name) {
  return GgufParser::Load(std::move(name), nullptr, bytes);
}

}  // namespace quern
