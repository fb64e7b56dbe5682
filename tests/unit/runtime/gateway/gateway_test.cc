// Requests through a gateway to replicas of the test's making, over real connections.
#include <set>

#include "tests/unit/runtime/gateway/test_gateway.h"

namespace quern::gateway {
namespace {

using http::RawClient;

TEST_F(GatewayTest, RequestAndAnswerPassUnchanged) {
  FakeReplica replica("a");
  replica.Start();
  AddReplica(replica.port());
  StartGateway();
  RawClient client(port);
  const std::string body("{\"x\": \"\0\r\n\xff\"}", 13);
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(
        client.Send(Post("/echo", body, "X-Request-Id: r\r\nConnection: X-Hop\r\nX-Hop: 1\r\n")));
    const std::string answer = client.ReadResponse();
    EXPECT_TRUE(answer.starts_with("HTTP/1.1 200 OK\r\n")) << answer;
    EXPECT_TRUE(answer.ends_with("\r\n\r\n" + body)) << answer;
    EXPECT_NE(answer.find("Content-Length: 13\r\n"), std::string::npos);
    EXPECT_NE(answer.find("Got-X-Request-Id: r\r\n"), std::string::npos);
    EXPECT_NE(answer.find("Got-Host: t\r\n"), std::string::npos);
    EXPECT_NE(answer.find("Got-X-Forwarded-For: 127.0.0.1\r\n"), std::string::npos);
    EXPECT_EQ(answer.find("Got-X-Hop"), std::string::npos);
    EXPECT_EQ(answer.find("Date: ", answer.find("Date: ") + 1), std::string::npos);
  }
  EXPECT_TRUE(WaitForMetric("quern_gateway_request_body_bytes_total 39"));
  EXPECT_TRUE(observer.WaitForRequest("relay", 200, 3));
}

TEST_F(GatewayTest, LargeBodiesPassBothWays) {
  FakeReplica replica("a");
  replica.Start();
  AddReplica(replica.port());
  StartGateway();
  RawClient client(port, /*receive_buffer=*/8 * 1024);
  std::string body(3'000'000, 'x');
  for (size_t i = 0; i < body.size(); i += 97) body[i] = static_cast<char>(i);
  ASSERT_TRUE(client.Send(Post("/echo", body)));
  EXPECT_TRUE(client.ReadResponse().ends_with(body));
}

TEST_F(GatewayTest, TwoReplicasShareTheWork) {
  FakeReplica a("a"), b("b");
  a.Start();
  b.Start();
  AddReplica(a.port());
  AddReplica(b.port());
  StartGateway();
  ASSERT_TRUE(WaitForMetric("quern_gateway_replicas_ready 2"));
  RawClient client(port);
  for (int i = 0; i < 10; ++i) {
    ASSERT_TRUE(client.Send(Post("/echo", "x")));
    client.ReadResponse();
  }
  EXPECT_EQ(a.requests, 5);
  EXPECT_EQ(b.requests, 5);
}

TEST_F(GatewayTest, EventsPassAsTheyCome) {
  FakeReplica replica("a");
  replica.Start();
  AddReplica(replica.port());
  StartGateway();
  RawClient client(port);
  ASSERT_TRUE(client.Send(Post("/stream", "{}")));
  client.ReadUntil("data: one\n\n");
  ASSERT_TRUE(replica.gate.Wait([&] { return replica.stream != nullptr; }));
  EXPECT_EQ(client.received.find("half"), std::string::npos);
  replica.stream->Post([r = replica.stream] {
    r->Write(" two\n\n");
    r->Finish();
  });
  EXPECT_NE(client.ReadUntil("0\r\n\r\n").find("data: half two\n\n"), std::string::npos);
}

// A replica that sends as fast as it can is held back by a client that does not read.
TEST_F(GatewayTest, SlowClientHoldsTheReplicaBack) {
  constexpr size_t kBytes = size_t{64} << 20;
  FakeReplica replica("a");
  std::atomic<size_t> written{0};
  replica.router.Add(
      "POST", "/flood", "flood", [&](const http::Request&, const http::ResponderPtr& responder) {
        http::Response head;
        head.content_type = "application/octet-stream";
        responder->BeginStream(head);
        const auto write = [&written, weak = std::weak_ptr(responder)] {
          const auto r = weak.lock();
          while (r && !r->Done() && r->Writable() && written < kBytes) {
            r->Write(std::string(16 * 1024, static_cast<char>('a' + written / 16384 % 26)));
            written += 16 * 1024;
          }
          if (r && written == kBytes) r->Finish();
        };
        responder->SetCallbacks(write, [] {});
        replica.gate.Change([&] { replica.stream = responder; });
        write();
      });
  replica.Start();
  AddReplica(replica.port());
  StartGateway();
  RawClient client(port, /*receive_buffer=*/16 * 1024);
  ASSERT_TRUE(client.Send(Post("/flood", "{}")));
  client.ReadUntil("\r\n\r\n");
  // Until nothing moves any more: the buffers of four sockets, and no more, hold what is on its
  // way.
  size_t before = 0;
  while (before != written || written == 0) {
    before = written;
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
  }
  EXPECT_LT(written, kBytes / 2);
  size_t body = 0;
  const std::string& all = client.ReadUntil("\r\n0\r\n\r\n");
  for (const char c : all.substr(all.find("\r\n\r\n") + 4)) body += c >= 'g' && c <= 'z' ? 1 : 0;
  // Of 26 letters those that are no digits of chunks' lengths.
  size_t wanted = 0;
  for (size_t piece = 0; piece < kBytes / 16384; ++piece) wanted += piece % 26 >= 6 ? 16384 : 0;
  EXPECT_EQ(body, wanted);
}

TEST_F(GatewayTest, ClientThatLeavesIsToldToTheReplica) {
  FakeReplica replica("a");
  replica.Start();
  AddReplica(replica.port());
  StartGateway();
  {
    RawClient client(port);
    ASSERT_TRUE(client.Send(Post("/stream", "{}")));
    client.ReadUntil("data: one\n\n");
  }
  EXPECT_TRUE(replica.gate.Wait([&] { return replica.gone == 1; }));
  EXPECT_TRUE(observer.WaitForRequest("relay", 499));
  EXPECT_TRUE(WaitForMetric("quern_gateway_requests_in_flight 0"));
}

TEST_F(GatewayTest, StreamWhoseReplicaDiesEndsWithAnErrorInIt) {
  FakeReplica replica("a");
  replica.Start();
  AddReplica(replica.port());
  StartGateway();
  RawClient client(port);
  ASSERT_TRUE(client.Send(Post("/stream", "{}")));
  client.ReadUntil("data: one\n\n");
  ASSERT_TRUE(replica.gate.Wait([&] { return replica.stream != nullptr; }));
  replica.Stop();
  const std::string& all = client.ReadUntil("0\r\n\r\n");
  EXPECT_NE(all.find("data: {\"error\":"), std::string::npos) << all;
  EXPECT_NE(all.find("data: [DONE]\n\n"), std::string::npos);
  EXPECT_EQ(all.find("half"), std::string::npos);
  EXPECT_TRUE(WaitForMetric("quern_gateway_stream_errors_total 1"));
}

TEST_F(GatewayTest, ReplicaThatIsKilledLosesNoLaterRequest) {
  FakeReplica a("a");
  auto b = std::make_unique<FakeReplica>("b");
  a.Start();
  b->Start();
  AddReplica(a.port());
  AddReplica(b->port());
  config.probe_interval = std::chrono::hours(1);  // nobody but a request finds out
  StartGateway();
  ASSERT_TRUE(WaitForMetric("quern_gateway_replicas_ready 2"));
  RawClient client(port);
  for (int i = 0; i < 4; ++i) {  // connections to both are kept
    ASSERT_TRUE(client.Send(Post("/echo", "x")));
    client.ReadResponse();
  }
  b.reset();
  for (int i = 0; i < 10; ++i) {
    ASSERT_TRUE(client.Send(Post("/echo", "x")));
    EXPECT_TRUE(client.ReadResponse().starts_with("HTTP/1.1 200"));
  }
}

TEST_F(GatewayTest, RequestThatAReplicaDoesNotTakeGoesToAnother) {
  FakeReplica full("full"), other("other");
  const auto refuse = [&](const http::Request&, const http::ResponderPtr& responder) {
    ++full.requests;
    http::Response response;
    response.status = 503;
    response.body = "full";
    responder->Send(response);
  };
  full.router.Add("POST", "/work", "work", refuse);
  other.router.Add("POST", "/work", "work",
                   [](const http::Request&, const http::ResponderPtr& responder) {
                     responder->Send({.status = 200, .body = "done"});
                   });
  full.Start();
  other.Start();
  AddReplica(full.port());
  AddReplica(other.port());
  StartGateway();
  ASSERT_TRUE(WaitForMetric("quern_gateway_replicas_ready 2"));
  RawClient client(port);
  for (int i = 0; i < 6; ++i) {
    ASSERT_TRUE(client.Send(Post("/work", "x")));
    EXPECT_TRUE(client.ReadResponse().ends_with("\r\n\r\ndone"));
  }
  EXPECT_GT(full.requests, 0);
}

TEST_F(GatewayTest, RefusalOfTheOnlyReplicaIsPassedOnAfterASecondTry) {
  FakeReplica full("full");
  full.router.Add(
      "POST", "/work", "work", [&](const http::Request&, const http::ResponderPtr& responder) {
        ++full.requests;
        responder->Send({.status = 503, .headers = {{"Retry-After", "7"}}, .body = "full"});
      });
  full.Start();
  AddReplica(full.port());
  StartGateway();
  RawClient client(port);
  ASSERT_TRUE(client.Send(Post("/work", "x")));
  const std::string answer = client.ReadResponse();
  EXPECT_TRUE(answer.starts_with("HTTP/1.1 503")) << answer;
  EXPECT_NE(answer.find("Retry-After: 7\r\n"), std::string::npos);
  EXPECT_EQ(full.requests, 2);
}

// Sends an answer of the test's choice to every request, and closes.
class RawReplica {
 public:
  explicit RawReplica(std::string answer) : answer_(std::move(answer)) {
    listener_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    bind(listener_, reinterpret_cast<sockaddr*>(&address), size);
    listen(listener_, 64);
    getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] { Run(); });
  }
  ~RawReplica() {
    shutdown(listener_, SHUT_RDWR);
    thread_.join();
    close(listener_);
  }
  uint16_t port() const { return port_; }
  std::atomic<int> requests{0};

 private:
  void Run() {
    while (true) {
      const int fd = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
      if (fd < 0) return;
      char buffer[4096];
      const ssize_t got = recv(fd, buffer, sizeof buffer, 0);
      const std::string_view request(buffer, got > 0 ? static_cast<size_t>(got) : 0);
      std::string reply = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
      if (request.starts_with("POST")) {
        ++requests;
        reply = answer_;
      }
      send(fd, reply.data(), reply.size(), MSG_NOSIGNAL);
      shutdown(fd, SHUT_WR);
      while (recv(fd, buffer, sizeof buffer, 0) > 0) {
      }
      close(fd);
    }
  }
  const std::string answer_;
  int listener_ = -1;
  uint16_t port_ = 0;
  std::thread thread_;
};

class BadAnswer : public GatewayTest, public testing::WithParamInterface<const char*> {};

TEST_P(BadAnswer, IsABadGatewayAndIsNotSentAgain) {
  RawReplica replica(GetParam());
  AddReplica(replica.port());
  StartGateway();
  RawClient client(port);
  ASSERT_TRUE(client.Send(Post("/x", "{}")));
  const std::string answer = client.ReadResponse();
  EXPECT_TRUE(answer.starts_with("HTTP/1.1 502 Bad Gateway\r\n")) << answer;
  EXPECT_NE(answer.find("\"code\":\"upstream_error\""), std::string::npos) << answer;
  EXPECT_EQ(replica.requests, 1);
}

INSTANTIATE_TEST_SUITE_P(
    All, BadAnswer,
    testing::Values("", "HTTP/1.1 200", "nonsense\r\n\r\n",
                    "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
                    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
                    "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n"));

TEST_F(GatewayTest, AnswersThatEndAtTheirConnectionsEndPass) {
  RawReplica replica("HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nall of it");
  AddReplica(replica.port());
  StartGateway();
  RawClient client(port);
  ASSERT_TRUE(client.Send(Post("/x", "{}")));
  EXPECT_NE(client.ReadUntil("0\r\n\r\n").find("all of it"), std::string::npos);
}

TEST_F(GatewayTest, AnswerThatIsCutIsCutForTheClientToo) {
  RawReplica replica("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nsome");
  AddReplica(replica.port());
  StartGateway();
  RawClient client(port);
  ASSERT_TRUE(client.Send(Post("/x", "{}")));
  EXPECT_TRUE(client.ClosedByServer());
  EXPECT_TRUE(client.received.ends_with("some"));
}

TEST_F(GatewayTest, WhatCouldBeReadTwoWaysIsRefused) {
  FakeReplica replica("a");
  replica.Start();
  AddReplica(replica.port());
  StartGateway();
  for (const std::string fields :
       {"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 4\r\nContent-Length: 5\r\n", "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n"}) {
    RawClient client(port);
    ASSERT_TRUE(client.Send("POST /echo HTTP/1.1\r\nHost: t\r\n" + fields + "\r\n0\r\n\r\n"));
    const std::string answer = client.ReadResponse();
    EXPECT_TRUE(answer.starts_with("HTTP/1.1 400") || answer.starts_with("HTTP/1.1 501")) << answer;
  }
  for (const std::string line :
       {"CONNECT t:80 HTTP/1.1", "TRACE /x HTTP/1.1", "GET http://t/x HTTP/1.1"}) {
    RawClient client(port);
    ASSERT_TRUE(client.Send(line + "\r\nHost: t\r\n\r\n"));
    EXPECT_TRUE(client.ReadResponse().starts_with("HTTP/1.1 40")) << line;
  }
  EXPECT_EQ(replica.requests, 0);
}

}  // namespace
}  // namespace quern::gateway
