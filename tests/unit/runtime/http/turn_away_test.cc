// More connections than there are places for.
#include "runtime/http/turn_away.h"

#include <gtest/gtest.h>

#include <string>

#include "tests/unit/runtime/http/test_server.h"

namespace quern::http {
namespace {

TEST_F(ServerTest, ConnectionsThatDoNothingMakeRoomWhereTheListenerSaysSo) {
  limits.max_connections = 2;
  limits.replace_idle = true;
  StartServer();
  RawClient oldest(port);
  ASSERT_TRUE(WaitForConnections(1));
  RawClient newer(port);
  ASSERT_TRUE(newer.Send(kGet));
  newer.ReadResponse();
  RawClient probe(port);
  ASSERT_TRUE(probe.Send(kGet));
  EXPECT_EQ(probe.ReadResponse().rfind("HTTP/1.1 200 ", 0), 0u);
  EXPECT_TRUE(oldest.ClosedByServer());
  EXPECT_TRUE(observer.WaitForLimit(HttpLimit::kConnections));
  ASSERT_TRUE(newer.Send(kGet));
  EXPECT_EQ(newer.ReadResponse().rfind("HTTP/1.1 200 ", 0), 0u);
}

TEST_F(ServerTest, ConnectionOverTheLimitIsTurnedAwayWith503) {
  limits.max_connections = 1;
  StartServer();
  RawClient first(port);
  ASSERT_TRUE(first.Send(kGet));
  first.ReadResponse();
  RawClient second(port);
  EXPECT_EQ(second.ReadAll().rfind("HTTP/1.1 503 ", 0), 0u) << second.received;
  EXPECT_NE(second.received.find("Retry-After: 1"), std::string::npos);
  EXPECT_TRUE(observer.WaitForLimit(HttpLimit::kConnections));
  first.Close();
  ASSERT_TRUE(WaitForConnections(0));
  RawClient third(port);
  ASSERT_TRUE(third.Send(kGet));
  EXPECT_EQ(third.ReadResponse().rfind("HTTP/1.1 200 ", 0), 0u);
}

TEST_F(ServerTest, ClientThatIsTurnedAwayWhileItStillSendsReadsTheAnswer) {
  limits.max_connections = 1;
  limits.linger_timeout = RawClient::kPatience;
  StartServer();
  RawClient first(port);
  ASSERT_TRUE(first.Send(kGet));
  first.ReadResponse();
  RawClient second(port);
  ASSERT_TRUE(observer.WaitForLimit(HttpLimit::kConnections));
  second.ReadUntil("\r\n\r\n");
  // A server that had closed would answer the first bytes with a reset, which the next ones meet.
  for (int i = 0; i < 4; ++i) ASSERT_TRUE(second.Send(kGet)) << i;
  second.CloseSendingSide();
  EXPECT_TRUE(second.ClosedByServer());
  EXPECT_EQ(second.received.rfind("HTTP/1.1 503 ", 0), 0u) << second.received;
}

TEST_F(ServerTest, NoMoreThanSomeOfThoseTurnedAwayAreWaitedFor) {
  limits.max_connections = 1;
  limits.max_turned_away = 2;
  limits.linger_timeout = std::chrono::minutes(10);
  StartServer();
  RawClient first(port);
  ASSERT_TRUE(first.Send(kGet));
  first.ReadResponse();
  RawClient second(port), third(port);
  ASSERT_TRUE(observer.WaitForLimit(HttpLimit::kConnections, 2));
  for (int i = 0; i < 20; ++i) {
    RawClient more(port);
    EXPECT_TRUE(more.ClosedByServer());
    EXPECT_EQ(more.received.rfind("HTTP/1.1 503 ", 0), 0u) << more.received;
  }
  // Only those that are waited for can still send.
  EXPECT_TRUE(second.Send("x") && second.Send("x") && third.Send("x") && third.Send("x"));
}

}  // namespace
}  // namespace quern::http
