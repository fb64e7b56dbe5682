#pragma once

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "runtime/distributed/communicator.h"

namespace quern {

// Runs ranks as processes of their own, which is what they are. Fork before there are threads.
class GlooTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/quern-gloo-XXXXXX";
    ASSERT_NE(mkdtemp(name), nullptr);
    folder_ = name;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  GlooOptions Options(int rank, int size) const {
    return {.rank = rank, .size = size, .rendezvous = folder_, .timeout = timeout_};
  }

  // What a rank does; "" or what went wrong.
  using Body = std::function<std::string(Communicator&)>;

  // Each rank's result. A process that ends otherwise than by `body`'s return says so.
  std::vector<std::string> Run(int size, const Body& body) {
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directory(folder_);
    std::vector<pid_t> children;
    std::vector<int> pipes;
    for (int rank = 0; rank < size; ++rank) {
      int ends[2];
      EXPECT_EQ(pipe(ends), 0);
      const pid_t child = fork();
      if (child == 0) {
        close(ends[0]);
        auto communicator = MakeGlooCommunicator(Options(rank, size));
        const std::string said =
            communicator.ok() ? body(**communicator) : "no group: " + communicator.error().message;
        const auto left = write(ends[1], said.data(), said.size());
        // Without destructors and exit handlers: they are the parent's.
        _exit(left == static_cast<ssize_t>(said.size()) ? 0 : 3);
      }
      close(ends[1]);
      children.push_back(child);
      pipes.push_back(ends[0]);
    }
    std::vector<std::string> results;
    for (int rank = 0; rank < size; ++rank) {
      std::string said;
      char bytes[4096];
      for (ssize_t count;
           (count = read(pipes[static_cast<size_t>(rank)], bytes, sizeof bytes)) > 0;) {
        said.append(bytes, static_cast<size_t>(count));
      }
      close(pipes[static_cast<size_t>(rank)]);
      int status = 0;
      waitpid(children[static_cast<size_t>(rank)], &status, 0);
      if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        said += " (ended with status " + std::to_string(status) + ")";
      }
      results.push_back(std::move(said));
    }
    return results;
  }

  std::filesystem::path folder_;
  std::chrono::milliseconds timeout_{30'000};
};

}  // namespace quern
