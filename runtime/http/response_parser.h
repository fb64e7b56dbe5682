#pragma once

#include <boost/beast/http/basic_parser.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/result.h"
#include "runtime/http/message.h"

namespace quern::http {

// The head of an answer from another server.
struct ReceivedHead {
  int status = 0;
  Headers headers;                 // as they came, in their order
  std::optional<uint64_t> length;  // of the body, where the head says it
};

// The bytes of one answer, in whatever pieces they come, -> its head and the pieces of its body,
// as they come. Interim answers (1xx) are passed over; chunk extensions and trailers are dropped.
// What it holds is bounded. No socket: a test can feed it.
class ResponseParser {
 public:
  // `of_head`: the answer to a HEAD, which has no body whatever its head says.
  explicit ResponseParser(bool of_head);

  // What `bytes` amount to, with those before. The views hold until `bytes` go or the next Feed.
  struct Progress {
    const ReceivedHead* head = nullptr;  // set once
    std::vector<std::string_view> body;  // pieces, in order; none is empty
    bool done = false;                   // the answer has ended
  };
  // Errors: kDataLoss: this is no HTTP answer, or nobody could say where it ends.
  Result<Progress> Feed(std::string_view bytes);
  // The connection has ended. Error: the answer has not.
  Status End();

  // After its end: the server keeps the connection, and no byte came that is not the answer's.
  bool reusable() const;

 private:
  // Beast's parser, that keeps views of what comes.
  class Parser : public boost::beast::http::basic_parser<false> {
   public:
    explicit Parser(bool of_head);

    ReceivedHead head;
    bool head_done = false;
    std::vector<std::string_view> body;
    uint64_t chunk_left = 0;

   private:
    using View = boost::beast::string_view;
    using Code = boost::system::error_code;
    void on_request_impl(boost::beast::http::verb, View, View, int, Code& error) override;
    void on_response_impl(int status, View, int, Code& error) override;
    void on_field_impl(boost::beast::http::field, View name, View value, Code& error) override;
    void on_header_impl(Code& error) override;
    void on_body_init_impl(const boost::optional<uint64_t>&, Code& error) override;
    size_t on_body_impl(View piece, Code& error) override;
    void on_chunk_header_impl(uint64_t size, View, Code& error) override;
    size_t on_chunk_body_impl(uint64_t, View piece, Code& error) override;
    void on_finish_impl(Code& error) override;
  };
  std::optional<Error> CheckHead();

  const bool of_head_;
  std::optional<Parser> parser_;
  std::string kept_;   // came and is not parsed: a head's or a chunk's line that is not whole
  size_t parsed_ = 0;  // of kept_, which the views of the last Feed may lie in
  int interim_ = 0;    // answers that were passed over
  bool head_told_ = false;
};

}  // namespace quern::http
