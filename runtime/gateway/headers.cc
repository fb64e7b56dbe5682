#include "runtime/gateway/headers.h"

#include <algorithm>
#include <array>
#include <set>
#include <string>

namespace quern::gateway {
namespace {

constexpr std::array<std::string_view, 10> kOneConnections = {
    "connection",         "keep-alive",    "proxy-connection", "te",
    "transfer-encoding",  "upgrade",       "trailer",          "proxy-authorization",
    "proxy-authenticate", "content-length"};
constexpr char kVia[] = "1.1 quern-gateway";

std::string Lower(std::string_view text) {
  std::string lower(text);
  for (char& c : lower) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
  }
  return lower;
}

std::string_view Trim(std::string_view text) {
  text.remove_prefix(std::min(text.find_first_not_of(" \t"), text.size()));
  return text.substr(0, text.find_last_not_of(" \t") + 1);
}

// The names, in lower case, that end at this connection.
std::set<std::string> EndHere(const http::Headers& headers) {
  std::set<std::string> names(kOneConnections.begin(), kOneConnections.end());
  for (const auto& [name, value] : headers) {
    if (Lower(name) != "connection") continue;
    std::string_view rest = value;
    while (!rest.empty()) {
      const size_t comma = std::min(rest.find(','), rest.size());
      const std::string option = Lower(Trim(rest.substr(0, comma)));
      if (!option.empty()) names.insert(option);
      rest.remove_prefix(std::min(comma + 1, rest.size()));
    }
  }
  return names;
}

}  // namespace

http::Headers RequestFields(const http::Request& request) {
  std::set<std::string> left_out = EndHere(request.headers);
  left_out.insert("expect");
  left_out.erase("host");  // a request has one, whatever its Connection says
  http::Headers fields;
  std::string forwarded, via;
  const auto add = [](std::string& list, std::string_view item) {
    if (!list.empty()) list += ", ";
    list += item;
  };
  for (const auto& [name, value] : request.headers) {
    const std::string lower = Lower(name);
    if (left_out.count(lower) > 0) continue;
    if (lower == "x-forwarded-for") {
      add(forwarded, value);
    } else if (lower == "via") {
      add(via, value);
    } else {
      fields.emplace_back(name, value);
    }
  }
  if (!http::FindHeader(fields, "Host")) fields.emplace_back("Host", "");  // HTTP/1.0
  std::string_view client = request.remote_address;
  client = client.substr(0, client.rfind(':'));
  add(forwarded, client.empty() ? "unknown" : client);
  add(via, kVia);
  fields.emplace_back("X-Forwarded-For", forwarded);
  fields.emplace_back("Via", via);
  return fields;
}

http::Response ResponseHeadOf(const http::ReceivedHead& head) {
  const std::set<std::string> left_out = EndHere(head.headers);
  http::Response response;
  response.status = head.status;
  response.content_type.clear();
  response.stream_length = head.length;
  for (const auto& [name, value] : head.headers) {
    const std::string lower = Lower(name);
    if (left_out.count(lower) > 0) continue;
    if (lower == "content-type" && response.content_type.empty()) {
      response.content_type = value;
    } else {
      response.headers.emplace_back(name, value);
    }
  }
  return response;
}

bool IsEventStream(const http::ReceivedHead& head) {
  const std::string* type = http::FindHeader(head.headers, "Content-Type");
  const std::string* encoding = http::FindHeader(head.headers, "Content-Encoding");
  if (!type || (encoding && Lower(Trim(*encoding)) != "identity")) return false;
  return Lower(Trim(std::string_view(*type).substr(0, type->find(';')))) == "text/event-stream";
}

}  // namespace quern::gateway
