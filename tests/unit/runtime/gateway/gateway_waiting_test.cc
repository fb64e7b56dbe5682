// The waiting room and the wake-up, over real connections.
#include <fstream>

#include "tests/unit/runtime/gateway/test_gateway.h"

namespace quern::gateway {
namespace {

using http::RawClient;

const char kStreamBody[] = "{\"stream\": true}";

TEST_F(GatewayTest, RequestWaitsUntilAReplicaIsReady) {
  FakeReplica replica("a");
  replica.ready = false;
  replica.Start();
  AddReplica(replica.port());
  StartGateway();
  RawClient client(port);
  ASSERT_TRUE(client.Send(Post("/echo", "hello")));
  ASSERT_TRUE(WaitForMetric("quern_gateway_requests_waiting 1"));
  EXPECT_TRUE(WaitForMetric("quern_gateway_waiting_bytes 5"));
  replica.ready = true;
  EXPECT_TRUE(client.ReadResponse().ends_with("\r\n\r\nhello"));
  EXPECT_TRUE(WaitForMetric("quern_gateway_requests_waiting 0"));
  EXPECT_TRUE(WaitForMetric("quern_gateway_waiting_seconds_count 1"));
}

TEST_F(GatewayTest, StreamGetsSignsOfLifeAndThenItsEvents) {
  FakeReplica replica("a");
  replica.ready = false;
  replica.Start();
  AddReplica(replica.port());
  StartGateway();
  RawClient client(port);
  ASSERT_TRUE(client.Send(Post("/stream", kStreamBody)));
  client.ReadUntil(": waiting\n\n");
  EXPECT_TRUE(client.received.starts_with("HTTP/1.1 200 OK\r\n"));
  EXPECT_NE(client.received.find("\r\nContent-Type: text/event-stream"), std::string::npos);
  replica.ready = true;
  EXPECT_NE(client.ReadUntil("data: one\n\n").find("data: one\n\n"), std::string::npos);
}

TEST_F(GatewayTest, ErrorAfterSignsOfLifeIsInTheStream) {
  FakeReplica replica("a");
  replica.ready = false;
  replica.router.Add("POST", "/refuse", "refuse",
                     [](const http::Request&, const http::ResponderPtr& responder) {
                       http::Response response;
                       response.status = 400;
                       response.body = R"({"error":{"message":"no such model"}})";
                       responder->Send(response);
                     });
  replica.Start();
  AddReplica(replica.port());
  StartGateway();
  RawClient client(port);
  ASSERT_TRUE(client.Send(Post("/refuse", kStreamBody)));
  client.ReadUntil(": waiting\n\n");
  replica.ready = true;
  const std::string& all = client.ReadUntil("0\r\n\r\n");
  EXPECT_NE(all.find("data: {\"error\":{\"message\":\"no such model\"}}\n\ndata: [DONE]\n\n"),
            std::string::npos)
      << all;
}

TEST_F(GatewayTest, TooManyAreRefused) {
  config.upstreams.push_back({"127.0.0.1", 9, false});  // discard: nobody listens there
  config.waiting.max_requests = 1;
  StartGateway();
  RawClient first(port), second(port);
  ASSERT_TRUE(first.Send(Post("/echo", "x")));
  ASSERT_TRUE(WaitForMetric("quern_gateway_requests_waiting 1"));
  ASSERT_TRUE(second.Send(Post("/echo", "x")));
  const std::string refused = second.ReadResponse();
  EXPECT_TRUE(refused.starts_with("HTTP/1.1 429")) << refused;
  EXPECT_NE(refused.find("Retry-After: "), std::string::npos);
  EXPECT_NE(refused.find("\"type\":\"rate_limit_error\""), std::string::npos);
  EXPECT_TRUE(WaitForMetric("quern_gateway_requests_refused_total{reason=\"waiting_requests\"} 1"));
}

TEST_F(GatewayTest, TooLongAWaitEndsWithAnError) {
  config.upstreams.push_back({"127.0.0.1", 9, false});
  config.waiting.max_wait = std::chrono::milliseconds(300);
  StartGateway();
  RawClient plain(port), stream(port);
  ASSERT_TRUE(plain.Send(Post("/echo", "x")));
  ASSERT_TRUE(stream.Send(Post("/stream", kStreamBody)));
  const std::string expired = plain.ReadResponse();
  EXPECT_TRUE(expired.starts_with("HTTP/1.1 503")) << expired;
  EXPECT_NE(expired.find("Retry-After: "), std::string::npos);
  EXPECT_NE(stream.ReadUntil("0\r\n\r\n").find("\"code\":\"no_replica\""), std::string::npos);
}

TEST_F(GatewayTest, ClientThatLeavesFreesItsPlace) {
  config.upstreams.push_back({"127.0.0.1", 9, false});
  config.waiting.max_requests = 1;
  StartGateway();
  {
    RawClient client(port);
    ASSERT_TRUE(client.Send(Post("/echo", "x")));
    ASSERT_TRUE(WaitForMetric("quern_gateway_requests_waiting 1"));
  }
  EXPECT_TRUE(WaitForMetric("quern_gateway_requests_waiting 0"));
  EXPECT_TRUE(observer.WaitForRequest("relay", 499));
}

TEST_F(GatewayTest, EndpointIsWokenWithTheTokenAndAgainAfterAFailure) {
  FakeReplica replica("a"), waker("w");
  replica.ready = false;
  std::atomic<int> calls{0}, right{0};
  waker.router.Add("POST", "/wake", "wake",
                   [&](const http::Request& request, const http::ResponderPtr& responder) {
                     const std::string* token = http::FindHeader(request.headers, "Authorization");
                     if (token && *token == "Bearer s3cret" && request.query == "a=b") ++right;
                     http::Response response;
                     response.status = ++calls == 1 ? 500 : 204;
                     if (calls == 2) replica.ready = true;
                     responder->Send(response);
                   });
  replica.Start();
  waker.Start();
  AddReplica(replica.port());
  const std::string file = testing::TempDir() + "/gateway_token_" + std::to_string(getpid());
  std::ofstream(file) << "s3cret\n";
  config.wake = {"127.0.0.1", waker.port(), "/wake?a=b", "w", file};
  StartGateway();
  RawClient client(port);
  ASSERT_TRUE(client.Send(Post("/echo", "hello")));
  EXPECT_TRUE(client.ReadResponse().ends_with("hello"));
  EXPECT_EQ(calls, 2);
  EXPECT_EQ(right, 2);
  EXPECT_TRUE(WaitForMetric("quern_gateway_wake_calls_total{result=\"ok\"} 1"));
  std::remove(file.c_str());
}

TEST_F(GatewayTest, DrainingEndsWhatIsLeftWithAnError) {
  FakeReplica replica("a");
  replica.Start();
  AddReplica(replica.port());
  StartGateway();
  RawClient stream(port);
  ASSERT_TRUE(stream.Send(Post("/stream", "{}")));
  stream.ReadUntil("data: one\n\n");
  replica.ready = false;
  ASSERT_TRUE(WaitForMetric("quern_gateway_replicas_ready 0"));
  RawClient waiting(port);
  ASSERT_TRUE(waiting.Send(Post("/echo", "x")));
  ASSERT_TRUE(WaitForMetric("quern_gateway_requests_waiting 1"));
  http::Gate gate;
  bool idle = false;
  gateway->BeginDrain([&] { gate.Change([&] { idle = true; }); });
  RawClient probe(port);
  ASSERT_TRUE(probe.Send("GET /health/ready HTTP/1.1\r\nHost: t\r\n\r\n"));
  EXPECT_TRUE(probe.ReadResponse().starts_with("HTTP/1.1 503"));
  gateway->EndAll();
  const std::string answer = waiting.ReadResponse();
  EXPECT_TRUE(answer.starts_with("HTTP/1.1 503")) << answer;
  EXPECT_NE(answer.find("Retry-After: "), std::string::npos);
  EXPECT_NE(stream.ReadUntil("0\r\n\r\n").find("\"code\":\"draining\""), std::string::npos);
  EXPECT_TRUE(gate.Wait([&] { return idle; }));
  server->Stop(std::chrono::milliseconds(0));  // nobody calls `gate` after that
}

}  // namespace
}  // namespace quern::gateway
