#include "runtime/gateway/errors.h"

#include <nlohmann/json.hpp>

namespace quern::gateway {
namespace {

std::string_view TypeOf(int status) {
  if (status == 429) return "rate_limit_error";
  return status >= 500 ? "server_error" : "invalid_request_error";
}

std::string_view HttpCodeOf(int status) {
  switch (status) {
    case 400:
      return "invalid_request";
    case 404:
      return "not_found";
    case 405:
      return "method_not_allowed";
    case 408:
      return "request_timeout";
    case 413:
      return "body_too_large";
    case 415:
      return "unsupported_content_encoding";
    case 431:
      return "header_too_large";
    case 501:
      return "not_implemented";
    case 503:
      return "overloaded";
    default:
      return "internal_error";
  }
}

}  // namespace

std::string ToJson(const GatewayError& error) {
  const nlohmann::json body = {{"error",
                                {{"message", error.message},
                                 {"type", TypeOf(error.status)},
                                 {"param", nullptr},
                                 {"code", error.code}}}};
  return body.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

http::Response ToResponse(const GatewayError& error) {
  http::Response response;
  response.status = error.status;
  response.body = ToJson(error);
  if (error.retry_after_s > 0) {
    response.headers.emplace_back("Retry-After", std::to_string(error.retry_after_s));
  }
  return response;
}

std::string HttpErrorJson(int status, std::string_view message) {
  return ToJson({status, std::string(HttpCodeOf(status)), std::string(message)});
}

std::string ErrorEvents(std::string_view json) {
  return http::SseEvent(json) + http::SseEvent("[DONE]");
}

}  // namespace quern::gateway
