#include "operator/controller/event_recorder.h"

#include <gtest/gtest.h>

#include "tests/unit/operator/controller/fake_client.h"

namespace quern::control {
namespace {

using kube::json;
using std::chrono::seconds;
using testing::FakeClient;
using testing::Object;

constexpr seconds kLong{30};

TEST(EventRecorder, AnEventTellsWhatItIsAbout) {
  FakeClient client;
  EventRecorder recorder(client, {.instance = "pod-1"});
  recorder.Warning(Object("chat", "3"), "ModelMissing", "Reconcile", "no such file");
  ASSERT_TRUE(recorder.Flush(kLong));
  const auto events = client.All();
  ASSERT_EQ(events.size(), 1u);
  const json& event = events[0];
  EXPECT_EQ(event["type"], "Warning");
  EXPECT_EQ(event["reason"], "ModelMissing");
  EXPECT_EQ(event["action"], "Reconcile");
  EXPECT_EQ(event["note"], "no such file");
  EXPECT_EQ(event["reportingInstance"], "pod-1");
  EXPECT_EQ(event["regarding"]["name"], "chat");
  EXPECT_EQ(event["regarding"]["uid"], "uid-chat");
  EXPECT_EQ(event["regarding"]["namespace"], "ns");
  EXPECT_EQ(event["metadata"]["namespace"], "ns");
}

TEST(EventRecorder, RepetitionsAreCountedInOneSeriesAndOthersAreNot) {
  FakeClient client;
  EventRecorder recorder(client, {});
  for (int i = 0; i < 5; ++i) recorder.Normal(Object("a", "1"), "Scaled", "Scale", "to 2");
  recorder.Normal(Object("a", "1"), "Scaled", "Scale", "to 3");
  recorder.Normal(Object("b", "1"), "Scaled", "Scale", "to 2");
  ASSERT_TRUE(recorder.Flush(kLong));
  const auto events = client.All();
  ASSERT_EQ(events.size(), 3u);
  int series = 0;
  for (const json& event : events) {
    if (!event.contains("series")) continue;
    ++series;
    EXPECT_EQ(event["series"]["count"], 5);
    EXPECT_EQ(event["note"], "to 2");
  }
  EXPECT_EQ(series, 1);
  EXPECT_EQ(recorder.sent(), 7u);
}

TEST(EventRecorder, ASeriesWhoseEventIsGoneBeginsAnew) {
  FakeClient client;
  EventRecorder recorder(client, {});
  recorder.Normal(Object("a", "1"), "R", "A", "n");
  ASSERT_TRUE(recorder.Flush(kLong));
  client.Erase("ns", kube::ObjectName(client.All().at(0)));
  recorder.Normal(Object("a", "1"), "R", "A", "n");
  ASSERT_TRUE(recorder.Flush(kLong));
  ASSERT_EQ(client.All().size(), 1u);
  EXPECT_FALSE(client.All()[0].contains("series"));
}

TEST(EventRecorder, AnObjectThatRepeatsItselfIsQuietenedAndOthersAreHeard) {
  FakeClient client;
  EventRecorder recorder(client, {.burst = 3, .per_second = 0});
  for (int i = 0; i < 10; ++i) {
    recorder.Normal(Object("a", "1"), "R", "A", "note " + std::to_string(i));
  }
  recorder.Normal(Object("b", "1"), "R", "A", "n");
  ASSERT_TRUE(recorder.Flush(kLong));
  EXPECT_EQ(client.All().size(), 4u);
  EXPECT_EQ(recorder.dropped(), 7u);
}

TEST(EventRecorder, AFullQueueDropsAndCountsInsteadOfBlocking) {
  FakeClient client;
  std::atomic<bool> go{false};
  client.intercept = [&](const std::string&, const json&) -> Status {
    while (!go) std::this_thread::yield();
    return {};
  };
  EventRecorder recorder(client, {.max_pending = 2, .burst = 1000});
  for (int i = 0; i < 100; ++i) {
    recorder.Normal(Object("a", "1"), "R", "A", "note " + std::to_string(i));
  }
  EXPECT_GE(recorder.dropped(), 97u);  // two wait, at most one is being sent
  go = true;
  ASSERT_TRUE(recorder.Flush(kLong));
  EXPECT_EQ(recorder.sent() + recorder.dropped(), 100u);
}

TEST(EventRecorder, AFailureThatMayPassIsTriedAgainAndOneThatMayNotIsCounted) {
  FakeClient client;
  std::atomic<int> calls{0};
  client.intercept = [&](const std::string&, const json& body) -> Status {
    if (body.value("reason", "") == "Forbidden") {
      return MakeError(ErrorCode::kPermissionDenied, "no");
    }
    if (calls.fetch_add(1) == 0) return MakeError(ErrorCode::kUnavailable, "reset");
    return {};
  };
  EventRecorder recorder(client, {});
  recorder.Normal(Object("a", "1"), "R", "A", "n");
  recorder.Normal(Object("a", "1"), "Forbidden", "A", "n");
  ASSERT_TRUE(recorder.Flush(kLong));
  EXPECT_EQ(recorder.sent(), 1u);
  EXPECT_EQ(recorder.failed(), 1u);
  EXPECT_EQ(calls.load(), 2);
}

TEST(EventRecorder, TellsOfEveryEventThatNobodyWillSee) {
  FakeClient client;
  client.intercept = [](const std::string&, const json&) -> Status {
    return MakeError(ErrorCode::kPermissionDenied, "no");
  };
  std::atomic<int> too_many{0}, not_sent{0};
  EventRecorderOptions options{.burst = 3, .per_second = 0};
  options.on_lost = [&](const char* reason) {
    ++(std::string(reason) == "too_many" ? too_many : not_sent);
  };
  EventRecorder recorder(client, options);
  for (int i = 0; i < 10; ++i) recorder.Normal(Object("a", "1"), "R", "A", "n");
  ASSERT_TRUE(recorder.Flush(kLong));
  EXPECT_EQ(too_many, 7);
  EXPECT_EQ(not_sent, 3);
}

TEST(EventRecorder, WhatIsPendingIsSentBeforeTheEnd) {
  FakeClient client;
  {
    EventRecorder recorder(client, {});
    recorder.Normal(Object("a", "1"), "R", "A", "n");
  }
  EXPECT_EQ(client.All().size(), 1u);
}

TEST(EventRecorder, ALongNoteIsCutAtAWholeCharacter) {
  FakeClient client;
  EventRecorder recorder(client, {});
  std::string note;
  while (note.size() < 3000) note += "ä";
  recorder.Normal(Object("a", "1"), "R", "A", "x" + note);
  recorder.Normal(Object("a", "1"), "R", "A", "xy" + note);
  ASSERT_TRUE(recorder.Flush(kLong));
  ASSERT_EQ(client.All().size(), 2u);
  for (const json& event : client.All()) {
    EXPECT_LE(event["note"].get<std::string>().size(), 1024u);
    EXPECT_NO_THROW((void)event.dump());  // throws on broken UTF-8
  }
}

}  // namespace
}  // namespace quern::control
