#include "runtime/http/request_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/buffer.hpp>
#include <boost/beast/core/string.hpp>
#include <boost/beast/http/error.hpp>
#include <iterator>

namespace quern::http {
namespace net = boost::asio;
namespace bhttp = boost::beast::http;
using boost::system::error_code;

namespace {

// A body in chunks ends with these at least: "0\r\n\r\n".
constexpr size_t kLeastOfChunkedBody = 5;

std::string ToString(boost::beast::string_view text) { return {text.data(), text.size()}; }

bool MoreThan(const bhttp::fields& fields, size_t count) {
  auto field = fields.begin();
  while (field != fields.end() && count-- > 0) ++field;
  return field != fields.end();
}

Headers CopyHeaders(const bhttp::fields& fields) {
  Headers headers;
  for (const auto& field : fields) {
    headers.emplace_back(ToString(field.name_string()), ToString(field.value()));
  }
  return headers;
}

// Whether a list of content codings names one that changes the bytes (RFC 9110, 8.4).
bool IsEncoded(std::string_view codings) {
  while (!codings.empty()) {
    const size_t comma = std::min(codings.find(','), codings.size());
    std::string_view coding = codings.substr(0, comma);
    codings.remove_prefix(std::min(comma + 1, codings.size()));
    coding.remove_prefix(std::min(coding.find_first_not_of(" \t"), coding.size()));
    coding = coding.substr(0, coding.find_last_not_of(" \t") + 1);
    if (!coding.empty() && !boost::beast::iequals({coding.data(), coding.size()}, "identity")) {
      return true;
    }
  }
  return false;
}

// A value of the request as it may stand in an error.
std::string ShownCoding(std::string_view value) {
  std::string shown;
  for (const char c : value.substr(0, 40)) shown += c >= 0x20 && c < 0x7f ? c : '?';
  return shown;
}

// All but the body.
Request HeadOf(const bhttp::request<bhttp::string_body>& message) {
  const std::string_view target(message.target().data(), message.target().size());
  const size_t question = target.find('?');
  Request request;
  request.method = ToString(message.method_string());
  request.path = std::string(target.substr(0, question));
  if (question != std::string_view::npos) request.query = std::string(target.substr(question + 1));
  request.headers = CopyHeaders(message);
  return request;
}

}  // namespace

RequestReader::RequestReader(const HttpLimits& limits) : limits_(limits) { Next(); }

void RequestReader::Append(std::string_view bytes) {
  bytes_.commit(net::buffer_copy(bytes_.prepare(bytes.size()), net::buffer(bytes)));
}

void RequestReader::Next() {
  parser_.emplace();
  parser_->header_limit(static_cast<std::uint32_t>(limits_.max_header_bytes));
  parser_->body_limit(limits_.max_body_bytes);
  header_done_ = false;
  // What one large request needed is not kept for as long as the connection lasts.
  if (bytes_.size() == 0 && bytes_.capacity() > limits_.small_bytes) bytes_.shrink_to_fit();
}

void RequestReader::Discard() {
  bytes_.consume(bytes_.size());
  Next();
}

size_t RequestReader::body_bytes() const { return parser_->get().body().size(); }

RequestReader::Event RequestReader::Read() {
  if (auto fault = Parse()) return std::move(*fault);
  const bool header_done_now = !header_done_ && parser_->is_header_done();
  if (header_done_now) {
    header_done_ = true;
    if (auto fault = CheckHeader()) return std::move(*fault);
    head_ = HeadOf(parser_->get());
    parser_->eager(true);  // until here it has stopped at the header's end
    if (!parser_->is_done()) {
      if (auto fault = Parse()) return std::move(*fault);
    }
  }
  if (parser_->is_done()) return Take();
  // The parser bounds the header and the body, but not what belongs to neither: it waits for the
  // end of a chunk's line, extensions included, however long that is.
  if (bytes_.size() > limits_.max_header_bytes) return FromParser(bhttp::error::header_limit);
  if (!header_done_now) return Wanting{};
  const auto& request = parser_->get();
  return HeaderDone{request.version() >= 11 &&
                    boost::beast::iequals(request[bhttp::field::expect], "100-continue")};
}

// Has the parser take what it can of the bytes.
std::optional<Unreadable> RequestReader::Parse() {
  // Beast expects to be called with no less: once it has seen the last chunk's line it asserts five
  // bytes, which are four if one byte came after a first chunk that is the last.
  if (header_done_ && bytes_.size() < (parser_->chunked() ? kLeastOfChunkedBody : 1)) {
    return std::nullopt;
  }
  error_code error;
#ifndef __clang_analyzer__  // it takes the copy that Beast makes of its input for uninitialised
  bytes_.consume(parser_->put(bytes_.data(), error));
#endif
  if (error && error != bhttp::error::need_more) return FromParser(error);
  // Fields are kept one by one: thousands of tiny ones take many times the bytes they came in.
  if (MoreThan(parser_->get(), limits_.max_header_fields)) {
    return Unreadable{431,
                      fmt::format("the request's header has more than the limit of {} fields",
                                  limits_.max_header_fields),
                      HttpLimit::kHeaderBytes};
  }
  return std::nullopt;
}

// What the parser lets pass although nobody could say where the request ends: another server on
// the way might see the end elsewhere, and the rest as a request of its own (RFC 9112, 6.1, 6.3,
// 11.2). And a body in an encoding that nobody behind this undoes (RFC 9110, 15.5.16).
std::optional<Unreadable> RequestReader::CheckHeader() const {
  const auto& request = parser_->get();
  const size_t encodings = request.count(bhttp::field::transfer_encoding);
  if (encodings > 0) {
    if (request.count(bhttp::field::content_length) > 0) {
      return Unreadable{400,
                        "the request has both Content-Length and Transfer-Encoding; send one of "
                        "them"};
    }
    if (request.version() < 11) {
      return Unreadable{400, "HTTP/1.0 has no Transfer-Encoding; send Content-Length"};
    }
    const auto value = request[bhttp::field::transfer_encoding];
    if (encodings > 1 || !boost::beast::iequals(value, "chunked")) {
      return Unreadable{parser_->chunked() ? 501 : 400,
                        "the only Transfer-Encoding that is understood is chunked"};
    }
  }
  if (request.version() >= 11 && request.count(bhttp::field::host) != 1) {
    return Unreadable{400, "a request of HTTP/1.1 must have one Host field"};
  }
  const auto [first, last] = request.equal_range(bhttp::field::content_encoding);
  for (auto field = first; field != last; ++field) {
    const std::string_view codings(field->value().data(), field->value().size());
    if (!IsEncoded(codings)) continue;
    return Unreadable{.status = 415,
                      .message = fmt::format(
                          "the request's body is encoded with '{}', which this server does not "
                          "decode: send it as it is, without Content-Encoding",
                          ShownCoding(codings)),
                      .headers = {{"Accept-Encoding", "identity"}}};
  }
  return std::nullopt;
}

Unreadable RequestReader::FromParser(const error_code& error) const {
  if (error == bhttp::error::body_limit) {
    return Unreadable{413,
                      fmt::format("the request's body is larger than the limit of {} bytes",
                                  limits_.max_body_bytes),
                      HttpLimit::kBodyBytes};
  }
  if (error == bhttp::error::header_limit || error == bhttp::error::buffer_overflow) {
    return Unreadable{431,
                      fmt::format("the request's header is larger than the limit of {} bytes",
                                  limits_.max_header_bytes),
                      HttpLimit::kHeaderBytes};
  }
  return Unreadable{
      400, fmt::format("this is not an HTTP request that can be read: {}", error.message())};
}

Request RequestReader::Head() const { return head_; }

ReceivedRequest RequestReader::Take() {
  ReceivedRequest received;
  received.keep_alive = parser_->keep_alive();
  auto message = parser_->release();
  received.request = std::move(head_);
  received.request.body = std::move(message.body());
  received.http10 = message.version() < 11;
  return received;
}

}  // namespace quern::http
