#pragma once

#include <fmt/format.h>

#include <exception>
#include <string>
#include <utility>
#include <variant>

#include "runtime/base/result.h"
#include "runtime/http/message.h"

namespace quern::server {

// An error as OpenAI's API reports it: {"error": {"message", "type", "param", "code"}}.
struct ApiError {
  int status = 400;
  std::string message;  // what was wrong and what would be right
  std::string type = "invalid_request_error";
  std::string param;      // path of the offending parameter, "messages[1].role"; empty: null
  std::string code;       // stable, for programs; empty: null
  int retry_after_s = 0;  // > 0: sent as Retry-After
};

// The error's JSON; invalid UTF-8 in its parts is replaced.
std::string ToJson(const ApiError& error);
http::Response ToResponse(const ApiError& error);

// The error that the engine came back with, on its way to a client.
ApiError FromEngine(const Error& error);
// The same of the tokenizer or the chat template, about the prompt in `param`. Where they ran out
// of steps or memory that prompt is too much, now and later: not a matter of the server's load.
ApiError FromPrompt(const Error& error, std::string param);
// 503: a request that had begun and was cancelled by the drain timeout.
ApiError CutByDraining();
// A tenant at a bound of its own, which `message` says: 429 tenant_limit.
ApiError TenantLimit(std::string message);

// What the HTTP side answers with by itself (404, 405, 408, 413, 431, ...), in the same shape.
std::string HttpErrorJson(int status, std::string_view message);

// A value, or the error to answer with.
template <typename T>
using ApiResult = std::variant<T, ApiError>;

// Thrown by the readers of request bodies, and caught where the parsing of a request begins: it
// never leaves this folder.
struct ApiException : std::exception {
  explicit ApiException(ApiError error) : error(std::move(error)) {}
  const char* what() const noexcept override { return error.message.c_str(); }
  ApiError error;
};

[[noreturn]] void ThrowApiError(std::string param, std::string code, std::string message);

}  // namespace quern::server
