#include "runtime/http/router.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "runtime/base/near_name.h"

namespace quern::http {
namespace {

constexpr size_t kComparedBytes = 120;  // of a path that there is not

// Enough of JSON's escaping for the messages of this library, which may quote a request's path.
std::string JsonString(std::string_view text) {
  std::string quoted = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      quoted += '\\';
      quoted += c;
    } else if (byte < 0x20 || byte >= 0x7f) {
      quoted += fmt::format("\\u{:04x}", byte);
    } else {
      quoted += c;
    }
  }
  return quoted + '"';
}

// A path as it may appear in an error: short, and nothing that is not printable ASCII.
std::string Shown(std::string_view path) {
  std::string shown;
  for (const char c : path.substr(0, 120)) shown += c > 0x20 && c < 0x7f ? c : '?';
  return path.size() > 120 ? shown + "..." : shown;
}

// How far a path that was asked for is from one that there is: edits of the letters, but first of
// all comes what lacks, or has too much, nothing but a beginning or an end: "/chat/completions".
std::pair<bool, size_t> Distance(std::string_view asked, std::string_view known) {
  asked = asked.substr(0, kComparedBytes);
  while (asked.size() > 1 && asked.ends_with('/')) asked.remove_suffix(1);
  while (known.ends_with('/')) known.remove_suffix(1);
  const bool part = asked.size() > 1 && (known.ends_with(asked) || known.starts_with(asked) ||
                                         asked.ends_with(known) || asked.starts_with(known));
  return {!part, EditDistance(asked, known)};
}

}  // namespace

std::string PlainErrorBody(int status, std::string_view message) {
  return fmt::format(R"({{"error":{{"message":{},"code":{}}}}})", JsonString(message), status);
}

void Router::Add(std::string method, std::string pattern, std::string name, Handler handler) {
  const size_t brace = std::min(pattern.find('{'), pattern.size());
  std::string rest = pattern.substr(brace);
  pattern.resize(brace);
  routes_.push_back(Route{std::move(method), std::move(pattern), std::move(rest), std::move(name),
                          std::move(handler)});
}

bool Router::Matches(const Route& route, std::string_view path) {
  if (route.rest.empty()) return path == route.prefix;
  return path.size() > route.prefix.size() && path.substr(0, route.prefix.size()) == route.prefix;
}

std::string Router::WhyNotFound(std::string_view path) const {
  std::string why = fmt::format("there is no '{}' here", Shown(path));
  for (const auto& [other, where] : elsewhere_) {
    if (path == other) why = fmt::format("'{}' {}", other, where);
  }
  std::map<std::string, std::pair<bool, size_t>> distances;
  for (const Route& route : routes_) {
    distances.emplace(route.prefix + route.rest, Distance(path, route.prefix));
  }
  std::vector<std::string> paths;
  for (const auto& [known, distance] : distances) paths.push_back(known);
  std::stable_sort(paths.begin(), paths.end(), [&](const std::string& a, const std::string& b) {
    return distances[a] < distances[b];
  });
  return fmt::format("{}; the paths of this port, the nearest first: {}", why,
                     fmt::join(paths, ", "));
}

Router::Match Router::Find(std::string_view method, std::string_view path) const {
  Match match;
  std::set<std::string> allowed;
  for (const Route& route : routes_) {
    if (!Matches(route, path)) continue;
    match.name = route.name;
    allowed.insert(route.method);
    if (route.method == "GET") allowed.insert("HEAD");
    if (route.method != method && !(method == "HEAD" && route.method == "GET")) continue;
    if (!route.rest.empty()) {
      auto decoded = PercentDecode(path.substr(route.prefix.size()));
      if (!decoded) {
        match.response.status = 400;
        match.response.body = ErrorJson(
            400, fmt::format("the path '{}' has a '%' without two hexadecimal digits after it",
                             Shown(path)));
        return match;
      }
      match.path_parameter = std::move(*decoded);
    }
    match.handler = &route.handler;
    return match;
  }
  if (allowed.empty() && fallback_) {
    match.handler = &fallback_;
    match.name = fallback_name_;
    return match;
  }
  if (allowed.empty()) {
    match.response.status = 404;
    match.response.body = ErrorJson(404, WhyNotFound(path));
    return match;
  }
  allowed.insert("OPTIONS");
  const std::string allow = fmt::format("{}", fmt::join(allowed, ", "));
  match.response.headers.emplace_back("Allow", allow);
  if (method == "OPTIONS") {
    match.response.status = 204;
    return match;
  }
  match.response.status = 405;
  match.response.body = ErrorJson(
      405, fmt::format("{} is not possible on '{}'; use {}", Shown(method), Shown(path), allow));
  return match;
}

}  // namespace quern::http
