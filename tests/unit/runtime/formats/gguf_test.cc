// What a well-formed GGUF file gives.
#include "runtime/formats/gguf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "tests/unit/runtime/formats/gguf_writer.h"

namespace quern {
namespace {

using quern::testing::AsBytes;
using quern::testing::GgufWriter;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Optional;
using ::testing::SizeIs;

std::vector<uint8_t> Ramp(size_t size) {
  std::vector<uint8_t> bytes(size);
  std::iota(bytes.begin(), bytes.end(), uint8_t{1});
  return bytes;
}

std::unique_ptr<GgufFile> MustParse(const std::vector<uint8_t>& bytes) {
  auto file = GgufFile::Parse(AsBytes(bytes), "test.gguf");
  EXPECT_TRUE(file.ok()) << (file.ok() ? "" : file.error().message);
  return file.ok() ? std::move(file).value() : nullptr;
}
std::unique_ptr<GgufFile> MustParse(std::vector<uint8_t>&&) =
    delete;  // the bytes must outlive the file

TEST(GgufFile, GivesEveryScalarTypeBack) {
  const auto bytes = GgufWriter()
                         .Scalar<uint8_t>("u8", GgufValueType::kUint8, 250)
                         .Scalar<int8_t>("i8", GgufValueType::kInt8, -3)
                         .Scalar<uint16_t>("u16", GgufValueType::kUint16, 65535)
                         .Scalar<int16_t>("i16", GgufValueType::kInt16, 7)
                         .Scalar<uint32_t>("u32", GgufValueType::kUint32, 4294967295u)
                         .Scalar<int32_t>("i32", GgufValueType::kInt32, -1)
                         .Scalar<uint64_t>("u64", GgufValueType::kUint64, UINT64_MAX)
                         .Scalar<int64_t>("i64", GgufValueType::kInt64, 9)
                         .Scalar<float>("f32", GgufValueType::kFloat32, 0.5f)
                         .Scalar<double>("f64", GgufValueType::kFloat64, 0.1)
                         .Bool("yes", true)
                         .Bool("no", false)
                         .String("text", "h\xc3\xa9llo")
                         .Bytes();
  const auto file = MustParse(bytes);
  ASSERT_TRUE(file);
  EXPECT_THAT(file->FindUint("u8"), Optional(250u));
  EXPECT_THAT(file->FindUint("u16"), Optional(65535u));
  EXPECT_THAT(file->FindUint("i16"), Optional(7u));
  EXPECT_THAT(file->FindUint("u32"), Optional(4294967295u));
  EXPECT_THAT(file->FindUint("u64"), Optional(UINT64_MAX));
  EXPECT_THAT(file->FindUint("i64"), Optional(9u));
  EXPECT_EQ(file->FindUint("i8"), std::nullopt) << "negative";
  EXPECT_EQ(file->FindUint("i32"), std::nullopt) << "negative";
  EXPECT_THAT(file->FindFloat("f32"), Optional(0.5));
  EXPECT_THAT(file->FindFloat("f64"), Optional(0.1));
  EXPECT_THAT(file->FindBool("yes"), Optional(true));
  EXPECT_THAT(file->FindBool("no"), Optional(false));
  EXPECT_THAT(file->FindString("text"), Optional(std::string_view("h\xc3\xa9llo")));
  EXPECT_EQ(file->FindUint("yes"), std::nullopt) << "a bool is no integer";
  EXPECT_EQ(file->FindUint("f32"), std::nullopt);
  EXPECT_EQ(file->FindString("nothing"), std::nullopt);
  EXPECT_FALSE(file->Has("nothing"));
  EXPECT_EQ(file->Keys().size(), 13u);
  EXPECT_EQ(file->Keys()[0], "u8");
}

TEST(GgufFile, GivesArraysBack) {
  const auto bytes = GgufWriter()
                         .Strings("words", {"a", "", "ccc"})
                         .Ints("ints", {-1, 0, 5})
                         .Floats("floats", {1.5f, -2.0f})
                         .Array<double>("doubles", GgufValueType::kFloat64, {0.25})
                         .Array<uint8_t>("bools", GgufValueType::kBool, {1, 0})
                         .Array<uint64_t>("huge", GgufValueType::kUint64, {UINT64_MAX})
                         .Strings("none", {})
                         .Bytes();
  const auto file = MustParse(bytes);
  ASSERT_TRUE(file);
  EXPECT_THAT(file->FindStringArray("words"), Optional(ElementsAre("a", "", "ccc")));
  EXPECT_THAT(file->FindIntArray("ints", 10), Optional(ElementsAre(-1, 0, 5)));
  EXPECT_THAT(file->FindFloatArray("floats"), Optional(ElementsAre(1.5f, -2.0f)));
  EXPECT_THAT(file->FindFloatArray("doubles"), Optional(ElementsAre(0.25f)));
  EXPECT_THAT(file->FindIntArray("bools", 10), Optional(ElementsAre(1, 0)));
  EXPECT_THAT(file->FindStringArray("none"), Optional(ElementsAre()));
  EXPECT_EQ(file->FindIntArray("huge", 10), std::nullopt) << "does not fit 63 bits";
  EXPECT_EQ(file->FindIntArray("words", 10), std::nullopt);
  EXPECT_THAT(file->FindIntArray("ints", 3), Optional(SizeIs(3)));
  EXPECT_EQ(file->FindIntArray("ints", 2), std::nullopt) << "longer than is wanted";
  EXPECT_EQ(file->FindStringArray("ints"), std::nullopt);
  EXPECT_EQ(file->FindString("words"), std::nullopt) << "an array is no scalar";
}

TEST(GgufFile, SkipsNestedArraysAndReadsOn) {
  std::vector<uint8_t> bytes = GgufWriter().Counts(0, 2).Bytes();
  GgufWriter::AppendString(bytes, "nested");
  for (const uint32_t part : {9u, 9u}) GgufWriter::Append(bytes, part);  // an array of arrays
  GgufWriter::Append(bytes, uint64_t{2});
  for (const uint16_t value : {uint16_t{1}, uint16_t{2}}) {
    GgufWriter::Append(bytes, uint32_t{2});  // of u16
    GgufWriter::Append(bytes, uint64_t{1});
    GgufWriter::Append(bytes, value);
  }
  GgufWriter::AppendString(bytes, "after");
  GgufWriter::Append(bytes, uint32_t{4});
  GgufWriter::Append(bytes, uint32_t{42});
  const auto file = MustParse(bytes);
  ASSERT_TRUE(file);
  EXPECT_TRUE(file->Has("nested"));
  EXPECT_EQ(file->FindIntArray("nested", 10), std::nullopt);
  EXPECT_THAT(file->FindUint("after"), Optional(42u));
}

TEST(GgufFile, GivesTensorsWithShapeTypeAndBytes) {
  const auto f32 = Ramp(6 * 4);
  const auto q4_1 = Ramp(2 * 20);
  const auto bytes = GgufWriter()
                         .String("general.architecture", "llama")
                         .Tensor("a.weight", {3, 2}, 0, f32)
                         .Tensor("b.weight", {64}, 3, q4_1)
                         .Bytes();
  const auto file = MustParse(bytes);
  ASSERT_TRUE(file);
  ASSERT_EQ(file->tensors().size(), 2u);
  const GgufTensor* a = file->FindTensor("a.weight");
  ASSERT_TRUE(a);
  EXPECT_EQ(a, &file->tensors()[0]);
  EXPECT_THAT(a->dims, ElementsAre(3u, 2u));
  EXPECT_EQ(a->type, GgmlType::kF32);
  EXPECT_EQ(a->file_offset % 32, 0u);
  EXPECT_EQ(std::memcmp(a->data.data(), f32.data(), f32.size()), 0);
  const GgufTensor* b = file->FindTensor("b.weight");
  ASSERT_TRUE(b);
  ASSERT_EQ(b->data.size(), q4_1.size());
  EXPECT_EQ(std::memcmp(b->data.data(), q4_1.data(), q4_1.size()), 0);
  EXPECT_EQ(file->FindTensor("c.weight"), nullptr);
}

TEST(GgufFile, HonoursTheFilesOwnAlignment) {
  const auto bytes = GgufWriter()
                         .Uint("general.alignment", 256)
                         .Alignment(256)
                         .Tensor("a", {4}, 0, Ramp(16))
                         .Tensor("b", {4}, 0, Ramp(16))
                         .Bytes();
  const auto file = MustParse(bytes);
  ASSERT_TRUE(file);
  EXPECT_EQ(file->FindTensor("a")->file_offset % 256, 0u);
  EXPECT_EQ(file->FindTensor("b")->file_offset, file->FindTensor("a")->file_offset + 256);
}

TEST(GgufFile, ReadsVersion2AsVersion3) {
  const auto bytes = GgufWriter(2).Uint("x", 1).Bytes();
  const auto file = MustParse(bytes);
  ASSERT_TRUE(file);
  EXPECT_EQ(file->version(), 2u);
  EXPECT_THAT(file->FindUint("x"), Optional(1u));
}

TEST(GgufFile, RequireTellsMissingFromMistyped) {
  const auto bytes = GgufWriter().Uint("a", 1).Strings("list", {"x"}).Bytes();
  const auto file = MustParse(bytes);
  ASSERT_TRUE(file);
  EXPECT_EQ(*file->RequireUint("a"), 1u);
  const auto missing = file->RequireUint("b");
  ASSERT_FALSE(missing.ok());
  EXPECT_EQ(missing.error().code, ErrorCode::kInvalidArgument);
  EXPECT_THAT(missing.error().message, HasSubstr("test.gguf: metadata key 'b' is missing"));
  const auto mistyped = file->RequireString("a");
  ASSERT_FALSE(mistyped.ok());
  EXPECT_THAT(mistyped.error().message,
              HasSubstr("'a' at byte 33 is of type u32: a string is needed"));
  const auto array = file->RequireString("list");
  ASSERT_FALSE(array.ok());
  EXPECT_THAT(array.error().message, HasSubstr("is an array of string: a string is needed"));
}

TEST(GgmlType, KnowsBlockSizesOfEveryTypeItNames) {
  for (uint32_t number = 0; number < 64; ++number) {
    const GgmlTypeInfo* info = FindGgmlTypeInfo(static_cast<GgmlType>(number));
    if (!info) continue;
    // Between one bit (plus scales) and 64 bits a weight.
    const double bits = 8.0 * info->block_bytes / info->block_elements;
    EXPECT_GT(bits, 1.0) << info->name;
    EXPECT_LE(bits, 64.0) << info->name;
  }
  EXPECT_STREQ(FindGgmlTypeInfo(GgmlType::kQ4_K)->name, "Q4_K");
  EXPECT_EQ(FindGgmlTypeInfo(GgmlType::kQ4_K)->block_bytes, 144);
  EXPECT_EQ(FindGgmlTypeInfo(GgmlType::kQ6_K)->block_bytes, 210);
  EXPECT_EQ(FindGgmlTypeInfo(GgmlType::kQ8_0)->block_bytes, 34);
  EXPECT_EQ(FindGgmlTypeInfo(static_cast<GgmlType>(4)), nullptr) << "Q4_2 was removed";
}

}  // namespace
}  // namespace quern
