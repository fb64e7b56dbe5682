#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "runtime/gateway/gateway.h"
#include "runtime/http/server.h"
#include "tests/unit/runtime/http/raw_client.h"
#include "tests/unit/runtime/http/test_server.h"

namespace quern::gateway {

// A replica of the test's making, on a port that is known before it begins to listen.
class FakeReplica {
 public:
  explicit FakeReplica(std::string name, uint16_t port = 0) : name_(std::move(name)) {
    router.Add("GET", "/health/ready", "ready",
               [this](const http::Request&, const http::ResponderPtr& responder) {
                 http::Response response;
                 response.status = ready.load() ? 200 : 503;
                 responder->Send(response);
               });
    router.Add("POST", "/echo", "echo",
               [this](http::Request request, const http::ResponderPtr& responder) {
                 ++requests;
                 http::Response response;
                 response.headers = {{"X-Replica", name_}};
                 for (const auto& [name, value] : request.headers) {
                   response.headers.emplace_back("Got-" + name, value);
                 }
                 response.body = std::move(request.body);
                 responder->Send(std::move(response));
               });
    router.Add("POST", "/stream", "stream",
               [this](const http::Request&, const http::ResponderPtr& responder) {
                 http::Response head;
                 head.content_type = "text/event-stream";
                 responder->BeginStream(head);
                 responder->Write("data: one\n\ndata: half");
                 responder->SetCallbacks([] {}, [this] { gate.Change([this] { ++gone; }); });
                 gate.Change([&] { stream = responder; });
               });
    options_.port = port;
  }
  ~FakeReplica() { Stop(); }
  void Start() {
    auto bound = server_.Listen(options_, std::move(router));
    ASSERT_TRUE(bound.ok()) << bound.error().message;
    port_ = *bound;
    server_.Start();
  }
  // As if it were killed: connections end at once.
  void Stop() {
    gate.Change([&] { stream.reset(); });
    server_.Stop(std::chrono::milliseconds(0));
  }
  uint16_t port() const { return port_; }

  http::Router router;
  std::atomic<bool> ready{true};
  std::atomic<int> requests{0};
  http::Gate gate;
  http::ResponderPtr stream;  // under the gate
  int gone = 0;

 private:
  const std::string name_;
  http::ListenOptions options_;
  uint16_t port_ = 0;
  http::HttpServer server_{1};
};

class GatewayTest : public testing::Test {
 protected:
  GatewayTest() {
    config.probe_interval = std::chrono::milliseconds(20);
    config.resolve_interval = std::chrono::milliseconds(50);
    config.comment_interval = std::chrono::milliseconds(20);
  }
  ~GatewayTest() override {
    if (server) server->Stop(std::chrono::milliseconds(0));
    gateway.reset();
    server.reset();
  }
  void AddReplica(uint16_t to) { config.upstreams.push_back({"127.0.0.1", to, false}); }
  void StartGateway() {
    server = std::make_unique<http::HttpServer>(1);
    gateway = std::make_unique<Gateway>(server->io(), config, metrics);
    http::ListenOptions options;
    options.observer = &observer;
    auto bound = server->Listen(options, gateway->PublicRouter());
    ASSERT_TRUE(bound.ok()) << bound.error().message;
    port = *bound;
    gateway->Start();
    server->Start();
  }
  bool WaitForMetric(const std::string& line) {
    const auto deadline = std::chrono::steady_clock::now() + http::RawClient::kPatience;
    while (metrics.Text().find("\n" + line + "\n") == std::string::npos) {
      if (std::chrono::steady_clock::now() > deadline) return false;
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    return true;
  }
  static std::string Post(const std::string& path, const std::string& body,
                          const std::string& fields = "") {
    return "POST " + path + " HTTP/1.1\r\nHost: t\r\n" + fields +
           "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
  }

  GatewayConfig config;
  GatewayMetrics metrics{"test"};
  http::RecordingObserver observer;
  std::unique_ptr<http::HttpServer> server;
  std::unique_ptr<Gateway> gateway;
  uint16_t port = 0;
};

}  // namespace quern::gateway
