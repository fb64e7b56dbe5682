#include "runtime/http/server.h"

#include <gtest/gtest.h>

#include <atomic>
#include <string>
#include <thread>

#include "tests/unit/runtime/http/test_server.h"

namespace quern::http {
namespace {

using testing::Test;

std::string Post(const std::string& body) {
  return "POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: " + std::to_string(body.size()) +
         "\r\n\r\n" + body;
}

TEST_F(ServerTest, AnswersRequestsOneAfterTheOtherOnOneConnection) {
  StartServer();
  RawClient client(port);
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(client.Send(kGet));
    const std::string response = client.ReadResponse();
    EXPECT_EQ(response.rfind("HTTP/1.1 200 OK\r\n", 0), 0u) << response;
    EXPECT_NE(response.find("Connection: keep-alive"), std::string::npos);
    EXPECT_NE(response.find("\r\n\r\n{\"hello\":true}"), std::string::npos);
  }
  EXPECT_EQ(server->connections(), 1);
  EXPECT_TRUE(observer.WaitForRequest("hello", 200, 3));
}

TEST_F(ServerTest, PipelinedRequestsAreAnsweredInOrder) {
  StartServer();
  RawClient client(port);
  ASSERT_TRUE(client.Send(Post("first") + kGet + Post("third")));
  EXPECT_NE(client.ReadResponse().find("\r\n\r\nfirst"), std::string::npos);
  EXPECT_NE(client.ReadResponse().find("hello"), std::string::npos);
  EXPECT_NE(client.ReadResponse().find("\r\n\r\nthird"), std::string::npos);
}

TEST_F(ServerTest, RequestMayArriveByteByByte) {
  StartServer();
  RawClient client(port);
  for (const char c : Post("slowly")) ASSERT_TRUE(client.Send(std::string_view(&c, 1)));
  EXPECT_NE(client.ReadResponse().find("\r\n\r\nslowly"), std::string::npos);
}

TEST_F(ServerTest, ChunkedRequestBodyIsPutTogether) {
  StartServer();
  RawClient client(port);
  ASSERT_TRUE(
      client.Send("POST /echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n"
                  "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"));
  EXPECT_NE(client.ReadResponse().find("\r\n\r\nabcde"), std::string::npos);
}

TEST_F(ServerTest, HeadHasTheLengthButNoBody) {
  StartServer();
  RawClient client(port);
  ASSERT_TRUE(client.Send("HEAD /hello HTTP/1.1\r\nHost: t\r\n\r\n" + Post("x")));
  client.ReadUntil("\r\n\r\nx");
  const std::string head = client.received.substr(0, client.received.find("\r\n\r\n"));
  EXPECT_NE(head.find("Content-Length: 14"), std::string::npos);
  EXPECT_EQ(client.received.find("hello"), std::string::npos);
}

TEST_F(ServerTest, GuardRefusesBeforeTheBodyIsSent) {
  router.SetGuard([](const Request& head) -> std::optional<Response> {
    EXPECT_TRUE(head.body.empty() || FindHeader(head.headers, "X-Whole"));
    if (FindHeader(head.headers, "X-Pass")) return std::nullopt;
    Response refusal;
    refusal.status = 401;
    return refusal;
  });
  StartServer();
  RawClient sender(port);
  ASSERT_TRUE(
      sender.Send("POST /echo HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\n"
                  "Content-Length: 1000000\r\n\r\n"));
  EXPECT_TRUE(sender.ClosedByServer());
  EXPECT_EQ(sender.received.rfind("HTTP/1.1 401", 0), 0u) << sender.received;
  EXPECT_TRUE(observer.WaitForRequest("echo", 401));
  // One that came whole is refused too, and its connection goes on.
  RawClient whole(port);
  ASSERT_TRUE(
      whole.Send("POST /echo HTTP/1.1\r\nHost: t\r\nX-Whole: 1\r\n"
                 "Content-Length: 2\r\n\r\nab"));
  EXPECT_EQ(whole.ReadResponse().rfind("HTTP/1.1 401", 0), 0u);
  const std::string head = "POST /echo HTTP/1.1\r\nHost: t\r\nX-Pass: 1\r\nX-Whole: 1\r\n";
  ASSERT_TRUE(whole.Send(head + "Content-Length: 2\r\n\r\n"));
  ASSERT_TRUE(whole.Send("cd"));
  EXPECT_NE(whole.ReadResponse().find("\r\n\r\ncd"), std::string::npos);
}

TEST_F(ServerTest, ConnectionCloseAndHttp10AreHonoured) {
  StartServer();
  for (const char* request : {"GET /hello HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n",
                              "GET /hello HTTP/1.0\r\n\r\n"}) {
    RawClient client(port);
    ASSERT_TRUE(client.Send(request));
    EXPECT_TRUE(client.ClosedByServer());
    EXPECT_NE(client.received.find("Connection: close"), std::string::npos);
    EXPECT_NE(client.received.find("{\"hello\":true}"), std::string::npos);
  }
}

TEST_F(ServerTest, ExpectContinueIsAnsweredBeforeTheBodyIsSent) {
  StartServer();
  RawClient client(port);
  ASSERT_TRUE(client.Send(
      "POST /echo HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"));
  EXPECT_EQ(client.ReadUntil("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
  client.received.clear();
  ASSERT_TRUE(client.Send("body"));
  EXPECT_NE(client.ReadResponse().find("\r\n\r\nbody"), std::string::npos);
}

TEST_F(ServerTest, BodyOverTheLimitIs413WithoutBeingRead) {
  limits.max_body_bytes = 1000;
  StartServer();
  RawClient client(port);
  ASSERT_TRUE(client.Send(
      "POST /echo HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 1001\r\n\r\n"));
  EXPECT_TRUE(client.ClosedByServer());
  EXPECT_EQ(client.received.rfind("HTTP/1.1 413 ", 0), 0u) << client.received;
  EXPECT_NE(client.received.find("limit of 1000 bytes"), std::string::npos);
  EXPECT_TRUE(observer.WaitForLimit(HttpLimit::kBodyBytes));
}

TEST_F(ServerTest, ClientThatSendsItsTooLargeBodyAnywayStillGetsTheAnswer) {
  limits.max_body_bytes = 1000;
  StartServer();
  RawClient client(port);
  // Larger than the socket buffers: a server that closed at once would reset the connection.
  ASSERT_TRUE(client.Send(Post(std::string(8 << 20, 'x'))));
  client.CloseSendingSide();
  EXPECT_EQ(client.ReadUntil("bytes").rfind("HTTP/1.1 413 ", 0), 0u);
}

TEST_F(ServerTest, ChunkedBodyOverTheLimitIs413) {
  limits.max_body_bytes = 1000;
  StartServer();
  RawClient client(port);
  ASSERT_TRUE(
      client.Send("POST /echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n"
                  "fff\r\n" +
                  std::string(0xfff, 'x') + "\r\n0\r\n\r\n"));
  EXPECT_EQ(client.ReadUntil("bytes").rfind("HTTP/1.1 413 ", 0), 0u);
}

TEST_F(ServerTest, HeaderOverTheLimitIs431) {
  limits.max_header_bytes = 1024;
  StartServer();
  RawClient client(port);
  client.Send("GET /hello HTTP/1.1\r\nX-Long: " + std::string(4096, 'x'));
  EXPECT_EQ(client.ReadUntil("bytes").rfind("HTTP/1.1 431 ", 0), 0u) << client.received;
  EXPECT_TRUE(observer.WaitForLimit(HttpLimit::kHeaderBytes));
}

TEST_F(ServerTest, ChunkExtensionWithoutEndIs431AndNotKept) {
  limits.max_header_bytes = 1024;
  StartServer();
  RawClient client(port);
  ASSERT_TRUE(
      client.Send("POST /echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n1;a="));
  client.Send(std::string(64 * 1024, 'x'));
  EXPECT_EQ(client.ReadUntil("bytes").rfind("HTTP/1.1 431 ", 0), 0u) << client.received;
  EXPECT_TRUE(observer.WaitForLimit(HttpLimit::kHeaderBytes));
}

TEST_F(ServerTest, BodiesThatArriveAtOnceShareABudgetWhichSmallOnesDoNotNeed) {
  limits.max_held_body_bytes = 100'000;
  limits.small_bytes = 1000;
  StartServer(/*io_threads=*/1);  // of two at the same instant both might be refused
  const std::string head = "POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 90001\r\n\r\n";
  RawClient first(port);
  ASSERT_TRUE(first.Send(head + std::string(90'000, 'x')));
  RawClient second(port);
  second.Send(head + std::string(90'000, 'x'));
  // Whichever came second to the budget is refused; the other one, and small ones, go on.
  ASSERT_TRUE(observer.WaitForLimit(HttpLimit::kHeldBodies));
  ASSERT_TRUE(observer.WaitForRequest("none", 503));
  RawClient small(port);
  ASSERT_TRUE(small.Send(Post(std::string(500, 's'))));
  EXPECT_EQ(small.ReadResponse().rfind("HTTP/1.1 200 ", 0), 0u);
  first.Send("y");
  second.Send("y");
  const std::string answers[] = {first.ReadResponse(), second.ReadResponse()};
  const bool first_refused = answers[0].rfind("HTTP/1.1 503 ", 0) == 0;
  EXPECT_NE(answers[first_refused ? 0 : 1].find("Retry-After: 1"), std::string::npos);
  EXPECT_EQ(answers[first_refused ? 1 : 0].rfind("HTTP/1.1 200 ", 0), 0u);
  // All was given back: the budget holds a whole body again.
  RawClient third(port);
  ASSERT_TRUE(third.Send(Post(std::string(90'000, 'x'))));
  EXPECT_EQ(third.ReadResponse().rfind("HTTP/1.1 200 ", 0), 0u);
}

TEST_F(ServerTest, AnswersThatNobodyTakesShareABudgetWhichSmallOnesDoNotNeed) {
  limits.max_held_response_bytes = 24 << 20;
  router.Add("GET", "/large", "large", [](Request, ResponderPtr responder) {
    Response response;
    response.body = std::string(16 << 20, 'x');
    responder->Send(response);
  });
  StartServer();
  const char get[] = "GET /large HTTP/1.1\r\nHost: t\r\n\r\n";
  RawClient slow(port, /*receive_buffer=*/4096);
  ASSERT_TRUE(slow.Send(get));
  ASSERT_TRUE(observer.WaitForRequest("large", 200));
  RawClient second(port, /*receive_buffer=*/4096);
  ASSERT_TRUE(second.Send(get));
  EXPECT_EQ(second.ReadUntil("later").rfind("HTTP/1.1 503 ", 0), 0u) << second.received;
  EXPECT_TRUE(observer.WaitForLimit(HttpLimit::kHeldResponses));
  RawClient small(port);
  ASSERT_TRUE(small.Send(kGet));
  EXPECT_EQ(small.ReadResponse().rfind("HTTP/1.1 200 ", 0), 0u);
  slow.Close();
  second.Close();
  small.Close();
  ASSERT_TRUE(WaitForConnections(0));
  RawClient third(port);
  ASSERT_TRUE(third.Send(get));
  EXPECT_EQ(third.ReadResponse().rfind("HTTP/1.1 200 ", 0), 0u);
}

TEST_F(ServerTest, WhatIsNotHttpIs400) {
  StartServer();
  for (const char* bytes :
       {"\x16\x03\x01\x02\x01\x01\xfc\x03\x03hello over tls\r\n\r\n", "GET / HTTP/9.9\r\n\r\n",
        "POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: x\r\n\r\n",
        "POST /echo HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"}) {
    RawClient client(port);
    client.Send(bytes);
    EXPECT_EQ(client.ReadUntil("}}").rfind("HTTP/1.1 400 ", 0), 0u) << client.received;
    EXPECT_TRUE(client.ClosedByServer());
  }
}

TEST_F(ServerTest, HeaderThatDoesNotArriveIs408) {
  limits.header_timeout = std::chrono::milliseconds(50);
  StartServer();
  RawClient client(port);
  ASSERT_TRUE(client.Send("GET /hel"));
  EXPECT_EQ(client.ReadUntil("within").rfind("HTTP/1.1 408 ", 0), 0u) << client.received;
  EXPECT_TRUE(observer.WaitForLimit(HttpLimit::kHeaderTime));
  EXPECT_TRUE(observer.WaitForRequest("none", 408));
}

TEST_F(ServerTest, BodyThatTricklesInIs408EvenIfBytesKeepComing) {
  limits.body_timeout = std::chrono::milliseconds(200);
  StartServer();
  RawClient client(port);
  ASSERT_TRUE(client.Send("POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 4000000\r\n\r\n"));
  std::atomic<bool> answered{false};
  std::thread reader([&] {
    client.ReadUntil("within");
    answered = true;
  });
  // Until the answer comes; a server that took every byte for progress would never give one.
  while (!answered && client.Send("x")) std::this_thread::yield();
  reader.join();
  EXPECT_EQ(client.received.rfind("HTTP/1.1 408 ", 0), 0u) << client.received;
  EXPECT_TRUE(observer.WaitForLimit(HttpLimit::kBodyTime));
}

TEST_F(ServerTest, IdleConnectionIsClosedWithoutAWord) {
  limits.idle_timeout = std::chrono::milliseconds(50);
  StartServer();
  RawClient client(port);
  EXPECT_TRUE(client.ClosedByServer());
  EXPECT_EQ(client.received, "");
  EXPECT_TRUE(observer.WaitForLimit(HttpLimit::kIdleTime));
}

TEST_F(ServerTest, BodyOfAnUnknownEncodingIsNotTakenForTheNextRequest) {
  StartServer();
  RawClient client(port);
  client.Send("POST /echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked, identity\r\n\r\n" +
              std::string(kGet));
  EXPECT_TRUE(client.ClosedByServer());
  EXPECT_EQ(client.received.rfind("HTTP/1.1 400 ", 0), 0u) << client.received;
  EXPECT_EQ(client.received.find("hello"), std::string::npos);
}

TEST_F(ServerTest, TaskThatThrowsDoesNotEndTheServer) {
  router.Add("GET", "/later", "later", [](Request, ResponderPtr responder) {
    responder->Post([responder] { throw std::runtime_error("planted"); });
  });
  StartServer(/*io_threads=*/1);
  RawClient client(port);
  ASSERT_TRUE(client.Send("GET /later HTTP/1.1\r\nHost: t\r\n\r\n"));
  EXPECT_EQ(client.ReadResponse().rfind("HTTP/1.1 500 ", 0), 0u);
  ASSERT_TRUE(client.Send(kGet));
  EXPECT_EQ(client.ReadResponse().rfind("HTTP/1.1 200 ", 0), 0u);
}

TEST_F(ServerTest, RequestGivenUpByItsHandlerIs500) {
  router.Add("GET", "/forgets", "forgets", [](Request, ResponderPtr) {});
  router.Add("GET", "/throws", "throws",
             [](Request, ResponderPtr) { throw std::runtime_error("planted"); });
  StartServer();
  RawClient client(port);
  ASSERT_TRUE(client.Send("GET /forgets HTTP/1.1\r\nHost: t\r\n\r\n"));
  EXPECT_EQ(client.ReadResponse().rfind("HTTP/1.1 500 ", 0), 0u);
  ASSERT_TRUE(client.Send("GET /throws HTTP/1.1\r\nHost: t\r\n\r\n"));
  EXPECT_EQ(client.ReadResponse().rfind("HTTP/1.1 500 ", 0), 0u);
}

TEST_F(ServerTest, DrainClosesIdleConnectionsAndAnswersTheRestOnce) {
  StartServer();
  RawClient idle(port);
  ASSERT_TRUE(idle.Send(kGet));
  idle.ReadResponse();
  server->BeginDrain();
  EXPECT_TRUE(idle.ClosedByServer());
  RawClient late(port);
  ASSERT_TRUE(late.Send(kGet));
  EXPECT_NE(late.ReadAll().find("Connection: close"), std::string::npos);
  EXPECT_TRUE(server->Stop(RawClient::kPatience));
  EXPECT_FALSE(RawClient(port).connected());
}

TEST_F(ServerTest, RequestThatWasOnItsWayWhenTheDrainBeganIsAnswered) {
  limits.drain_idle_timeout = RawClient::kPatience;
  StartServer();
  RawClient kept(port);
  ASSERT_TRUE(kept.Send(kGet));
  kept.ReadResponse();
  server->BeginDrain();
  RawClient witness(port);  // its answer comes after the drain has reached the kept connection
  ASSERT_TRUE(witness.Send(kGet));
  witness.ReadAll();
  ASSERT_TRUE(kept.Send(kGet));
  EXPECT_NE(kept.ReadResponse().find("Connection: close"), std::string::npos);
  EXPECT_TRUE(kept.ClosedByServer());
}

TEST_F(ServerTest, PortInUseAndUnknownHostAreErrorsThatSaySo) {
  StartServer();
  HttpServer other(1);
  ListenOptions options;
  options.port = port;
  const auto in_use = other.Listen(options, Router());
  ASSERT_FALSE(in_use.ok());
  EXPECT_EQ(in_use.error().code, ErrorCode::kUnavailable);
  EXPECT_NE(in_use.error().message.find(std::to_string(port)), std::string::npos);
  options.host = "256.1.1.1";
  const auto no_host = other.Listen(options, Router());
  ASSERT_FALSE(no_host.ok());
  EXPECT_EQ(no_host.error().code, ErrorCode::kInvalidArgument);
}

TEST_F(ServerTest, ManyClientsAtOnceEachGetTheirOwnAnswer) {
  StartServer();
  std::vector<std::thread> threads;
  std::atomic<int> right{0};
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] {
      RawClient client(port);
      for (int i = 0; i < 50; ++i) {
        const std::string body = "<" + std::to_string(t) + ":" + std::to_string(i) + ">";
        client.Send(Post(body));
        if (client.ReadResponse().find("\r\n\r\n" + body) != std::string::npos) ++right;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(right, 400);
  EXPECT_TRUE(WaitForConnections(0));
}

}  // namespace
}  // namespace quern::http
