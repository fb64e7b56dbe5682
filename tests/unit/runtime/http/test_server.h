#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "runtime/http/server.h"
#include "tests/unit/runtime/http/raw_client.h"

namespace quern::http {

inline constexpr char kGet[] = "GET /hello HTTP/1.1\r\nHost: t\r\n\r\n";

// Waits for a condition that another thread brings about; false when patience is over.
class Gate {
 public:
  template <typename F>
  void Change(F&& change) {
    std::lock_guard lock(mutex_);
    change();
    changed_.notify_all();
  }
  template <typename F>
  bool Wait(F&& condition) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, RawClient::kPatience, std::forward<F>(condition));
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
};

class RecordingObserver : public HttpObserver {
 public:
  void OnLimit(HttpLimit limit) override {
    gate_.Change([&] { ++limits_[limit]; });
  }
  void OnRequest(std::string_view handler, int status) override {
    gate_.Change([&] { ++requests_[{std::string(handler), status}]; });
  }
  bool WaitForLimit(HttpLimit limit, int times = 1) {
    return gate_.Wait([&] { return limits_[limit] >= times; });
  }
  bool WaitForRequest(const std::string& handler, int status, int times = 1) {
    return gate_.Wait([&] { return requests_[{handler, status}] >= times; });
  }

 private:
  Gate gate_;
  std::map<HttpLimit, int> limits_;
  std::map<std::pair<std::string, int>, int> requests_;
};

// A server on a free loopback port with routes of the test's choice.
class ServerTest : public testing::Test {
 protected:
  ServerTest() {
    router.Add("GET", "/hello", "hello", [](Request, ResponderPtr responder) {
      Response response;
      response.body = "{\"hello\":true}";
      responder->Send(response);
    });
    router.Add("POST", "/echo", "echo", [](Request request, ResponderPtr responder) {
      Response response;
      response.body = std::move(request.body);
      responder->Send(response);
    });
  }

  void StartServer(int io_threads = 4) {
    server = std::make_unique<HttpServer>(io_threads);
    ListenOptions options;
    options.limits = limits;
    options.observer = &observer;
    auto bound = server->Listen(options, std::move(router));
    ASSERT_TRUE(bound.ok()) << bound.error().message;
    port = *bound;
    server->Start();
  }
  bool WaitForConnections(int count) {
    const auto deadline = std::chrono::steady_clock::now() + RawClient::kPatience;
    while (server->connections() != count) {
      if (std::chrono::steady_clock::now() > deadline) return false;
      std::this_thread::yield();
    }
    return true;
  }

  HttpLimits limits;
  Router router;
  RecordingObserver observer;  // outlives the server
  std::unique_ptr<HttpServer> server;
  uint16_t port = 0;
};

}  // namespace quern::http
