#include "runtime/http/response_parser.h"

#include <boost/asio/buffer.hpp>
#include <boost/beast/core/string.hpp>
#include <boost/beast/http/error.hpp>
#include <limits>
#include <utility>

namespace quern::http {
namespace beast_http = boost::beast::http;

namespace {

constexpr uint32_t kMaxAnswerHeadBytes = 64 * 1024;
constexpr size_t kMaxAnswerFields = 200;
constexpr int kMaxInterimAnswers = 16;
// As in RequestReader: Beast expects no less where a chunk's line comes next.
constexpr size_t kLeastOfChunkLine = 5;

Error NoAnswer(std::string_view why) {
  return MakeError(ErrorCode::kDataLoss, "the answer cannot be read: {}", why);
}

}  // namespace

ResponseParser::Parser::Parser(bool of_head) {
  eager(true);
  skip(of_head);
  // Handed on as it comes, and bounded by whoever takes it. (boost::none is no limit only for
  // chunked bodies, in Boost 1.74.)
  body_limit(std::numeric_limits<uint64_t>::max());
  header_limit(kMaxAnswerHeadBytes);
}

void ResponseParser::Parser::on_request_impl(beast_http::verb, View, View, int, Code& error) {
  error = {};
}
void ResponseParser::Parser::on_response_impl(int status, View, int, Code& error) {
  head.status = status;
  error = {};
}
void ResponseParser::Parser::on_field_impl(beast_http::field, View name, View value, Code& error) {
  error = {};
  if (head_done) return;  // a trailer
  if (head.headers.size() == kMaxAnswerFields) {
    error = beast_http::error::header_limit;
    return;
  }
  head.headers.emplace_back(std::string(name.data(), name.size()),
                            std::string(value.data(), value.size()));
}
void ResponseParser::Parser::on_header_impl(Code& error) {
  head_done = true;
  error = {};
}
void ResponseParser::Parser::on_body_init_impl(const boost::optional<uint64_t>&, Code& error) {
  error = {};
}
size_t ResponseParser::Parser::on_body_impl(View piece, Code& error) {
  error = {};
  if (!piece.empty()) body.emplace_back(piece.data(), piece.size());
  return piece.size();
}
void ResponseParser::Parser::on_chunk_header_impl(uint64_t size, View, Code& error) {
  chunk_left = size;
  error = {};
}
size_t ResponseParser::Parser::on_chunk_body_impl(uint64_t, View piece, Code& error) {
  chunk_left -= piece.size();
  return on_body_impl(piece, error);
}
void ResponseParser::Parser::on_finish_impl(Code& error) { error = {}; }

ResponseParser::ResponseParser(bool of_head) : of_head_(of_head) { parser_.emplace(of_head); }

Result<ResponseParser::Progress> ResponseParser::Feed(std::string_view bytes) {
  kept_.erase(0, std::exchange(parsed_, 0));
  const bool from_kept = !kept_.empty();
  if (from_kept) kept_ += bytes;
  std::string_view rest = from_kept ? kept_ : bytes;
  parser_->body.clear();
  while (!rest.empty() && !parser_->is_done()) {
    if (parser_->head_done && parser_->chunked() && parser_->chunk_left == 0 &&
        rest.size() < kLeastOfChunkLine) {
      break;
    }
    boost::system::error_code error;
    const size_t used = parser_->put(boost::asio::buffer(rest.data(), rest.size()), error);
    rest.remove_prefix(used);
    if (error && error != beast_http::error::need_more) return NoAnswer(error.message());
    if (parser_->head_done && !head_told_) {
      if (auto fault = CheckHead()) return std::move(*fault);
    }
    if (parser_->is_done() && parser_->head.status / 100 == 1) {
      if (++interim_ > kMaxInterimAnswers) return NoAnswer("too many interim answers");
      parser_.emplace(of_head_);
      continue;
    }
    if (error == beast_http::error::need_more || used == 0) break;
  }
  if (rest.size() > kMaxAnswerHeadBytes) return NoAnswer("a line of a chunk is too long");
  if (from_kept) {
    parsed_ = kept_.size() - rest.size();
  } else {
    kept_ = rest;
  }
  Progress progress;
  if (parser_->head_done && !std::exchange(head_told_, parser_->head_done)) {
    progress.head = &parser_->head;
  }
  progress.body = parser_->body;
  progress.done = parser_->is_done();
  return progress;
}

// What would leave open where the answer ends (RFC 9112, 6.3), or leave HTTP.
std::optional<Error> ResponseParser::CheckHead() {
  ReceivedHead& head = parser_->head;
  if (head.status == 101) return NoAnswer("it changes the protocol, which nobody asked for");
  if (head.status < 100 || head.status > 599) return NoAnswer("its status is none of HTTP's");
  const size_t encodings = CountHeaders(head.headers, "Transfer-Encoding");
  if (encodings > 0 && CountHeaders(head.headers, "Content-Length") > 0) {
    return NoAnswer("it has both Content-Length and Transfer-Encoding");
  }
  if (encodings > 1 ||
      (encodings == 1 &&
       !boost::beast::iequals(*FindHeader(head.headers, "Transfer-Encoding"), "chunked"))) {
    return NoAnswer("its only Transfer-Encoding may be chunked");
  }
  if (const auto length = parser_->content_length()) {
    head.length = *length;
  }
  return std::nullopt;
}

Status ResponseParser::End() {
  if (parser_->is_done()) return {};
  boost::system::error_code error;
  if (parser_->head_done) parser_->put_eof(error);
  if (parser_->head_done && !error && parser_->is_done()) return {};
  return MakeError(ErrorCode::kDataLoss, "the connection ended before the answer did");
}

bool ResponseParser::reusable() const {
  return parser_->is_done() && parser_->keep_alive() && !parser_->need_eof() &&
         kept_.size() == parsed_;
}

}  // namespace quern::http
