#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>

#include "runtime/http/server.h"
#include "runtime/server/api.h"
#include "runtime/server/observers.h"
#include "runtime/server/sleep_switch.h"
#include "tests/unit/runtime/http/raw_client.h"
#include "tests/unit/runtime/http/test_server.h"
#include "tests/unit/runtime/server/scripted_engine.h"

namespace quern::server {

using http::RawClient;
using nlohmann::json;

// 16 MB: far beyond what the sockets and the stream's buffer take.
constexpr int kPieces = 2000;
inline const std::string kPiece(8000, '~');

// The API over real sockets, with an engine whose every token the test sends by hand.
class ApiTest : public testing::Test {
 protected:
  ~ApiTest() override {
    if (server) server->Stop(std::chrono::milliseconds(0));  // its threads use the others
  }

  void StartServer(bool load = true) {
    if (!tenants.empty()) OpenAccess();
    api = std::make_unique<Api>(state, metrics, options, access.get());
    server = std::make_unique<http::HttpServer>(2);
    http::ListenOptions listen;
    listen.limits.max_body_bytes = 1 << 20;
    listen.observer = &observer;
    port = server->Listen(listen, api->PublicRouter()).value();
    sleep = std::make_unique<SleepSwitch>(
        state, [this](EngineCore&) { return wake(); }, std::chrono::milliseconds(0));
    http::Router admin = api->AdminRouter();
    sleep->AddRoutes(admin);
    admin_port = server->Listen(listen, std::move(admin)).value();
    server->Start();
    if (load) Load();
  }
  void Load() {
    auto model = std::make_unique<LoadedModel>();
    model->served_name = "m";
    model->created = 1;
    model->info = {.architecture = "llama",
                   .quantization = "Q4_1",
                   .stored = {{"Q4_1", 700}, {"F32", 50}},
                   .vocab_size = 257,
                   .width = 3,
                   .context_tokens = 2000,
                   .parameters = 1234,
                   .kv_dtype = KvDtype::kInt8};
    auto tokenizer = std::make_unique<ByteTokenizer>();
    tokenizer->before_encode = before_encode;
    model->tokenizer = std::move(tokenizer);
    model->longest_token_bytes = longest_token_bytes;
    if (with_template) model->chat_template = std::make_unique<BracketTemplate>();
    model->no_chat_reason = "it has no chat template";
    auto scripted = std::make_unique<ScriptedEngine>();
    engine = scripted.get();
    model->engine = std::move(scripted);
    state.SetReady(std::move(model));
  }

  // `key`: sent as bearer token if there is one.
  static std::string Request(const std::string& method, const std::string& path,
                             const std::string& body = "", const std::string& key = "") {
    return method + " " + path + " HTTP/1.1\r\nHost: t\r\n" +
           (key.empty() ? "" : "Authorization: Bearer " + key + "\r\n") +
           "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
  }
  struct Reply {
    int status = 0;
    std::string head;
    std::string body;
    json Json() const { return json::parse(body, nullptr, false); }
    std::string Error(const char* member) const {
      const json value = Json()["error"][member];
      return value.is_null() ? "null" : value.get<std::string>();
    }
  };
  static Reply Split(const std::string& response) {
    Reply reply;
    const size_t end = response.find("\r\n\r\n");
    if (end == std::string::npos) return reply;
    reply.head = response.substr(0, end);
    reply.body = response.substr(end + 4);
    reply.status = std::stoi(response.substr(9, 3));
    return reply;
  }
  Reply Ask(const std::string& method, const std::string& path, const std::string& body = "",
            bool admin = false) {
    RawClient client(admin ? admin_port : port);
    EXPECT_TRUE(client.Send(Request(method, path, body)));
    return Split(client.ReadResponse());
  }
  std::string Metrics() { return Ask("GET", "/metrics", "", true).body; }
  bool MetricIs(const std::string& name_and_labels, int value) {
    const std::string wanted = "\n" + name_and_labels + " " + std::to_string(value) + "\n";
    const auto deadline = std::chrono::steady_clock::now() + RawClient::kPatience;
    while (std::chrono::steady_clock::now() < deadline) {
      if (Metrics().find(wanted) != std::string::npos) return true;
    }
    ADD_FAILURE() << "never: " << wanted << " in\n" << Metrics();
    return false;
  }

  void OpenAccess() {
    char path[] = "/tmp/quern-tenants-XXXXXX";
    const int fd = mkstemp(path);
    ASSERT_EQ(write(fd, tenants.data(), tenants.size()), static_cast<ssize_t>(tenants.size()));
    close(fd);
    auto opened = Access::Open(path, metrics, std::chrono::milliseconds(0));
    unlink(path);
    ASSERT_TRUE(opened) << opened.error().message;
    access = std::move(opened).value();
  }

  std::string tenants;  // text of a file of tenants; empty: no keys are asked for
  bool with_template = true;
  int64_t longest_token_bytes = 512;
  std::function<void()> before_encode;
  ApiOptions options;
  RuntimeMetrics metrics{"m"};
  MetricsHttpObserver observer{metrics};
  std::unique_ptr<http::HttpServer> server;  // before what holds responders: see Responder
  ScriptedEngine* engine = nullptr;
  ServingState state;
  std::unique_ptr<Access> access;
  std::unique_ptr<Api> api;
  std::function<Status()> wake = [] { return Status(); };
  std::unique_ptr<SleepSwitch> sleep;
  uint16_t port = 0, admin_port = 0;
};

}  // namespace quern::server
