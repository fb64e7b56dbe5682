#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "runtime/gateway/config.h"
#include "runtime/gateway/replica_set.h"
#include "runtime/http/client.h"
#include "runtime/metrics/gateway_metrics.h"

namespace quern::gateway {

// Keeps a ReplicaSet true: looks the upstreams' names up every resolve_interval, or every second
// while no replica is ready, and asks every replica each probe_interval for /health/ready, more
// often while requests wait. On the loop's thread.
class Replicas {
 public:
  // `on_ready`: a replica has become ready. The references outlive this.
  Replicas(boost::asio::io_context& io, const GatewayConfig& config, http::HttpClient& client,
           GatewayMetrics& metrics, std::function<void()> on_ready);
  ~Replicas();

  void Start();

  ReplicaSet& set() { return set_; }
  // Whether requests wait: then replicas are asked four times as often.
  void SetHaste(bool haste) { haste_ = haste; }
  // It did not serve a request, and `why`: it is not ready until it says so again, and is asked at
  // once.
  void Suspect(const http::Address& address, const char* why);

 private:
  class Probe;
  struct Name {
    Name(Upstream upstream_, boost::asio::io_context& io)
        : upstream(std::move(upstream_)), timer(io) {}
    const Upstream upstream;
    std::set<http::Address> addresses;
    http::Timer timer;
    bool failure_logged = false;
  };
  void LookUp(Name& name);
  void OnLookedUp(Name& name, Result<std::vector<http::Address>> found);
  void Apply();
  void SetReady(const http::Address& address, bool ready, const std::string& why_not);
  void Tell();

  boost::asio::io_context& io_;
  const GatewayConfig& config_;
  http::HttpClient& client_;
  GatewayMetrics& metrics_;
  const std::function<void()> on_ready_;
  ReplicaSet set_;
  bool haste_ = false;
  std::vector<std::unique_ptr<Name>> names_;
  std::map<http::Address, std::shared_ptr<Probe>> probes_;
  const std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);  // for look-ups under way
};

}  // namespace quern::gateway
