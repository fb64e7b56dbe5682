// What a broken, hostile or foreign file gives: one clear line, never a crash. Run under
// AddressSanitizer.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "runtime/formats/gguf.h"
#include "tests/unit/runtime/formats/gguf_writer.h"

namespace quern {
namespace {

using quern::testing::AsBytes;
using quern::testing::GgufWriter;
using ::testing::HasSubstr;

std::vector<uint8_t> Data(size_t size) { return std::vector<uint8_t>(size, 0x5a); }

Error MustFail(std::vector<uint8_t> bytes) {
  bytes.shrink_to_fit();  // so that AddressSanitizer sees the first byte read too far
  auto file = GgufFile::Parse(AsBytes(bytes), "test.gguf");
  if (file.ok()) {
    ADD_FAILURE() << "was read without an error";
    return {};
  }
  EXPECT_EQ(file.error().message.find('\n'), std::string::npos) << "one line";
  EXPECT_THAT(file.error().message, HasSubstr("test.gguf: "));
  return file.error();
}

Error MustFailText(std::string_view text) { return MustFail({text.begin(), text.end()}); }

std::vector<uint8_t> SmallFile() {
  return GgufWriter()
      .String("general.architecture", "llama")
      .Uint("general.alignment", 32)
      .Strings("tokens", {"a", "bc", ""})
      .Array<uint8_t>("flags", GgufValueType::kBool, {1, 0, 1})
      .Float("eps", 1e-5f)
      .Tensor("a.weight", {8, 2}, 0, Data(64))
      .Tensor("b.weight", {32}, 8, Data(34))
      .Bytes();
}

TEST(GgufCorrupt, EveryTruncationIsAnError) {
  const auto whole = SmallFile();
  ASSERT_TRUE(GgufFile::Parse(AsBytes(whole), "whole").ok());
  for (size_t length = 0; length < whole.size(); ++length) {
    const Error error = MustFail({whole.begin(), whole.begin() + static_cast<long>(length)});
    if (length >= 4) {
      EXPECT_EQ(error.code, ErrorCode::kDataLoss) << length << ": " << error.message;
    }
  }
}

// Reads everything there is to read of a file that was accepted.
void TouchEverything(const GgufFile& file) {
  uint64_t sum = 0;
  for (const std::string_view key : file.Keys()) {
    if (auto text = file.FindString(key)) sum += text->size();
    if (auto list = file.FindStringArray(key)) {
      for (const auto word : *list) {
        for (const char c : word) sum += static_cast<uint8_t>(c);
      }
    }
    if (auto list = file.FindIntArray(key, 1 << 20)) sum += list->size();
    if (auto list = file.FindFloatArray(key)) sum += list->size();
    sum += file.FindUint(key).value_or(0) + file.FindBool(key).value_or(false);
  }
  for (const GgufTensor& tensor : file.tensors()) {
    for (const std::byte b : tensor.data) sum += static_cast<uint8_t>(b);
    EXPECT_NE(FindGgmlTypeInfo(tensor.type), nullptr);
  }
  volatile uint64_t sink = sum;
  (void)sink;
}

TEST(GgufCorrupt, AnyByteMayBeWrongWithoutHarm) {
  const auto whole = SmallFile();
  int accepted = 0;
  int refused = 0;
  for (size_t at = 0; at < whole.size(); ++at) {
    const uint8_t right = whole[at];
    std::vector<uint8_t> values = {
        0, 1, 0x7f, 0x80, 0xff, static_cast<uint8_t>(right + 1), static_cast<uint8_t>(right - 1)};
    for (int bit = 0; bit < 8; ++bit) values.push_back(static_cast<uint8_t>(right ^ (1 << bit)));
    for (const uint8_t value : values) {
      auto bytes = whole;
      bytes[at] = value;
      auto file = GgufFile::Parse(AsBytes(bytes), "mutated");
      if (file.ok()) {
        TouchEverything(**file);
        ++accepted;
      } else {
        ++refused;
      }
    }
  }
  EXPECT_GT(accepted, 0);
  EXPECT_GT(refused, 0);
}

TEST(GgufCorrupt, WrongMagicSaysWhatTheFileLooksLike) {
  const std::pair<std::string_view, std::string_view> cases[] = {
      {std::string_view("\x40\x01\0\0\0\0\0\0{\"__metadata__\"", 23), "safetensors"},
      {"PK\x03\x04 archive", "PyTorch"},
      {"\x80\x02}q", "pickle"},
      {"<!DOCTYPE html><html>", "web page"},
      {"<html><body>", "web page"},
      {"version https://git-lfs.github.com/spec/v1", "LFS pointer"},
      {"{\"architectures\": []}", "JSON"},
      {"tjgg....", "GGJT"},
      {"\x7f"
       "ELF....",
       "ELF"},
      {"\x1f\x8b\x08", "gzip"},
      {std::string_view("\0\0\0\0\0\0\0\0\0\0", 10), "unfinished download"},
  };
  for (const auto& [head, wanted] : cases) {
    const Error error = MustFailText(head);
    EXPECT_EQ(error.code, ErrorCode::kInvalidArgument);
    EXPECT_THAT(error.message, HasSubstr("not a GGUF file"));
    EXPECT_THAT(error.message, HasSubstr(std::string(wanted)));
  }
  EXPECT_THAT(MustFailText("\x01\n!?").message, HasSubstr("starts with '\\x01\\x0a!?' at byte 0"));
}

TEST(GgufCorrupt, BigEndianAndOtherVersionsAreNamed) {
  const Error swapped = MustFail(GgufWriter(0x03000000).Bytes());
  EXPECT_EQ(swapped.code, ErrorCode::kUnsupported);
  EXPECT_THAT(swapped.message, HasSubstr("big-endian GGUF (version 3"));
  for (const uint32_t version : {0u, 1u, 4u, 99u}) {
    const Error error = MustFail(GgufWriter(version).Bytes());
    EXPECT_EQ(error.code, ErrorCode::kUnsupported);
    EXPECT_THAT(error.message, HasSubstr("versions 2 and 3 are supported"));
  }
}

TEST(GgufCorrupt, CountsBeyondTheFileAreRefusedBeforeAnythingIsAllocated) {
  for (const uint64_t count : {uint64_t{1} << 20, uint64_t{1} << 40, UINT64_MAX}) {
    EXPECT_THAT(MustFail(GgufWriter().Counts(0, count).Bytes()).message,
                HasSubstr("metadata keys (byte 16)"));
    EXPECT_THAT(MustFail(GgufWriter().Counts(count, 0).Bytes()).message,
                HasSubstr("tensors (byte 8)"));
  }
  auto array = GgufWriter().Counts(0, 1).Bytes();
  GgufWriter::AppendString(array, "list");
  GgufWriter::Append(array, uint32_t{9});
  GgufWriter::Append(array, uint32_t{10});
  GgufWriter::Append(array, uint64_t{1} << 61);  // times 8 wraps to 0
  array.resize(array.size() + 64);
  EXPECT_THAT(MustFail(array).message,
              HasSubstr("metadata key 'list' holds 2305843009213693952 values"));
}

TEST(GgufCorrupt, StringsLongerThanTheFileAreRefused) {
  auto bytes = GgufWriter().Counts(0, 1).Bytes();
  GgufWriter::Append(bytes, UINT64_MAX);
  bytes.resize(bytes.size() + 32);
  EXPECT_THAT(MustFail(bytes).message, HasSubstr("says it is 18446744073709551615 bytes long"));
}

TEST(GgufCorrupt, DuplicateKeysAndTensorsAreRefused) {
  EXPECT_THAT(MustFail(GgufWriter().Uint("a", 1).Uint("a", 2).Bytes()).message,
              HasSubstr("metadata key 'a' at byte 41 is there a second time"));
  EXPECT_THAT(
      MustFail(GgufWriter().Tensor("w", {4}, 0, Data(16)).Tensor("w", {4}, 0, Data(16)).Bytes())
          .message,
      HasSubstr("tensor 'w' at byte 57 is there a second time"));
}

TEST(GgufCorrupt, UnknownTypesAreRefused) {
  const Error value =
      MustFail(GgufWriter().Scalar<uint32_t>("k", static_cast<GgufValueType>(13), 0).Bytes());
  EXPECT_EQ(value.code, ErrorCode::kUnsupported);
  EXPECT_THAT(value.message, HasSubstr("metadata key 'k' has the unknown type 13 at byte 33"));
  const Error tensor = MustFail(GgufWriter().Tensor("w", {4}, 4, Data(16)).Bytes());
  EXPECT_EQ(tensor.code, ErrorCode::kUnsupported);
  EXPECT_THAT(tensor.message, HasSubstr("tensor 'w' has the unknown storage type 4 at byte 45"));
}

TEST(GgufCorrupt, ArraysNestedTooDeepAreRefused) {
  auto bytes = GgufWriter().Counts(0, 1).Bytes();
  GgufWriter::AppendString(bytes, "deep");
  GgufWriter::Append(bytes, uint32_t{9});
  for (int i = 0; i < 10000; ++i) {
    GgufWriter::Append(bytes, uint32_t{9});
    GgufWriter::Append(bytes, uint64_t{1});
  }
  EXPECT_THAT(MustFail(bytes).message, HasSubstr("nests arrays more than 4 deep"));
}

TEST(GgufCorrupt, BoolsOtherThanZeroAndOneAreRefused) {
  EXPECT_THAT(MustFail(GgufWriter().Scalar<uint8_t>("b", GgufValueType::kBool, 2).Bytes()).message,
              HasSubstr("holds 2 as a bool at byte 37"));
}

TEST(GgufCorrupt, BadShapesAreRefused) {
  EXPECT_THAT(MustFail(GgufWriter().Tensor("w", {}, 0, Data(16)).Bytes()).message,
              HasSubstr("has 0 dimensions at byte 33: 1 to 4 would be right"));
  EXPECT_THAT(MustFail(GgufWriter().Tensor("w", {1, 1, 1, 1, 1}, 0, Data(16)).Bytes()).message,
              HasSubstr("has 5 dimensions"));
  EXPECT_THAT(MustFail(GgufWriter().Tensor("w", {4, 0}, 0, Data(16)).Bytes()).message,
              HasSubstr("has dimension 1 = 0 at byte 45"));
  EXPECT_THAT(
      MustFail(
          GgufWriter().Tensor("w", {uint64_t{1} << 40, uint64_t{1} << 40}, 0, Data(16)).Bytes())
          .message,
      HasSubstr("product fits 63 bits"));
  EXPECT_THAT(MustFail(GgufWriter().Tensor("w", {uint64_t{1} << 62}, 0, Data(16)).Bytes()).message,
              HasSubstr("rows of"));  // 2^64 bytes
  EXPECT_THAT(MustFail(GgufWriter().Tensor("w", {33}, 8, Data(68)).Bytes()).message,
              HasSubstr("has rows of 33 elements: Q8_0 needs a multiple of its block of 32"));
}

TEST(GgufCorrupt, BadAlignmentIsRefused) {
  for (const uint32_t alignment : {0u, 4u, 33u, 1u << 31}) {
    EXPECT_THAT(MustFail(GgufWriter().Uint("general.alignment", alignment).Bytes()).message,
                HasSubstr("a power of two from 8 to 1048576 would be right"));
  }
  EXPECT_THAT(MustFail(GgufWriter().String("general.alignment", "32").Bytes()).message,
              HasSubstr("'general.alignment' at byte 49 is of type string"));
  EXPECT_THAT(MustFail(GgufWriter().Tensor("w", {4}, 0, Data(64), 8).Bytes()).message,
              HasSubstr("has data offset 8 at byte 49: a multiple of the file's alignment, 32"));
}

TEST(GgufCorrupt, OverlappingTensorsAreRefused) {
  const auto bytes = GgufWriter()
                         .Tensor("first", {16}, 0, Data(64))
                         .Tensor("second", {16}, 0, Data(64), 32)
                         .Bytes();
  const Error error = MustFail(bytes);
  EXPECT_EQ(error.code, ErrorCode::kDataLoss);
  EXPECT_THAT(error.message,
              HasSubstr("tensors 'first' (bytes 128 to 192) and 'second' (from byte 160) overlap"));
}

TEST(GgufCorrupt, TensorsOutsideTheFileAreRefused) {
  EXPECT_THAT(MustFail(GgufWriter().Tensor("w", {4}, 0, Data(16), 64).Bytes()).message,
              HasSubstr("has its 16 bytes of data at byte 128, but the file ends at byte 80"));
  const auto wrapping = static_cast<int64_t>(uint64_t{1} << 62) / 32 * 32;
  EXPECT_THAT(MustFail(GgufWriter().Tensor("w", {4}, 0, Data(16), wrapping).Bytes()).message,
              HasSubstr("but the file ends at byte 80"));
}

TEST(GgufCorrupt, NamesInMessagesAreMadePrintable) {
  const Error error =
      MustFail(GgufWriter().Scalar<uint8_t>("a\n\x1b[31m", GgufValueType::kBool, 9).Bytes());
  EXPECT_THAT(error.message, HasSubstr("'a\\x0a\\x1b[31m'"));
}

}  // namespace
}  // namespace quern
