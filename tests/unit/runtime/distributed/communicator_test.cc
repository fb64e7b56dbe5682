#include "runtime/distributed/communicator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <random>
#include <thread>
#include <vector>

#include "tests/unit/runtime/distributed/gloo_ranks.h"

namespace quern {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;

// Numbers of one rank, of very different sizes, so that the order of their sums shows.
std::vector<float> Numbers(int rank, size_t count) {
  std::mt19937 random(static_cast<unsigned>(rank) * 1000 + static_cast<unsigned>(count));
  std::normal_distribution<float> normal(0, 1);
  std::vector<float> numbers(count);
  for (float& number : numbers) number = normal(random) * std::exp2(normal(random) * 4);
  return numbers;
}

std::string SumsAreRight(Communicator& group, size_t count) {
  std::vector<float> sums = Numbers(group.rank(), count);
  if (const Status done = group.AllReduceSum(sums); !done.ok()) return done.error().message;
  std::vector<double> exact(count), magnitudes(count);
  for (int rank = 0; rank < group.size(); ++rank) {
    const auto numbers = Numbers(rank, count);
    for (size_t i = 0; i < count; ++i) {
      exact[i] += numbers[i];
      magnitudes[i] += std::abs(numbers[i]);
    }
  }
  for (size_t i = 0; i < count; ++i) {
    // size - 1 additions, each rounded.
    if (std::abs(sums[i] - exact[i]) > group.size() * 0x1p-24 * magnitudes[i]) {
      return "element " + std::to_string(i) + " of " + std::to_string(count) + " is wrong";
    }
  }
  // The same bits everywhere, and again.
  std::vector<float> all(count * static_cast<size_t>(group.size()));
  if (const Status done = group.AllGather(sums, all); !done.ok()) return done.error().message;
  for (int rank = 0; rank < group.size(); ++rank) {
    if (count > 0 && std::memcmp(all.data() + static_cast<size_t>(rank) * count, sums.data(),
                                 count * sizeof(float)) != 0) {
      return "rank " + std::to_string(rank) + " has other bits";
    }
  }
  std::vector<float> again = Numbers(group.rank(), count);
  if (const Status done = group.AllReduceSum(again); !done.ok()) return done.error().message;
  return again == sums ? "" : "a second run gives other bits";
}

TEST_F(GlooTest, SumsAreTheSameBitsOnEveryRank) {
  for (const int size : {2, 3, 4}) {
    const auto results = Run(size, [](Communicator& group) {
      for (const size_t count : {0u, 1u, 2u, 7u, 64u, 1000u, 4097u, 300'001u}) {
        if (std::string wrong = SumsAreRight(group, count); !wrong.empty()) return wrong;
      }
      return std::string();
    });
    for (const std::string& said : results) EXPECT_EQ(said, "") << size << " ranks";
  }
}

TEST_F(GlooTest, GathersInTheOrderOfRanksAndTakesTheRootsBytes) {
  const auto results = Run(4, [](Communicator& group) -> std::string {
    const auto rank = static_cast<float>(group.rank());
    const std::vector<float> mine = {rank, rank + 0.5f};
    std::vector<float> all(8, -1);
    if (const Status done = group.AllGather(mine, all); !done.ok()) return done.error().message;
    if (all != std::vector<float>{0, 0.5f, 1, 1.5f, 2, 2.5f, 3, 3.5f}) return "gathered otherwise";
    for (int root = 0; root < 4; ++root) {
      std::vector<float> roots(group.rank() == root ? 8 : 0);
      if (const Status done = group.Gather(mine, roots, root); !done.ok()) {
        return done.error().message;
      }
      if (group.rank() == root && roots != all) return "gathered otherwise by a root";
      std::vector<std::byte> bytes(5000, std::byte(group.rank()));
      if (const Status done = group.Broadcast(bytes, root); !done.ok()) return done.error().message;
      if (bytes != std::vector<std::byte>(5000, std::byte(root))) return "broadcast otherwise";
    }
    const Status done = group.Barrier();
    return done.ok() ? "" : done.error().message;
  });
  for (const std::string& said : results) EXPECT_EQ(said, "");
}

TEST_F(GlooTest, ABarrierWaitsForTheLastRank) {
  const auto results = Run(3, [](Communicator& group) -> std::string {
    if (!group.Barrier().ok()) return "first barrier";
    const auto begin = std::chrono::steady_clock::now();
    if (group.rank() == 1) std::this_thread::sleep_for(milliseconds(300));
    if (!group.Barrier().ok()) return "second barrier";
    const auto waited = std::chrono::steady_clock::now() - begin;
    return waited >= milliseconds(250) ? "" : "nobody waited";
  });
  for (const std::string& said : results) EXPECT_EQ(said, "");
}

TEST_F(GlooTest, ARankThatDiesIsAnErrorOfTheOthersAtOnceAndForEver) {
  const auto results = Run(4, [](Communicator& group) -> std::string {
    if (!group.Barrier().ok()) return "barrier";
    if (group.rank() == 2) _exit(0);  // says nothing
    const auto begin = std::chrono::steady_clock::now();
    std::vector<float> values(100'000, 1);
    Status done;
    for (int i = 0; i < 100 && done.ok(); ++i) done = group.AllReduceSum(values);
    if (done.ok()) return "no error";
    if (std::chrono::steady_clock::now() - begin > milliseconds(10'000)) return "it took too long";
    const Status later = group.Barrier();
    if (later.ok() || later.error().message != done.error().message) return "it went on";
    return done.error().message;
  });
  for (const int rank : {0, 1, 3}) {
    EXPECT_THAT(results[static_cast<size_t>(rank)],
                HasSubstr("rank " + std::to_string(rank) + " of 4: an all-reduce failed"));
  }
  EXPECT_EQ(results[2], "");
}

TEST_F(GlooTest, ARankThatIsLateIsAnErrorThatSaysHowLongItWasWaitedFor) {
  timeout_ = milliseconds(500);
  const auto results = Run(2, [](Communicator& group) -> std::string {
    if (group.rank() == 1) {
      std::this_thread::sleep_for(milliseconds(1500));
      return "";
    }
    std::vector<float> values(10, 1);
    const Status done = group.AllReduceSum(values);
    return done.ok() ? "no error" : done.error().message;
  });
  EXPECT_THAT(results[0], HasSubstr("an all-reduce failed"));
  EXPECT_THAT(results[0], HasSubstr("within 500 ms"));
}

TEST_F(GlooTest, WhatRankZeroHasToSayIsWaitedForWithoutATimeoutUnlessItEnds) {
  timeout_ = milliseconds(300);
  const auto results = Run(4, [](Communicator& group) -> std::string {
    std::vector<std::byte> bytes(3, std::byte(group.rank()));
    if (group.rank() == 0) std::this_thread::sleep_for(milliseconds(1200));
    if (const Status done = group.Await(bytes); !done.ok()) return done.error().message;
    if (bytes != std::vector<std::byte>(3)) return "other bytes";
    if (group.rank() == 0) {
      std::this_thread::sleep_for(milliseconds(700));
      _exit(0);
    }
    const Status ended = group.Await(bytes);
    return ended.ok() ? "no error" : "";
  });
  for (const std::string& said : results) EXPECT_EQ(said, "");
}

TEST_F(GlooTest, TheFirstRanksErrorIsThatOfAll) {
  const auto results = Run(4, [](Communicator& group) -> std::string {
    if (!Agree(group, {}).ok()) return "nobody has an error";
    Status mine;
    if (group.rank() == 1) mine = MakeError(ErrorCode::kUnsupported, "one");
    if (group.rank() == 3) mine = MakeError(ErrorCode::kInternal, "{}", std::string(5000, 'x'));
    const Status all = Agree(group, mine);
    if (all.ok() || all.error().code != ErrorCode::kUnsupported) return "another error";
    const Status last = Agree(group, group.rank() == 3 ? mine : Status());
    if (last.ok() || last.error().code != ErrorCode::kInternal) return "not the last rank's";
    return all.error().message;
  });
  for (const size_t rank : {0u, 2u, 3u}) EXPECT_EQ(results[rank], "rank 1 of 4: one");
  EXPECT_EQ(results[1], "one");
}

TEST_F(GlooTest, ARankThatNeverComesIsAnError) {
  timeout_ = milliseconds(300);
  const auto alone = MakeGlooCommunicator(Options(0, 2));
  ASSERT_FALSE(alone.ok());
  EXPECT_EQ(alone.error().code, ErrorCode::kUnavailable);
  EXPECT_THAT(alone.error().message, HasSubstr("rank 0 of 2 on 127.0.0.1"));
  EXPECT_THAT(alone.error().message, HasSubstr("within 300 ms"));
}

TEST_F(GlooTest, OptionsThatAreWrongAreRefusedWithTheReason) {
  for (const auto& [rank, size] : {std::pair{2, 2}, {-1, 2}, {0, 0}}) {
    const auto made = MakeGlooCommunicator(Options(rank, size));
    ASSERT_FALSE(made.ok());
    EXPECT_EQ(made.error().code, ErrorCode::kInvalidArgument);
    EXPECT_THAT(made.error().message, HasSubstr("rank " + std::to_string(rank) + " of"));
  }
  GlooOptions options = Options(0, 2);
  options.group = "../elsewhere";
  EXPECT_THAT(MakeGlooCommunicator(options).error().message, HasSubstr("../elsewhere"));
  options = Options(0, 2);
  options.rendezvous = folder_ / "missing";
  EXPECT_THAT(MakeGlooCommunicator(options).error().message, HasSubstr("is no folder"));
}

TEST(SingleCommunicator, IsAGroupOfOne) {
  const auto one = MakeSingleCommunicator();
  EXPECT_EQ(one->size(), 1);
  std::vector<float> values = {1, 2}, all(2);
  ASSERT_TRUE(one->AllReduceSum(values).ok());
  ASSERT_TRUE(one->AllGather(values, all).ok());
  EXPECT_EQ(all, (std::vector<float>{1, 2}));
  EXPECT_TRUE(one->Barrier().ok());
}

}  // namespace
}  // namespace quern
