#include <gmock/gmock.h>

#include <atomic>
#include <future>

#include "operator/kube/object.h"
#include "tests/unit/operator/kube/rest_client_fixture.h"

namespace quern::control::kube::testing {
namespace {

using ::testing::HasSubstr;

std::string Event(const std::string& type, const json& object) {
  return json{{"type", type}, {"object", object}}.dump() + "\n";
}

class RestClientWatchTest : public RestClientTest {
 protected:
  // Runs a watch to its end and keeps what it told.
  Status Watch(std::stop_token stop = {}) {
    return client().Watch(
        kConfigMaps, "ns", {.resource_version = "5"},
        [&](const WatchEvent& event) {
          seen_.push_back(ObjectName(event.object) + "@" + ObjectResourceVersion(event.object));
          return true;
        },
        stop);
  }
  std::vector<std::string> seen_;
};

TEST_F(RestClientWatchTest, EventsArriveHoweverTheBytesAreCut) {
  const std::string stream = Event("ADDED", ConfigMap("a", "6")) +
                             Event("MODIFIED", ConfigMap("ä", "7")) +
                             Event("BOOKMARK", ConfigMap("", "8"));
  Serve([&](const ServedRequest&, ServedConnection& connection) {
    connection.BeginChunked();
    for (size_t at = 0; at < stream.size(); at += 7) connection.Chunk(stream.substr(at, 7));
    connection.EndChunks();
  });
  const Status status = Watch();
  ASSERT_TRUE(status.ok()) << status.error().message;
  EXPECT_EQ(seen_, (std::vector<std::string>{"a@6", "ä@7", "@8"}));
  const std::string target = server_->requests()[0].target;
  for (const char* part :
       {"watch=1", "allowWatchBookmarks=true", "resourceVersion=5", "timeoutSeconds=290"}) {
    EXPECT_THAT(target, HasSubstr(part));
  }
}

TEST_F(RestClientWatchTest, AnEventIsDeliveredWhileTheStreamStaysOpen) {
  std::promise<void> seen;
  Serve([&](const ServedRequest&, ServedConnection& connection) {
    connection.BeginChunked();
    connection.Chunk(Event("ADDED", ConfigMap("a", "6")));
    // The next event is sent only once the first has been delivered.
    ASSERT_EQ(seen.get_future().wait_for(std::chrono::seconds(20)), std::future_status::ready);
    connection.Chunk(Event("DELETED", ConfigMap("a", "7")));
    connection.EndChunks();
  });
  int events = 0;
  const Status status = client().Watch(kConfigMaps, "ns", {},
                                       [&](const WatchEvent&) {
                                         if (++events == 1) seen.set_value();
                                         return true;
                                       },
                                       {});
  EXPECT_TRUE(status.ok());
  EXPECT_EQ(events, 2);
}

TEST_F(RestClientWatchTest, ExpiryIsToldAlikeAsAStatusAndInsideTheStream) {
  std::atomic<int> calls{0};
  Serve([&](const ServedRequest&, ServedConnection& connection) {
    const std::string gone = StatusBody(410, "Expired", "too old resource version: 5 (900)");
    if (calls.fetch_add(1) == 0) {
      connection.Answer(410, gone);
      return;
    }
    connection.BeginChunked();
    connection.Chunk(Event("ERROR", json::parse(gone)));
    connection.EndChunks();
  });
  for (int i = 0; i < 2; ++i) {
    const Status status = Watch();
    ASSERT_FALSE(status.ok());
    EXPECT_EQ(status.error().code, ErrorCode::kExpired);
    EXPECT_THAT(status.error().message,
                HasSubstr("watch configmaps ns/: too old resource version"));
  }
}

TEST_F(RestClientWatchTest, AChunkCutShortIsAnErrorAfterWhatCameWhole) {
  Serve([](const ServedRequest&, ServedConnection& connection) {
    connection.BeginChunked();
    connection.Chunk(Event("ADDED", ConfigMap("a", "6")));
    connection.Write("100\r\n{\"type\":\"MOD");
    connection.Close();
  });
  const Status status = Watch();
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().code, ErrorCode::kUnavailable);
  EXPECT_EQ(seen_, std::vector<std::string>{"a@6"});
}

TEST_F(RestClientWatchTest, AStreamThatEndsWithinALineIsAnError) {
  Serve([](const ServedRequest&, ServedConnection& connection) {
    connection.BeginChunked();
    connection.Chunk("{\"type\":\"ADDED\",");
    connection.EndChunks();
  });
  const Status status = Watch();
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().code, ErrorCode::kUnavailable);
}

TEST_F(RestClientWatchTest, AHalfOpenConnectionMeetsTheIdleLimit) {
  options_.watch_idle_timeout = std::chrono::milliseconds(200);
  Serve([](const ServedRequest&, ServedConnection& connection) {
    connection.BeginChunked();
    connection.Chunk(Event("ADDED", ConfigMap("a", "6")));
    connection.Stall();
  });
  const Status status = Watch();
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().code, ErrorCode::kDeadlineExceeded);
  EXPECT_EQ(seen_.size(), 1u);
}

TEST_F(RestClientWatchTest, AResetInMidStreamIsUnavailable) {
  Serve([](const ServedRequest&, ServedConnection& connection) {
    connection.BeginChunked();
    connection.Reset();
  });
  const Status status = Watch();
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().code, ErrorCode::kUnavailable);
}

TEST_F(RestClientWatchTest, StopEndsASilentWatchAtOnceWithSuccess) {
  std::promise<void> serving;
  Serve([&](const ServedRequest&, ServedConnection& connection) {
    connection.BeginChunked();
    serving.set_value();
    connection.Stall();
  });
  std::stop_source stop;
  client();
  auto watch = std::async(std::launch::async, [&] { return Watch(stop.get_token()).ok(); });
  serving.get_future().wait();
  stop.request_stop();
  // Far less than the idle limit of 150 s.
  ASSERT_EQ(watch.wait_for(std::chrono::seconds(20)), std::future_status::ready);
  EXPECT_TRUE(watch.get());
}

TEST_F(RestClientWatchTest, AStopThatWasAskedForBeforehandEndsTheWatchToo) {
  Serve([](const ServedRequest&, ServedConnection& connection) { connection.Stall(); });
  std::stop_source stop;
  stop.request_stop();
  EXPECT_TRUE(Watch(stop.get_token()).ok());
}

TEST_F(RestClientWatchTest, ACallbackThatWantsNoMoreEndsTheWatch) {
  Serve([](const ServedRequest&, ServedConnection& connection) {
    connection.BeginChunked();
    connection.Chunk(Event("ADDED", ConfigMap("a", "6")) + Event("ADDED", ConfigMap("b", "7")));
    connection.Stall();
  });
  int events = 0;
  const Status status =
      client().Watch(kConfigMaps, "ns", {}, [&](const WatchEvent&) { return ++events < 1; }, {});
  EXPECT_TRUE(status.ok());
  EXPECT_EQ(events, 1);
}

TEST_F(RestClientWatchTest, ALineBeyondTheLimitIsRefused) {
  options_.max_watch_line_bytes = 1000;
  Serve([](const ServedRequest&, ServedConnection& connection) {
    connection.BeginChunked();
    connection.Chunk(std::string(5000, 'x'));
    connection.Stall();
  });
  const Status status = Watch();
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().code, ErrorCode::kResourceExhausted);
}

TEST_F(RestClientWatchTest, ASlowReceiverHoldsTheServerBack) {
  std::atomic<size_t> sent{0};
  std::atomic<bool> read_on{false};
  constexpr size_t kEvents = 2000;
  const std::string event =
      Event("ADDED", json{{"metadata", {{"name", "a"}, {"resourceVersion", "1"}}},
                          {"data", std::string(20'000, 'x')}});
  Serve([&](const ServedRequest&, ServedConnection& connection) {
    connection.BeginChunked();
    for (size_t i = 0; i < kEvents; ++i) {
      connection.Chunk(event);
      ++sent;
    }
    connection.EndChunks();
  });
  client();
  size_t received = 0;
  auto watch = std::async(std::launch::async, [&] {
    return client_
        ->Watch(kConfigMaps, "ns", {},
                [&](const WatchEvent&) {
                  ++received;
                  while (!read_on.load()) std::this_thread::yield();
                  return true;
                },
                {})
        .ok();
  });
  // 40 MB are offered; what the sockets and our buffer hold is far less, so the sender must stall:
  // it is seen to make no progress over many looks.
  size_t last = 0;
  for (int still = 0; still < 50;) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    const size_t now = sent.load();
    still = now == last && now > 0 ? still + 1 : 0;
    last = now;
    ASSERT_LT(now, kEvents) << "everything was taken in while nobody read";
  }
  read_on.store(true);
  EXPECT_TRUE(watch.get());
  EXPECT_EQ(received, kEvents);
}

}  // namespace
}  // namespace quern::control::kube::testing
