#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "runtime/gateway/waiting_room.h"
#include "runtime/http/client.h"

namespace quern::gateway {

// Where replicas are found: a name that is looked up again and again.
struct Upstream {
  std::string host;
  uint16_t port = 0;
  bool all_addresses = false;  // each address of the name is a replica; else the first alone
};

struct WakeTarget {
  std::string host;  // empty: nobody is woken
  uint16_t port = 0;
  std::string path;        // with the query, "/wake?endpoint=a"
  std::string authority;   // as the Host header has it
  std::string token_file;  // read for every call; empty: no Authorization
};

struct GatewayConfig {
  std::vector<Upstream> upstreams;
  WakeTarget wake;
  WaitingLimits waiting;
  http::ClientLimits client;
  // Bodies of requests that a replica has not begun to answer, over all requests.
  size_t max_held_bytes = size_t{256} << 20;
  std::chrono::milliseconds comment_interval{5'000};  // signs of life to clients that wait
  std::chrono::milliseconds resolve_interval{5'000};
  std::chrono::milliseconds probe_interval{1'000};
  std::chrono::milliseconds probe_timeout{3'000};
};

}  // namespace quern::gateway
