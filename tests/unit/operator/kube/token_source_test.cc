#include "operator/kube/token_source.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>

namespace quern::control::kube {
namespace {

class TokenSourceTest : public ::testing::Test {
 protected:
  TokenSourceTest() { config_.token_file = path_; }
  ~TokenSourceTest() override { std::remove(path_.c_str()); }

  void Write(const std::string& text) { std::ofstream(path_, std::ios::trunc) << text; }
  // The content changes, what stat tells does not.
  void WriteUnseen(const std::string& text) {
    const auto mtime = std::filesystem::last_write_time(path_);
    Write(text);
    std::filesystem::last_write_time(path_, mtime);
  }

  const std::string path_ = ::testing::TempDir() + "/token-source-" + std::to_string(getpid());
  ClientConfig config_;
  ManualClock clock_;
};

TEST_F(TokenSourceTest, AChangedFileIsReadAgain) {
  Write("one\n");
  TokenSource source(config_, clock_);
  EXPECT_EQ(source.Get(), "one");
  // As the kubelet does it: another file is moved into the place.
  std::ofstream(path_ + ".new") << "two\n";
  std::filesystem::rename(path_ + ".new", path_);
  EXPECT_EQ(source.Get(), "two");
}

TEST_F(TokenSourceTest, AfterAMinuteTheFileIsReadAnyway) {
  Write("one");
  TokenSource source(config_, clock_);
  WriteUnseen("two");
  EXPECT_EQ(source.Get(), "one");
  clock_.Advance(std::chrono::seconds(60));
  EXPECT_EQ(source.Get(), "two");
}

TEST_F(TokenSourceTest, ARefusedTokenIsReplacedWhenTheFileHasAnother) {
  Write("one");
  TokenSource source(config_, clock_);
  EXPECT_FALSE(source.Refresh("one"));
  WriteUnseen("two");
  EXPECT_TRUE(source.Refresh("one"));
  EXPECT_EQ(source.Get(), "two");
}

TEST_F(TokenSourceTest, AnEmptyMissingOrBrokenFileLeavesTheLastToken) {
  Write("one");
  TokenSource source(config_, clock_);
  for (const char* text : {"", " \n", "a\nb"}) {
    Write(text);
    clock_.Advance(std::chrono::seconds(61));
    EXPECT_EQ(source.Get(), "one");
  }
  std::remove(path_.c_str());
  clock_.Advance(std::chrono::seconds(61));
  EXPECT_EQ(source.Get(), "one");
}

}  // namespace
}  // namespace quern::control::kube
