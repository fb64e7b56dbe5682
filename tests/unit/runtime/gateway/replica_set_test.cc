#include "runtime/gateway/replica_set.h"

#include <gtest/gtest.h>

namespace quern::gateway {
namespace {

const http::Address kA{"10.0.0.1", 8000}, kB{"10.0.0.2", 8000}, kC{"10.0.0.3", 8000};

ReplicaSet ReadySet(const std::set<http::Address>& addresses) {
  ReplicaSet set;
  set.SetAddresses(addresses);
  for (const auto& address : addresses) set.SetReady(address, true);
  return set;
}

TEST(ReplicaSet, OnlyReadyOnesArePicked) {
  ReplicaSet set;
  set.SetAddresses({kA, kB});
  EXPECT_FALSE(set.Pick());
  set.SetReady(kB, true);
  EXPECT_EQ(set.Pick(), kB);
  EXPECT_EQ(set.Pick(), kB);
  set.SetReady(kB, false);
  EXPECT_FALSE(set.Pick());
  EXPECT_EQ(set.in_flight(), 2u);
}

TEST(ReplicaSet, FewestInFlightAndEachInTurn) {
  ReplicaSet set = ReadySet({kA, kB, kC});
  std::set<http::Address> first = {*set.Pick(), *set.Pick(), *set.Pick()};
  EXPECT_EQ(first.size(), 3u);
  set.Release(kB);
  EXPECT_EQ(set.Pick(), kB);
  for (const auto& address : {kA, kB, kC}) set.Release(address);
  // Nothing in flight anywhere: not always the same one.
  for (int i = 0; i < 3; ++i) {
    const auto picked = set.Pick();
    first.erase(*picked);
    set.Release(*picked);
  }
  EXPECT_TRUE(first.empty());
}

TEST(ReplicaSet, AvoidedOneIsPickedWhereThereIsNoOther) {
  ReplicaSet set = ReadySet({kA, kB});
  for (int i = 0; i < 3; ++i) EXPECT_EQ(set.Pick({kA}), kB);
  set.SetReady(kB, false);
  EXPECT_EQ(set.Pick({kA}), kA);
}

TEST(ReplicaSet, GoneOneIsForgottenOnceNothingIsInFlight) {
  ReplicaSet set = ReadySet({kA, kB});
  ASSERT_EQ(set.Pick({kB}), kA);
  const auto change = set.SetAddresses({kB, kC});
  EXPECT_EQ(change.removed, std::vector{kA});
  EXPECT_EQ(change.added, std::vector{kC});
  EXPECT_EQ(set.size(), 2u);
  set.SetReady(kA, true);  // an answer that comes late
  EXPECT_EQ(set.ready(), 1u);
  EXPECT_EQ(set.in_flight(), 1u);
  set.Release(kA);
  EXPECT_EQ(set.in_flight(), 0u);
  // Back again, it must say that it is ready.
  EXPECT_EQ(set.SetAddresses({kA, kB}).added, std::vector{kA});
  EXPECT_FALSE(set.IsReady(kA));
}

TEST(ReplicaSet, OneThatComesBackWithRequestsInFlightKeepsThem) {
  ReplicaSet set = ReadySet({kA});
  ASSERT_TRUE(set.Pick());
  set.SetAddresses({});
  EXPECT_FALSE(set.Has(kA));
  EXPECT_EQ(set.SetAddresses({kA}).added, std::vector{kA});
  EXPECT_EQ(set.in_flight(), 1u);
  set.Release(kA);
  EXPECT_TRUE(set.Has(kA));
}

}  // namespace
}  // namespace quern::gateway
