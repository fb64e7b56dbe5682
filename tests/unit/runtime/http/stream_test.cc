// Streamed answers: order, chunks, back-pressure, clients that leave or do not read.
#include <gtest/gtest.h>

#include <string>
#include <thread>
#include <vector>

#include "tests/unit/runtime/http/test_server.h"

namespace quern::http {
namespace {

const char kStream[] = "GET /stream HTTP/1.1\r\nHost: t\r\n\r\n";

// Routes GET /stream to a handler that begins a stream and hands its responder to the test.
class StreamTest : public ServerTest {
 protected:
  StreamTest() {
    router.Add("GET", "/stream", "stream", [this](Request, ResponderPtr responder) {
      Response head;
      head.content_type = "text/event-stream";
      responder->BeginStream(head);
      responder->SetCallbacks([this] { gate.Change([&] { ++writable; }); },
                              [this] { gate.Change([&] { ++gone; }); });
      gate.Change([&] { stream = responder; });
    });
  }
  ~StreamTest() override {
    gate.Change([&] { stream.reset(); });
    server.reset();
  }

  // Runs `task` on the stream's strand and waits for it.
  void OnStrand(std::function<void(Responder&)> task) {
    bool done = false;
    ASSERT_TRUE(gate.Wait([&] { return stream != nullptr; }));
    stream->Post([&, r = stream] {
      task(*r);
      gate.Change([&] { done = true; });
    });
    ASSERT_TRUE(gate.Wait([&] { return done; }));
  }

  Gate gate;
  ResponderPtr stream;
  int writable = 0;
  int gone = 0;
};

TEST_F(StreamTest, ChunksArriveInOrderAndTheConnectionGoesOn) {
  StartServer();
  RawClient client(port);
  ASSERT_TRUE(client.Send(kStream));
  OnStrand([](Responder& r) { r.Write("one"); });
  EXPECT_NE(client.ReadUntil("3\r\none\r\n").find("Transfer-Encoding: chunked"), std::string::npos);
  OnStrand([](Responder& r) {
    r.Write("two and three");
    r.Finish();
    EXPECT_TRUE(r.Done());
    r.Write("too late");
  });
  EXPECT_NE(client.ReadUntil("\r\n0\r\n\r\n").find("d\r\ntwo and three\r\n0\r\n\r\n"),
            std::string::npos);
  client.received.clear();
  ASSERT_TRUE(client.Send("GET /hello HTTP/1.1\r\nHost: t\r\n\r\n"));
  EXPECT_NE(client.ReadResponse().find("hello"), std::string::npos);
  EXPECT_EQ(gone, 0);
}

// Of a stream whose length is told before: BeginStream is the test's.
class SizedStreamTest : public ServerTest {
 protected:
  void Serve(uint64_t length, std::vector<std::string> pieces) {
    router.Add("GET", "/sized", "sized",
               [length, pieces = std::move(pieces)](const Request&, const ResponderPtr& responder) {
                 Response head;
                 head.stream_length = length;
                 responder->BeginStream(head);
                 for (const std::string& piece : pieces) responder->Write(piece);
                 responder->Finish();
               });
    StartServer();
  }
  const std::string request = "GET /sized HTTP/1.1\r\nHost: t\r\n\r\n";
};

TEST_F(SizedStreamTest, HasItsLengthAndTheConnectionGoesOn) {
  Serve(5, {"he", "llo"});
  RawClient client(port);
  for (int i = 0; i < 2; ++i) {
    ASSERT_TRUE(client.Send(request));
    const std::string answer = client.ReadResponse();
    EXPECT_NE(answer.find("Content-Length: 5\r\n"), std::string::npos);
    EXPECT_EQ(answer.find("Transfer-Encoding"), std::string::npos);
    EXPECT_TRUE(answer.ends_with("\r\n\r\nhello"));
  }
}

TEST_F(SizedStreamTest, HeadGetsTheLengthAlone) {
  Serve(5, {"hello"});
  RawClient client(port);
  ASSERT_TRUE(client.Send("HEAD /sized HTTP/1.1\r\nHost: t\r\n\r\n" + std::string(kGet)));
  const std::string& all = client.ReadUntil("true}");
  EXPECT_NE(all.find("Content-Length: 5\r\n"), std::string::npos);
  EXPECT_EQ(all.find("hello\r"), std::string::npos);
}

// Nobody may take other bytes for the answer, or for the next one.
TEST_F(SizedStreamTest, TooFewBytesCloseTheConnection) {
  Serve(5, {"hell"});
  RawClient client(port);
  ASSERT_TRUE(client.Send(request));
  EXPECT_TRUE(client.ClosedByServer());
}

TEST_F(SizedStreamTest, TooManyBytesCloseTheConnection) {
  Serve(5, {"hello", "!"});
  RawClient client(port);
  ASSERT_TRUE(client.Send(request));
  EXPECT_TRUE(client.ClosedByServer());
  EXPECT_EQ(client.received.find('!'), std::string::npos);
}

TEST_F(StreamTest, Http10StreamEndsWithTheConnection) {
  StartServer();
  RawClient client(port);
  ASSERT_TRUE(client.Send("GET /stream HTTP/1.0\r\n\r\n"));
  OnStrand([](Responder& r) {
    r.Write("all");
    r.Finish();
  });
  EXPECT_TRUE(client.ClosedByServer());
  EXPECT_EQ(client.received.substr(client.received.find("\r\n\r\n")), "\r\n\r\nall");
}

TEST_F(StreamTest, ClientThatLeavesIsNoticedWithoutAnyWrite) {
  StartServer();
  {
    RawClient client(port);
    ASSERT_TRUE(client.Send(kStream));
    client.ReadUntil("\r\n\r\n");
  }
  EXPECT_TRUE(gate.Wait([&] { return gone == 1; }));
  OnStrand([](Responder& r) {
    EXPECT_TRUE(r.Done());
    r.Write("into the void");
    r.Finish();
  });
  EXPECT_TRUE(observer.WaitForRequest("stream", 499));
  EXPECT_TRUE(WaitForConnections(0));
}

TEST_F(StreamTest, ClientThatLeavesAfterPipeliningMoreIsNoticedToo) {
  StartServer();
  {
    RawClient client(port);
    ASSERT_TRUE(client.Send(std::string(kStream) + "GET /hello HTTP/1.1\r\nHost: t\r\n\r\n"));
    client.ReadUntil("\r\n\r\n");
  }
  EXPECT_TRUE(gate.Wait([&] { return gone == 1; }));
}

TEST_F(StreamTest, ClientThatLeavesAfterSendingFarAheadIsNoticedToo) {
  limits.max_pipelined_bytes = 16 * 1024;
  StartServer();
  {
    RawClient client(port);
    ASSERT_TRUE(client.Send(kStream));
    client.ReadUntil("\r\n\r\n");
    ASSERT_TRUE(client.Send(std::string(256 * 1024, 'x')));
    EXPECT_TRUE(observer.WaitForLimit(HttpLimit::kPipelinedBytes));
  }
  EXPECT_TRUE(gate.Wait([&] { return gone == 1; }));
}

TEST_F(StreamTest, AnswerIsTheLastOneForAClientThatSendsFarAhead) {
  limits.max_pipelined_bytes = 16 * 1024;
  StartServer();
  RawClient client(port);
  ASSERT_TRUE(client.Send(kStream));
  client.ReadUntil("\r\n\r\n");
  std::string ahead;
  while (ahead.size() < 64 * 1024) ahead += "GET /hello HTTP/1.1\r\nHost: t\r\n\r\n";
  ASSERT_TRUE(client.Send(ahead));
  ASSERT_TRUE(observer.WaitForLimit(HttpLimit::kPipelinedBytes));
  OnStrand([](Responder& r) {
    r.Write("whole");
    r.Finish();
  });
  EXPECT_TRUE(client.ClosedByServer());
  EXPECT_NE(client.received.find("5\r\nwhole\r\n0\r\n\r\n"), std::string::npos);
  EXPECT_EQ(client.received.find("hello"), std::string::npos);
  EXPECT_EQ(gone, 0);
}

TEST_F(StreamTest, RequestPipelinedBehindAStreamIsAnsweredAfterIt) {
  StartServer();
  RawClient client(port);
  ASSERT_TRUE(client.Send(std::string(kStream) + "GET /hello HTTP/1.1\r\nHost: t\r\n\r\n"));
  OnStrand([](Responder& r) {
    r.Write("streamed");
    r.Finish();
  });
  client.ReadUntil("hello");
  EXPECT_LT(client.received.find("0\r\n\r\n"), client.received.find("hello"));
}

TEST_F(StreamTest, SlowReaderMakesTheWriterHoldBackAndIsToldWhenToGoOn) {
  limits.stream_high_water = 32 * 1024;
  limits.max_stream_buffer = 64 * 1024 * 1024;
  StartServer();
  RawClient client(port, /*receive_buffer=*/4096);
  ASSERT_TRUE(client.Send(kStream));
  // Larger than what the sockets' buffers take.
  OnStrand([](Responder& r) {
    EXPECT_TRUE(r.Writable());
    r.Write(std::string(16 << 20, 'x'));
    EXPECT_FALSE(r.Writable());
  });
  gate.Change([&] { writable = 0; });
  std::thread reader([&] { client.ReadUntil("0\r\n\r\n"); });
  EXPECT_TRUE(gate.Wait([&] { return writable > 0; }));
  OnStrand([](Responder& r) {
    EXPECT_TRUE(r.Writable());
    r.Finish();
  });
  reader.join();
  EXPECT_GT(client.received.size(), size_t{16} << 20);
  EXPECT_EQ(gone, 0);
}

TEST_F(StreamTest, ReaderThatTakesNothingIsDroppedByTheWriteTimeout) {
  limits.write_timeout = std::chrono::milliseconds(100);
  limits.max_stream_buffer = 64 * 1024 * 1024;
  StartServer();
  RawClient client(port, /*receive_buffer=*/4096);
  ASSERT_TRUE(client.Send(kStream));
  OnStrand([](Responder& r) { r.Write(std::string(16 << 20, 'x')); });
  EXPECT_TRUE(gate.Wait([&] { return gone == 1; }));
  EXPECT_TRUE(observer.WaitForLimit(HttpLimit::kWriteTime));
}

TEST_F(StreamTest, ReaderThatTakesAByteNowAndThenIsDroppedToo) {
  limits.write_timeout = std::chrono::milliseconds(20);
  limits.min_drain_bytes_per_second = size_t{1} << 40;  // nobody is as fast
  limits.max_stream_buffer = 64 * 1024 * 1024;
  StartServer();
  RawClient client(port, /*receive_buffer=*/4096);
  ASSERT_TRUE(client.Send(kStream));
  OnStrand([](Responder& r) { r.Write(std::string(60 << 20, 'x')); });
  std::thread reader([&] { client.ReadAll(); });
  EXPECT_TRUE(observer.WaitForLimit(HttpLimit::kWriteTime));
  EXPECT_TRUE(gate.Wait([&] { return gone == 1; }));
  reader.join();
}

TEST_F(StreamTest, QuietStreamIsNotTakenForAStalledOne) {
  limits.write_timeout = std::chrono::milliseconds(400);
  limits.idle_timeout = std::chrono::milliseconds(800);
  StartServer();
  RawClient client(port);
  ASSERT_TRUE(client.Send(kStream));
  OnStrand([](Responder& r) { r.Write("first"); });
  client.ReadUntil("first");
  RawClient idle(port);  // its idle timeout shows that more than the write timeout has passed
  EXPECT_TRUE(idle.ClosedByServer());
  OnStrand([](Responder& r) {
    r.Write("second");
    r.Finish();
  });
  EXPECT_NE(client.ReadUntil("0\r\n\r\n").find("second"), std::string::npos);
}

TEST_F(StreamTest, WriterThatDoesNotHoldBackLosesTheConnectionAtTheBound) {
  limits.max_stream_buffer = 1 << 20;
  StartServer();
  RawClient client(port, /*receive_buffer=*/4096);
  ASSERT_TRUE(client.Send(kStream));
  OnStrand([](Responder& r) {
    for (int i = 0; i < 2000 && !r.Done(); ++i) r.Write(std::string(4096, 'x'));
    EXPECT_TRUE(r.Done());
  });
  EXPECT_TRUE(observer.WaitForLimit(HttpLimit::kStreamBuffer));
  EXPECT_TRUE(gate.Wait([&] { return gone == 1; }));
}

TEST_F(StreamTest, StreamGivenUpByItsWriterIsCutNotEnded) {
  StartServer();
  RawClient client(port);
  ASSERT_TRUE(client.Send(kStream));
  ASSERT_TRUE(gate.Wait([&] { return stream != nullptr; }));
  gate.Change([&] { stream.reset(); });
  EXPECT_TRUE(client.ClosedByServer());
  EXPECT_EQ(client.received.find("0\r\n\r\n"), std::string::npos);
}

TEST_F(StreamTest, StopWaitsForAStreamAndSaysSoIfItHasToCutOne) {
  StartServer();
  RawClient client(port);
  ASSERT_TRUE(client.Send(kStream));
  OnStrand([](Responder& r) { r.Write("going on"); });
  std::thread finisher([&] {
    client.ReadUntil("going on");
    OnStrand([](Responder& r) { r.Finish(); });
    client.ReadAll();
  });
  EXPECT_TRUE(server->Stop(RawClient::kPatience));
  finisher.join();
  EXPECT_NE(client.received.find("0\r\n\r\n"), std::string::npos);
}

TEST_F(StreamTest, StopCutsAStreamThatOutlastsTheTimeout) {
  StartServer();
  RawClient client(port);
  ASSERT_TRUE(client.Send(kStream));
  OnStrand([](Responder& r) { r.Write("endless"); });
  EXPECT_FALSE(server->Stop(std::chrono::milliseconds(20)));
  EXPECT_EQ(gone, 1);
  EXPECT_TRUE(client.ClosedByServer());
}

}  // namespace
}  // namespace quern::http
