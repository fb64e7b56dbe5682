#include "runtime/bench/url.h"

#include <algorithm>
#include <charconv>

namespace quern::bench {
namespace {

constexpr std::string_view kVersionPath = "/v1";

Error Wrong(std::string_view text, std::string_view what) {
  return MakeError(ErrorCode::kInvalidArgument,
                   "'{}' is no URL of an API: {}; write for example http://127.0.0.1:8000/v1", text,
                   what);
}

// What may stand in a request line and a Host header as it is.
bool IsPlain(char c) { return c > ' ' && c < 0x7f && c != '"' && c != '\\'; }

}  // namespace

Result<BaseUrl> ParseBaseUrl(std::string_view text) {
  BaseUrl url;
  std::string_view rest = text;
  if (rest.starts_with("http://")) {
    rest.remove_prefix(7);
  } else if (rest.starts_with("https://")) {
    url.tls = true;
    url.port = 443;
    rest.remove_prefix(8);
  } else {
    return Wrong(text, "it does not begin with http:// or https://");
  }
  if (!std::all_of(rest.begin(), rest.end(), IsPlain))
    return Wrong(text, "a character is not allowed");
  if (rest.find_first_of("?#@") != std::string_view::npos) {
    return Wrong(text, "it has a query, a fragment or a user's name");
  }
  const size_t slash = std::min(rest.find('/'), rest.size());
  std::string_view authority = rest.substr(0, slash);
  url.path = rest.substr(slash);
  std::string_view port;
  if (authority.starts_with('[')) {
    const size_t close = authority.find(']');
    if (close == std::string_view::npos) return Wrong(text, "a ']' is missing");
    url.host = authority.substr(1, close - 1);
    port = authority.substr(close + 1);
  } else {
    const size_t colon = std::min(authority.find(':'), authority.size());
    url.host = authority.substr(0, colon);
    port = authority.substr(colon);
  }
  if (url.host.empty()) return Wrong(text, "it names no host");
  if (!port.empty()) {
    const auto [end, error] = std::from_chars(port.data() + 1, port.data() + port.size(), url.port);
    if (port[0] != ':' || error != std::errc() || end != port.data() + port.size() ||
        url.port == 0) {
      return Wrong(text, "its port is no number from 1 to 65535");
    }
  }
  while (url.path.ends_with('/')) url.path.pop_back();
  if (url.path.empty()) url.path = kVersionPath;
  url.root = url.path;
  if (url.root.ends_with(kVersionPath)) url.root.resize(url.root.size() - kVersionPath.size());
  return url;
}

std::string BaseUrl::Authority() const {
  const bool is_v6 = host.find(':') != std::string::npos;
  const std::string name = is_v6 ? "[" + host + "]" : host;
  return port == (tls ? 443 : 80) ? name : fmt::format("{}:{}", name, port);
}

std::string BaseUrl::Show() const {
  return fmt::format("{}://{}{}", tls ? "https" : "http", Authority(), path);
}

}  // namespace quern::bench
