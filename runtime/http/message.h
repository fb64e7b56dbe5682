#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace quern::http {

// Header fields in the order they came. Names compare without regard to case (RFC 9110, 5.1).
using Headers = std::vector<std::pair<std::string, std::string>>;

// The value of the first field called `name`, or null.
const std::string* FindHeader(const Headers& headers, std::string_view name);
size_t CountHeaders(const Headers& headers, std::string_view name);

// A request that was read wholly. `body` is at most the listener's limit.
struct Request {
  std::string method;  // upper case: "GET"
  std::string path;    // as sent, up to '?'
  std::string query;   // what follows '?', undecoded
  Headers headers;
  std::string body;
  std::string remote_address;  // "127.0.0.1:53412"
  // What `{name}` or `{name...}` of the route's pattern stood for, percent-decoded.
  std::string path_parameter;
};

struct Response {
  int status = 200;
  std::string content_type = "application/json";
  // Besides Content-Type, Content-Length and Connection. Date is the present, where it is not here.
  Headers headers;
  std::string body;
  // Of a stream: its whole length, where that is known before it begins. It is sent as
  // Content-Length then, not in chunks, and exactly so many bytes must be written.
  std::optional<uint64_t> stream_length;
};

// "Not Found" for 404; "Unknown" for a number that HTTP does not define.
std::string_view StatusText(int status);

// RFC 3986 percent-decoding. nullopt when a '%' is not followed by two hexadecimal digits.
std::optional<std::string> PercentDecode(std::string_view text);

// One server-sent event: "data: " before every line of `data`, and the empty line that ends it
// (WHATWG HTML, 9.2).
std::string SseEvent(std::string_view data);

// The status line and the fields of a response, with the empty line. `length`: of the body; nullopt
// for a chunked (`chunked`) or close-delimited one.
std::string ResponseHead(const Response& response, std::optional<uint64_t> length, bool chunked,
                         bool keep_alive);

// The request line and the fields of a request, with the empty line. `target` and `headers` are
// sent as they are; Content-Length is added, unless a request of that method without a body needs
// none.
std::string RequestHead(std::string_view method, std::string_view target, const Headers& headers,
                        size_t length);

}  // namespace quern::http
