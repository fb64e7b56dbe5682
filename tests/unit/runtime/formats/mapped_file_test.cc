#include "runtime/formats/mapped_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <fstream>

#include "runtime/formats/gguf.h"
#include "tests/unit/runtime/formats/gguf_writer.h"

namespace quern {
namespace {

using quern::testing::GgufWriter;
using ::testing::HasSubstr;

class MappedFileTest : public ::testing::Test {
 protected:
  MappedFileTest() {
    std::string pattern = ::testing::TempDir() + "mapped-file-XXXXXX";
    folder_ = ::mkdtemp(pattern.data());
  }
  ~MappedFileTest() override { std::filesystem::remove_all(folder_); }

  std::string Write(const std::string& name, const std::vector<uint8_t>& bytes) {
    const std::string path = folder_ + "/" + name;
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()), static_cast<long>(bytes.size()));
    return path;
  }

  std::string folder_;
};

Error MustFail(const std::string& path) {
  auto file = GgufFile::Open(path);
  if (file.ok()) {
    ADD_FAILURE() << path << " was opened";
    return {};
  }
  EXPECT_THAT(file.error().message, HasSubstr(path)) << "says which file";
  return file.error();
}

TEST_F(MappedFileTest, AMissingFileIsNotFound) {
  EXPECT_EQ(MustFail(folder_ + "/none.gguf").code, ErrorCode::kNotFound);
  const std::string file = Write("file", {1});
  EXPECT_EQ(MustFail(file + "/below.gguf").code, ErrorCode::kNotFound);
}

TEST_F(MappedFileTest, ADirectoryAPipeAndAnEmptyFileAreToldApart) {
  EXPECT_THAT(MustFail(folder_).message, HasSubstr("is a directory"));
  const std::string pipe = folder_ + "/pipe";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_THAT(MustFail(pipe).message, HasSubstr("not a regular file"));
  EXPECT_THAT(MustFail(Write("empty.gguf", {})).message, HasSubstr("is empty (0 bytes)"));
}

TEST_F(MappedFileTest, AnUnreadableFileIsPermissionDenied) {
  if (::geteuid() == 0) GTEST_SKIP() << "root may read everything";
  const std::string path = Write("secret.gguf", {1});
  ASSERT_EQ(::chmod(path.c_str(), 0), 0);
  EXPECT_EQ(MustFail(path).code, ErrorCode::kPermissionDenied);
}

TEST_F(MappedFileTest, OpenReadsWhatParseReads) {
  const auto bytes =
      GgufWriter().Uint("a", 5).Tensor("w", {4}, 0, std::vector<uint8_t>(16, 7)).Bytes();
  auto file = GgufFile::Open(Write("model.gguf", bytes));
  ASSERT_TRUE(file.ok()) << file.error().message;
  EXPECT_EQ((*file)->size_bytes(), bytes.size());
  EXPECT_EQ((*file)->FindUint("a"), 5u);
  EXPECT_EQ((*file)->FindTensor("w")->data[15], std::byte{7});
}

// Pages of the file that are in the page cache, whoever reads them.
size_t CachedPages(std::span<const std::byte> bytes, size_t page) {
  std::vector<unsigned char> state((bytes.size() + page - 1) / page);
  EXPECT_EQ(::mincore(const_cast<std::byte*>(bytes.data()), bytes.size(), state.data()), 0);
  size_t cached = 0;
  for (const unsigned char s : state) cached += s & 1;
  return cached;
}

// Pages of the mapping that count towards this process (Rss in /proc/self/smaps).
size_t ResidentPages(std::span<const std::byte> bytes, size_t page) {
  std::ifstream smaps("/proc/self/smaps");
  const std::string start = fmt::format("{:x}-", reinterpret_cast<uintptr_t>(bytes.data()));
  std::string line;
  bool found = false;
  while (std::getline(smaps, line)) {
    found = found || line.starts_with(start);
    if (found && line.starts_with("Rss:")) return std::stoul(line.substr(4)) * 1024 / page;
  }
  ADD_FAILURE() << "the mapping is not in smaps";
  return 0;
}

TEST_F(MappedFileTest, ReleasedPagesLeaveMemoryAndCanBeReadAgain) {
  const size_t page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  std::vector<uint8_t> content(64 * page);
  for (size_t i = 0; i < content.size(); ++i) content[i] = static_cast<uint8_t>(i / page + 1);
  const std::string path = Write("big.bin", content);
  const int fd = ::open(path.c_str(), O_RDONLY);
  ::fsync(fd);  // dirty pages cannot be dropped from the cache
  ::close(fd);
  auto mapped = MappedFile::Open(path);
  ASSERT_TRUE(mapped.ok());
  const auto bytes = (*mapped)->bytes();
  const auto read_all = [&] {
    for (size_t i = 0; i < bytes.size(); i += page) ASSERT_EQ(bytes[i], std::byte(i / page + 1));
  };
  read_all();
  ASSERT_EQ(ResidentPages(bytes, page), 64u);
  // From the middle of page 8 to the middle of page 40: pages 9 to 39 are wholly inside.
  (*mapped)->ReleasePages(bytes.subspan(8 * page + 100, 32 * page));
  EXPECT_EQ(ResidentPages(bytes, page), 64u - 31);
  read_all();
  (*mapped)->ReleasePages(bytes);
  EXPECT_EQ(ResidentPages(bytes, page), 0u);
  struct statfs system {};
  ASSERT_EQ(::statfs(path.c_str(), &system), 0);
  if (system.f_type != TMPFS_MAGIC) {  // whose pages have nowhere else to be
    EXPECT_EQ(CachedPages(bytes, page), 0u);
  }
  read_all();
  (*mapped)->ReleasePages({});                                 // nothing
  (*mapped)->ReleasePages(std::as_bytes(std::span(content)));  // not of this file
  EXPECT_EQ(ResidentPages(bytes, page), 64u);
}

// The page cache is kept in folios that do not end where parts of a file do.
TEST_F(MappedFileTest, NothingStaysInThePageCacheOfAFileReleasedPartByPart) {
  const size_t page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  constexpr size_t kSize = 24 << 20;
  const std::string path = Write("parts.bin", std::vector<uint8_t>(kSize, 7));
  const int fd = ::open(path.c_str(), O_RDONLY);
  ::fsync(fd);
  struct statfs system {};
  ASSERT_EQ(::fstatfs(fd, &system), 0);
  ::posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);  // to be read as a new file is: ahead
  ::close(fd);
  if (system.f_type == TMPFS_MAGIC) GTEST_SKIP() << "the page cache is all that tmpfs has";
  auto mapped = MappedFile::Open(path);
  ASSERT_TRUE(mapped.ok());
  const auto bytes = (*mapped)->bytes();
  constexpr size_t kPart = (1 << 20) + 12345;
  size_t at = 0;
  for (; at + kPart <= kSize; at += kPart) {
    const auto part = bytes.subspan(at, kPart);
    for (size_t i = 0; i < part.size(); i += page) ASSERT_EQ(part[i], std::byte{7});
    (*mapped)->ReleasePages(part);
    // What is behind has gone, but for the folio in which the part ended.
    EXPECT_LE(CachedPages(bytes.first(at - at % page), page) * page, size_t{2} << 20);
  }
  mapped->reset();  // with what was read ahead
  auto again = MappedFile::Open(path);
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(CachedPages((*again)->bytes(), page), 0u);
}

}  // namespace
}  // namespace quern
