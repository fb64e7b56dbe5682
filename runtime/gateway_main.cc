// quern-gateway: the front door of an endpoint. Relays until SIGTERM, drains.

#include <condition_variable>
#include <cstdio>
#include <exception>
#include <mutex>

#include "runtime/base/clock.h"
#include "runtime/base/log.h"
#include "runtime/command_line.h"
#include "runtime/gateway/gateway.h"
#include "runtime/gateway_options.h"
#include "runtime/http/server.h"
#include "runtime/metrics/gateway_metrics.h"
#include "runtime/stop_signals.h"

namespace quern {
namespace {

using Milliseconds = std::chrono::milliseconds;

// How long answers that are complete have to reach their clients, whatever the drain took.
constexpr Milliseconds kLastFlush(2'000);

// Something that main waits for. Thread-safe.
class Event {
 public:
  void Set() {
    std::lock_guard lock(mutex_);
    set_ = true;
    changed_.notify_all();
  }
  void Wait() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return set_; });
  }
  bool WaitFor(Milliseconds patience) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, patience, [this] { return set_; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool set_ = false;
};

// Counts for the public port.
class PublicObserver : public http::HttpObserver {
 public:
  explicit PublicObserver(GatewayMetrics& metrics) : metrics_(metrics) {}
  void OnLimit(http::HttpLimit limit) override {
    metrics_.CountHttpLimit(http::HttpLimitName(limit));
  }
  void OnRequest(std::string_view handler, int status) override {
    if (handler != "health") metrics_.CountRequest(status);
  }

 private:
  GatewayMetrics& metrics_;
};

Status OpenGatewayPorts(const GatewayOptions& options, http::HttpObserver& observer,
                        gateway::Gateway& gateway, http::HttpServer& http) {
  http::ListenOptions listen;
  listen.host = options.host;
  listen.port = options.port;
  listen.observer = &observer;
  listen.limits.max_connections = options.max_connections;
  listen.limits.max_body_bytes = static_cast<size_t>(options.max_body_bytes);
  listen.limits.max_held_body_bytes = options.config.max_held_bytes;
  listen.limits.max_held_response_bytes = size_t{256} << 20;
  listen.limits.header_timeout = options.header_timeout;
  listen.limits.body_timeout = options.body_timeout;
  listen.limits.write_timeout = options.write_timeout;
  QUERN_ASSIGN(const uint16_t port, http.Listen(listen, gateway.PublicRouter()));
  QUERN_ASSIGN(const uint16_t admin_port,
               http.Listen(http::AdminListenOptions(options.admin_host, options.admin_port),
                           gateway.AdminRouter()));
  spdlog::info("listening: API http://{}:{}/v1, metrics http://{}:{}/metrics", options.host, port,
               options.admin_host, admin_port);
  return {};
}

// After the signal: not ready at once, what runs finishes. True if all did.
bool DrainGateway(const GatewayOptions& options, gateway::Gateway& gateway,
                  http::HttpServer& http) {
  // Outlives the loop's last call of it: nobody calls after Stop.
  Event idle;
  const SteadyTime start = RealClock().Now();
  gateway.BeginDrain([&idle] { idle.Set(); });
  http.BeginDrain();
  const bool finished = idle.WaitFor(options.drain_timeout);
  gateway.EndAll();
  http.Stop(kLastFlush);
  const double seconds = Seconds(RealClock().Now() - start).count();
  if (finished) {
    spdlog::info("drained in {:.1f} s", seconds);
  } else {
    spdlog::warn("the drain timeout of {:.1f} s is over: what was left got an error",
                 Seconds(options.drain_timeout).count());
  }
  return finished;
}

int RunGateway(const GatewayOptions& options) {
  static Event stop;  // the thread of the signals outlives this
  WatchStopSignals([] { stop.Set(); });
  RaiseFileLimit();
  GatewayMetrics metrics(QUERN_VERSION);
  PublicObserver observer(metrics);
  // One thread: all that the gateway knows is that thread's, without a lock.
  http::HttpServer http(/*io_threads=*/1);
  gateway::Gateway gateway(http.io(), options.config, metrics);
  if (auto opened = OpenGatewayPorts(options, observer, gateway, http); !opened) {
    spdlog::error("{}", opened.error().message);
    return opened.error().code == ErrorCode::kInvalidArgument ? 2 : 1;
  }
  gateway.Start();
  http.Start();
  stop.Wait();
  return DrainGateway(options, gateway, http) ? 0 : 1;
}

}  // namespace
}  // namespace quern

int main(int argc, char** argv) {
  const auto parsed = quern::ParseGatewayCommandLine(argc, argv);
  if (parsed.exit_now) return parsed.exit_code;
  const auto& options = parsed.options;
  if (auto log = quern::InitLog("quern-gateway", options.log_level, options.log_format); !log) {
    std::fprintf(stderr, "quern-gateway: %s\n", log.error().message.c_str());
    return 2;
  }
  try {
    return quern::RunGateway(options);
  } catch (const std::exception& error) {
    spdlog::critical("unexpected: {}", error.what());
    return 1;
  }
}
