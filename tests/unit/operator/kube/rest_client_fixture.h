#pragma once

#include <gtest/gtest.h>

#include <memory>

#include "operator/kube/rest_client.h"
#include "tests/unit/operator/kube/scripted_server.h"

namespace quern::control::kube::testing {

inline const ResourceType kConfigMaps{"", "v1", "ConfigMap", "configmaps", true};
inline const ResourceType kDeployments{"apps", "v1", "Deployment", "deployments", true};
inline const ResourceType kNodes{"", "v1", "Node", "nodes", false};

// A server, and a client of it whose limits are short enough to be met in a test.
class RestClientTest : public ::testing::Test {
 protected:
  void Serve(ScriptedServer::Handler handler, bool ask_client_certificate = false) {
    server_ =
        std::make_unique<ScriptedServer>(certificates_, std::move(handler), ask_client_certificate);
    config_.server = server_->url();
    config_.ca_pem = certificates_.ca;
  }
  Client& client() {
    if (!client_) {
      auto made = MakeRestClient(config_, options_);
      EXPECT_TRUE(made.ok()) << (made.ok() ? "" : made.error().message);
      client_ = std::move(made).value();
    }
    return *client_;
  }

  TestCertificates certificates_ = MakeTestCertificates();
  ClientConfig config_;
  RestClientOptions options_;
  std::unique_ptr<ScriptedServer> server_;
  std::unique_ptr<Client> client_;  // goes before the server does
};

inline std::string StatusBody(int code, const std::string& reason, const std::string& message) {
  return json{{"kind", "Status"}, {"apiVersion", "v1"}, {"status", "Failure"},
              {"code", code},     {"reason", reason},   {"message", message}}
      .dump();
}

inline json ConfigMap(const std::string& name, const std::string& version) {
  return {{"apiVersion", "v1"},
          {"kind", "ConfigMap"},
          {"metadata", {{"name", name}, {"namespace", "ns"}, {"resourceVersion", version}}}};
}

}  // namespace quern::control::kube::testing
