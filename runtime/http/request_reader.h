#pragma once

#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

#include "runtime/http/limits.h"
#include "runtime/http/message.h"

namespace quern::http {

// A request that was read to its end.
struct ReceivedRequest {
  Request request;  // without its remote address
  bool http10 = false;
  bool keep_alive = true;
};

// What cannot be read, and how to answer it. The connection's bytes cannot be trusted further.
struct Unreadable {
  int status = 400;
  std::string message;
  std::optional<HttpLimit> limit;  // the one that was met
  Headers headers;                 // of the answer
};

// The bytes of one connection, in whatever pieces they come, -> its requests, one after the other.
// What it holds is bounded by the limits, as long as its owner does not read ahead without end.
// No socket, no timer, no thread: the fuzzer runs what the server runs.
class RequestReader {
 public:
  // More bytes are wanted.
  struct Wanting {};
  // The header is complete, the body is still to come. Told once a request, if at all.
  struct HeaderDone {
    bool expects_continue = false;  // the client waits for "100 Continue"
  };
  using Event = std::variant<Wanting, HeaderDone, ReceivedRequest, Unreadable>;

  // `limits` outlives this.
  explicit RequestReader(const HttpLimits& limits);

  void Append(std::string_view bytes);
  // What the bytes so far amount to. After a request or what is unreadable: Next or Discard first.
  Event Read();
  // The request whose header is complete and whose body is still to come, without that.
  Request Head() const;
  // Begins with the request after the last; bytes that came ahead are kept.
  void Next();
  // Forgets the request under way and all bytes.
  void Discard();

  size_t buffered() const { return bytes_.size(); }      // not yet read
  size_t capacity() const { return bytes_.capacity(); }  // memory held for them
  size_t body_bytes() const;                             // of the request under way

 private:
  using Parser = boost::beast::http::request_parser<boost::beast::http::string_body>;

  std::optional<Unreadable> Parse();
  std::optional<Unreadable> CheckHeader() const;
  Unreadable FromParser(const boost::system::error_code& error) const;
  ReceivedRequest Take();

  const HttpLimits& limits_;
  boost::beast::flat_buffer bytes_;
  std::optional<Parser> parser_;
  bool header_done_ = false;
  Request head_;  // once the header is done: what the parser adds to its fields then are trailers
};

}  // namespace quern::http
