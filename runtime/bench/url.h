#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "runtime/base/result.h"

namespace quern::bench {

// Where an OpenAI-compatible API is.
struct BaseUrl {
  bool tls = false;
  std::string host;  // a name or an address, without brackets
  uint16_t port = 80;
  std::string path;  // "/v1": before "/models", "/completions", ...; never ends in '/'
  std::string root;  // path without a "/v1" at its end: before "/tokenize" and "/version"

  // As the Host header has it: with brackets and port where they are needed.
  std::string Authority() const;
  std::string Show() const;
};

// "http://127.0.0.1:8000/v1", as OpenAI's clients take it. Without a path it is /v1. Errors:
// kInvalidArgument.
Result<BaseUrl> ParseBaseUrl(std::string_view text);
// "http://127.0.0.1:9090/metrics": where a server's metrics are, as `path`. Without a path it is
// /metrics. Errors: as above.
Result<BaseUrl> ParseMetricsUrl(std::string_view text);

}  // namespace quern::bench
