#include "runtime/bench/url.h"

#include <algorithm>
#include <charconv>

namespace quern::bench {
namespace {

constexpr std::string_view kVersionPath = "/v1";

// What a URL leads to.
struct UrlKind {
  const char* what;
  const char* example;
  std::string_view path;  // where none is named
};
constexpr UrlKind kApiUrl = {"an API", "http://127.0.0.1:8000/v1", kVersionPath};
constexpr UrlKind kMetricsUrl = {"metrics", "http://127.0.0.1:9090/metrics", "/metrics"};

// What may stand in a request line and a Host header as it is.
bool IsPlain(char c) { return c > ' ' && c < 0x7f && c != '"' && c != '\\'; }

Result<BaseUrl> ParseUrl(std::string_view text, const UrlKind& kind) {
  const auto wrong = [&](std::string_view why) {
    return MakeError(ErrorCode::kInvalidArgument, "'{}' is no URL of {}: {}; write for example {}",
                     text, kind.what, why, kind.example);
  };
  BaseUrl url;
  std::string_view rest = text;
  if (rest.starts_with("http://")) {
    rest.remove_prefix(7);
  } else if (rest.starts_with("https://")) {
    url.tls = true;
    url.port = 443;
    rest.remove_prefix(8);
  } else {
    return wrong("it does not begin with http:// or https://");
  }
  if (!std::all_of(rest.begin(), rest.end(), IsPlain)) return wrong("a character is not allowed");
  if (rest.find_first_of("?#@") != std::string_view::npos) {
    return wrong("it has a query, a fragment or a user's name");
  }
  const size_t slash = std::min(rest.find('/'), rest.size());
  std::string_view authority = rest.substr(0, slash);
  url.path = rest.substr(slash);
  std::string_view port;
  if (authority.starts_with('[')) {
    const size_t close = authority.find(']');
    if (close == std::string_view::npos) return wrong("a ']' is missing");
    url.host = authority.substr(1, close - 1);
    port = authority.substr(close + 1);
  } else {
    const size_t colon = std::min(authority.find(':'), authority.size());
    url.host = authority.substr(0, colon);
    port = authority.substr(colon);
  }
  if (url.host.empty()) return wrong("it names no host");
  if (!port.empty()) {
    const auto [end, error] = std::from_chars(port.data() + 1, port.data() + port.size(), url.port);
    if (port[0] != ':' || error != std::errc() || end != port.data() + port.size() ||
        url.port == 0) {
      return wrong("its port is no number from 1 to 65535");
    }
  }
  while (url.path.ends_with('/')) url.path.pop_back();
  if (url.path.empty()) url.path = kind.path;
  url.root = url.path;
  if (url.root.ends_with(kVersionPath)) url.root.resize(url.root.size() - kVersionPath.size());
  return url;
}

}  // namespace

Result<BaseUrl> ParseBaseUrl(std::string_view text) { return ParseUrl(text, kApiUrl); }

Result<BaseUrl> ParseMetricsUrl(std::string_view text) { return ParseUrl(text, kMetricsUrl); }

std::string BaseUrl::Authority() const {
  const bool is_v6 = host.find(':') != std::string::npos;
  const std::string name = is_v6 ? "[" + host + "]" : host;
  return port == (tls ? 443 : 80) ? name : fmt::format("{}:{}", name, port);
}

std::string BaseUrl::Show() const {
  return fmt::format("{}://{}{}", tls ? "https" : "http", Authority(), path);
}

}  // namespace quern::bench
