#include "operator/kube/api_status.h"

namespace quern::control::kube {
namespace {

ErrorCode CodeFor(int http_status, const std::string& reason) {
  switch (http_status) {
    case 400:
    case 413:
    case 422:
      return reason == "Expired" ? ErrorCode::kExpired : ErrorCode::kInvalidArgument;
    case 401:
    case 403:
      return ErrorCode::kPermissionDenied;
    case 404:
      return ErrorCode::kNotFound;
    case 405:
    case 406:
    case 415:
      return ErrorCode::kUnsupported;
    case 409:
      return reason == "AlreadyExists" ? ErrorCode::kAlreadyExists : ErrorCode::kConflict;
    case 410:
      return ErrorCode::kExpired;
    case 429:
      return ErrorCode::kResourceExhausted;
    default:
      return ErrorCode::kUnavailable;
  }
}

// What a person can read of a body that is no Status: one line, no control characters, bounded.
std::string Excerpt(const std::string& body) {
  std::string out;
  for (const char c : body) {
    if (out.size() >= 300) return out + "...";
    out.push_back(static_cast<unsigned char>(c) < 0x20 ? ' ' : c);
  }
  return out.empty() ? "no message" : out;
}

}  // namespace

Error ErrorFromStatus(const json& status, const std::string& what) {
  const json* code = nullptr;
  if (status.is_object()) {
    const auto found = status.find("code");
    if (found != status.end() && found->is_number_integer()) code = &*found;
  }
  const int http_status = code == nullptr ? 0 : static_cast<int>(code->get<int64_t>());
  const std::string reason = StringAt(status, "/reason");
  std::string message = StringAt(status, "/message");
  if (message.empty()) message = reason.empty() ? "no message" : reason;
  ErrorCode error_code = CodeFor(http_status, reason);
  if (reason == "Expired" || reason == "Gone") error_code = ErrorCode::kExpired;
  return MakeError(error_code, "{}: {} (HTTP {})", what, message, http_status);
}

Error ErrorFromHttp(int http_status, const std::string& body, const std::string& what) {
  json status = json::parse(body, nullptr, /*allow_exceptions=*/false);
  if (status.is_object() && ObjectKind(status) == "Status") {
    status["code"] = http_status;
    return ErrorFromStatus(status, what);
  }
  return MakeError(CodeFor(http_status, ""), "{}: {} (HTTP {})", what, Excerpt(body), http_status);
}

}  // namespace quern::control::kube
