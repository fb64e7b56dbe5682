#include "operator/kube/url.h"

namespace quern::control::kube {
namespace {

bool IsUnreserved(char c) {
  return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' ||
         c == '.' || c == '_' || c == '~';
}

}  // namespace

std::string PercentEncode(const std::string& text) {
  std::string out;
  out.reserve(text.size());
  for (const char c : text) {
    if (IsUnreserved(c)) {
      out.push_back(c);
    } else {
      out += fmt::format("%{:02X}", static_cast<unsigned char>(c));
    }
  }
  return out;
}

Result<ServerUrl> ParseServerUrl(const std::string& url) {
  const auto wrong = [&](const char* why) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "server '{}': {}; it should look like https://host:6443", url, why);
  };
  const size_t scheme_end = url.find("://");
  if (scheme_end == std::string::npos) return wrong("has no scheme");
  const std::string scheme = url.substr(0, scheme_end);
  if (scheme != "https" && scheme != "http") return wrong("is neither https nor http");
  const size_t host_begin = scheme_end + 3;
  const size_t path_begin = std::min(url.find('/', host_begin), url.size());
  const std::string authority = url.substr(host_begin, path_begin - host_begin);
  for (const char c : authority) {
    if (!IsUnreserved(c) && c != ':' && c != '[' && c != ']') return wrong("has a wrong host");
  }
  const bool bracketed = authority.starts_with('[');
  const size_t host_end =
      bracketed ? authority.find(']') : std::min(authority.find(':'), authority.size());
  if (host_end == std::string::npos) return wrong("has an unclosed bracket");
  const std::string host = authority.substr(bracketed, host_end - bracketed);
  if (host.empty()) return wrong("has no host");
  const std::string port = authority.substr(host_end + bracketed);
  int port_number = scheme == "https" ? 443 : 80;
  if (!port.empty()) {
    if (port[0] != ':' || port.size() < 2 || port.size() > 6 ||
        port.find_first_not_of("0123456789", 1) != std::string::npos) {
      return wrong("has a wrong port");
    }
    port_number = std::stoi(port.substr(1));
    if (port_number < 1 || port_number > 65535) return wrong("has a wrong port");
  }
  std::string path = url.substr(path_begin);
  for (const char c : path) {
    if (!IsUnreserved(c) && c != '/' && c != '%' && c != ':') return wrong("has a wrong path");
  }
  while (path.ends_with('/')) path.pop_back();
  const std::string in_url = bracketed ? "[" + host + "]" : host;
  return ServerUrl{fmt::format("{}://{}:{}", scheme, in_url, port_number), path, host,
                   scheme == "https"};
}

Result<std::string> ResourcePath(const ResourceType& type, const std::string& ns,
                                 const std::string& name, const std::string& subresource,
                                 const Query& query) {
  if (type.namespaced && ns.empty() && !name.empty()) {
    return MakeError(ErrorCode::kInvalidArgument, "{} '{}': a namespace is needed", type.plural,
                     name);
  }
  // "." and ".." would be folded away by servers; no object may be called so.
  if (name == "." || name == ".." || ns == "." || ns == "..") {
    return MakeError(ErrorCode::kInvalidArgument, "{} '{}/{}': not a name", type.plural, ns, name);
  }
  std::string path = type.group.empty() ? "/api/" : "/apis/" + PercentEncode(type.group) + "/";
  path += PercentEncode(type.version);
  if (type.namespaced && !ns.empty()) path += "/namespaces/" + PercentEncode(ns);
  path += "/" + PercentEncode(type.plural);
  if (!name.empty()) path += "/" + PercentEncode(name);
  if (!subresource.empty()) path += "/" + PercentEncode(subresource);
  char separator = '?';
  for (const auto& [key, value] : query) {
    if (value.empty()) continue;
    path += separator + PercentEncode(key) + "=" + PercentEncode(value);
    separator = '&';
  }
  return path;
}

}  // namespace quern::control::kube
