#pragma once

#include <string>
#include <string_view>

#include "runtime/http/message.h"

namespace quern::gateway {

// What the gateway itself answers with where a replica does not: an error as OpenAI's API reports
// it, {"error": {"message", "type", "param", "code"}}.
struct GatewayError {
  int status = 502;
  std::string code;  // stable, for programs
  std::string message;
  int retry_after_s = 0;  // > 0: sent as Retry-After
};

// Its JSON. Invalid UTF-8 in the message is replaced.
std::string ToJson(const GatewayError& error);
http::Response ToResponse(const GatewayError& error);
// What the HTTP side answers with by itself (400, 408, 413, 431, ...), in the same shape.
std::string HttpErrorJson(int status, std::string_view message);

// The error as the last events of a stream that has begun: clients look for "error" in the events.
std::string ErrorEvents(std::string_view json);

}  // namespace quern::gateway
