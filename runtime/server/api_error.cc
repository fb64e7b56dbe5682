#include "runtime/server/api_error.h"

#include <nlohmann/json.hpp>

#include "runtime/server/json_text.h"

namespace quern::server {
namespace {

nlohmann::json OrNull(const std::string& text) {
  return text.empty() ? nlohmann::json(nullptr) : nlohmann::json(text);
}

}  // namespace

std::string ToJson(const ApiError& error) {
  const nlohmann::json body = {{"error",
                                {{"message", error.message},
                                 {"type", error.type},
                                 {"param", OrNull(error.param)},
                                 {"code", OrNull(error.code)}}}};
  return JsonText(body);
}

http::Response ToResponse(const ApiError& error) {
  http::Response response;
  response.status = error.status;
  response.body = ToJson(error);
  if (error.retry_after_s > 0) {
    response.headers.emplace_back("Retry-After", std::to_string(error.retry_after_s));
  }
  return response;
}

ApiError FromEngine(const Error& error) {
  switch (error.code) {
    case ErrorCode::kInvalidArgument:
    case ErrorCode::kUnsupported:
      return ApiError{400, error.message, "invalid_request_error", "", "invalid_value"};
    case ErrorCode::kResourceExhausted:
      return ApiError{429, error.message, "rate_limit_error", "", "queue_full", 1};
    case ErrorCode::kPermissionDenied:  // Submit's, for a tenant's own limit
      return ApiError{429, error.message, "rate_limit_error", "", "tenant_limit", 1};
    case ErrorCode::kUnavailable:
      return ApiError{503, error.message, "server_error", "", "draining", 1};
    default:
      return ApiError{500, error.message, "server_error", "", "internal_error"};
  }
}

ApiError CutByDraining() {
  return ApiError{503,
                  "the request was cancelled because the server is shutting down",
                  "server_error",
                  "",
                  "draining",
                  1};
}

ApiError TenantLimit(std::string message) {
  return ApiError{429, std::move(message), "rate_limit_error", "", "tenant_limit", 1};
}

ApiError FromPrompt(const Error& error, std::string param) {
  switch (error.code) {
    case ErrorCode::kInvalidArgument:
    case ErrorCode::kUnsupported:
    case ErrorCode::kResourceExhausted:
      return ApiError{400, error.message, "invalid_request_error", std::move(param),
                      "invalid_value"};
    default:
      return ApiError{500, error.message, "server_error", std::move(param), "internal_error"};
  }
}

std::string HttpErrorJson(int status, std::string_view message) {
  ApiError error;
  error.status = status;
  error.message = std::string(message);
  if (status >= 500) error.type = "server_error";
  switch (status) {
    case 400:
      error.code = "invalid_request";
      break;
    case 404:
      error.code = "not_found";
      break;
    case 405:
      error.code = "method_not_allowed";
      break;
    case 408:
      error.code = "request_timeout";
      break;
    case 413:
      error.code = "body_too_large";
      break;
    case 415:
      error.code = "unsupported_content_encoding";
      break;
    case 431:
      error.code = "header_too_large";
      break;
    case 501:
      error.code = "not_implemented";
      break;
    case 503:
      error.code = "overloaded";
      break;
    default:
      error.code = "internal_error";
      break;
  }
  return ToJson(error);
}

void ThrowApiError(std::string param, std::string code, std::string message) {
  throw ApiException(ApiError{400, std::move(message), "invalid_request_error", std::move(param),
                              std::move(code)});
}

}  // namespace quern::server
