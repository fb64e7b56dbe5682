#pragma once

#include <chrono>
#include <cstddef>
#include <string_view>

namespace quern::http {

// What one listener allows its clients. Whatever is met is told to the HttpObserver.
struct HttpLimits {
  int max_connections = 1024;  // beyond it: 503 and close
  // Beyond max_connections the connection that has been without a request for longest is closed
  // instead, so that nobody is shut out by connections that do nothing.
  bool replace_idle = false;
  size_t max_header_bytes = 16 * 1024;      // request line and fields; beyond it: 431
  size_t max_header_fields = 100;           // beyond it: 431
  size_t max_body_bytes = 4 * 1024 * 1024;  // beyond it: 413
  // Read ahead while a request is being answered; beyond it that answer is the last one.
  size_t max_pipelined_bytes = 64 * 1024;
  size_t max_stream_buffer = 1024 * 1024;  // unsent bytes of one stream; beyond it: dropped
  // Over all connections of the listener: bodies that are still arriving, and answers that clients
  // have not taken yet. Beyond it 503 and close for whoever adds more than `small_bytes`; what is
  // smaller is bounded by max_connections, so that large ones cannot shut out small ones.
  size_t max_held_body_bytes = 64 * 1024 * 1024;
  size_t max_held_response_bytes = 64 * 1024 * 1024;
  size_t small_bytes = 16 * 1024;
  size_t stream_high_water = 64 * 1024;              // writers are asked to hold back from here
  std::chrono::milliseconds header_timeout{10'000};  // from the first byte; beyond it: 408
  std::chrono::milliseconds body_timeout{60'000};    // for the whole body; beyond it: 408
  std::chrono::milliseconds idle_timeout{75'000};    // between requests; beyond it: closed
  std::chrono::milliseconds write_timeout{30'000};   // without one byte taken; beyond it: dropped
  // Of a client for which bytes wait all the time, over each write_timeout; below it: dropped.
  size_t min_drain_bytes_per_second = 1024;
  std::chrono::milliseconds linger_timeout{2'000};  // for the client to close after our last byte
  // While draining, for a request that may be on its way on a connection that was kept.
  std::chrono::milliseconds drain_idle_timeout{1'000};
  // Connections beyond max_connections that are kept until their client has read the 503, for at
  // most linger_timeout.
  int max_turned_away = 64;
};

enum class HttpLimit {
  kConnections,
  kHeaderBytes,
  kBodyBytes,
  kHeaderTime,
  kBodyTime,
  kIdleTime,
  kWriteTime,
  kStreamBuffer,
  kPipelinedBytes,
  kHeldBodies,
  kHeldResponses,
};

// Stable names, for labels of metrics.
constexpr std::string_view HttpLimitName(HttpLimit limit) {
  switch (limit) {
    case HttpLimit::kConnections:
      return "connections";
    case HttpLimit::kHeaderBytes:
      return "header_bytes";
    case HttpLimit::kBodyBytes:
      return "body_bytes";
    case HttpLimit::kHeaderTime:
      return "header_timeout";
    case HttpLimit::kBodyTime:
      return "body_timeout";
    case HttpLimit::kIdleTime:
      return "idle_timeout";
    case HttpLimit::kWriteTime:
      return "write_timeout";
    case HttpLimit::kStreamBuffer:
      return "stream_buffer";
    case HttpLimit::kPipelinedBytes:
      return "pipelined_bytes";
    case HttpLimit::kHeldBodies:
      return "held_bodies";
    case HttpLimit::kHeldResponses:
      return "held_responses";
  }
  return "unknown";
}

// Told what happens; called from I/O threads, several at once; must return at once.
class HttpObserver {
 public:
  virtual ~HttpObserver() = default;
  virtual void OnLimit(HttpLimit limit) = 0;
  // `handler`: the route's name, or "none" where no route was found. `status` is 499 where the
  // client went away before the whole response was handed over.
  virtual void OnRequest(std::string_view handler, int status) = 0;
};

}  // namespace quern::http
