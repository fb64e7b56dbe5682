#include "operator/kube/watch_stream.h"

#include <gmock/gmock.h>

#include "operator/kube/object.h"

namespace quern::control::kube {
namespace {

using ::testing::HasSubstr;

std::string Line(const std::string& type, const std::string& version) {
  return json{{"type", type}, {"object", {{"metadata", {{"resourceVersion", version}}}}}}.dump() +
         "\n";
}

TEST(WatchStream, EveryWayToCutTheBytesGivesTheSameEvents) {
  const std::string bytes =
      Line("ADDED", "1") + "\n" + Line("MODIFIED", "2") + "\r\n" + Line("BOOKMARK", "3");
  for (size_t piece = 1; piece <= bytes.size(); ++piece) {
    WatchStream stream("watch x", 1000);
    std::string seen;
    for (size_t at = 0; at < bytes.size(); at += piece) {
      const auto go_on = stream.Feed(bytes.substr(at, piece), [&](const WatchEvent& event) {
        seen += ObjectResourceVersion(event.object);
        return true;
      });
      ASSERT_TRUE(go_on.ok() && *go_on);
    }
    EXPECT_EQ(seen, "123");
    EXPECT_TRUE(stream.Finish().ok());
  }
}

TEST(WatchStream, LinesThatAreNoEventsAreDataLoss) {
  for (const char* line :
       {"{", "[]", "{}", "{\"type\":\"ADDED\"}", "{\"type\":\"ADDED\",\"object\":1}",
        "{\"type\":\"ADDED\",\"object\":{}}", "{\"type\":7,\"object\":{}}",
        "{\"type\":\"NEW\",\"object\":{}}", "\xff\xfe"}) {
    const auto event = ParseWatchEvent(line, "watch x");
    ASSERT_FALSE(event.ok()) << line;
    EXPECT_EQ(event.error().code, ErrorCode::kDataLoss) << line;
    EXPECT_THAT(event.error().message, HasSubstr("watch x"));
  }
}

TEST(WatchStream, ALineBeyondTheLimitIsRefusedBeforeItIsWhole) {
  WatchStream stream("watch x", 10);
  const auto ignore = [](const WatchEvent&) { return true; };
  ASSERT_TRUE(stream.Feed("1234567890", ignore).ok());
  const auto fed = stream.Feed("1", ignore);
  ASSERT_FALSE(fed.ok());
  EXPECT_EQ(fed.error().code, ErrorCode::kResourceExhausted);
}

TEST(WatchStream, AnErrorEventIsTheErrorItTellsOf) {
  const auto expired = ParseWatchEvent(
      R"({"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Gone","message":"old"}})",
      "watch x");
  ASSERT_FALSE(expired.ok());
  EXPECT_EQ(expired.error().code, ErrorCode::kExpired);
  const auto internal = ParseWatchEvent(
      R"({"type":"ERROR","object":{"kind":"Status","code":500,"message":"etcd"}})", "watch x");
  EXPECT_EQ(internal.error().code, ErrorCode::kUnavailable);
}

}  // namespace
}  // namespace quern::control::kube
