#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "runtime/gateway/config.h"

namespace quern {

// The command line of quern-gateway, checked.
struct GatewayOptions {
  gateway::GatewayConfig config;
  std::string host = "127.0.0.1";
  uint16_t port = 8080;
  std::string admin_host;  // empty: as host; set by parsing
  uint16_t admin_port = 9090;
  int max_connections = 4096;
  int64_t max_body_bytes = 4 << 20;
  std::chrono::milliseconds header_timeout{10'000};
  std::chrono::milliseconds body_timeout{60'000};
  std::chrono::milliseconds write_timeout{30'000};
  std::chrono::milliseconds drain_timeout{30'000};
  std::string log_level = "info";
  std::string log_format = "text";
};

// What main should do after the command line was read.
struct ParsedGatewayCommandLine {
  GatewayOptions options;
  bool exit_now = false;  // --help or --version was printed, or an error
  int exit_code = 0;      // 2 for an error, which is on stderr in one line
};
ParsedGatewayCommandLine ParseGatewayCommandLine(int argc, char** argv);

}  // namespace quern
