// Bytes of a connection -> what the HTTP side makes of them: the parser with the server's settings,
// fed in two pieces, and the router. (The session adds only sockets and timers.)
#include <boost/asio/buffer.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "runtime/http/message.h"
#include "runtime/http/router.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  namespace bhttp = boost::beast::http;
  static const quern::http::Router* const kRouter = [] {
    auto* router = new quern::http::Router();
    const auto nothing = [](quern::http::Request, quern::http::ResponderPtr) {};
    router->Add("GET", "/v1/models", "models", nothing);
    router->Add("GET", "/v1/models/{id...}", "model", nothing);
    router->Add("POST", "/v1/completions", "completions", nothing);
    return router;
  }();

  bhttp::request_parser<bhttp::string_body> parser;
  parser.eager(true);
  parser.header_limit(1024);
  parser.body_limit(4096);
  boost::beast::flat_buffer buffer;
  const size_t cut = size > 0 ? data[0] % size : 0;
  for (const auto& [from, to] : {std::pair{size_t{0}, cut}, std::pair{cut, size}}) {
    buffer.commit(boost::asio::buffer_copy(buffer.prepare(to - from),
                                           boost::asio::const_buffer(data + from, to - from)));
    boost::system::error_code error;
    buffer.consume(parser.put(buffer.data(), error));
    if (error && error != bhttp::error::need_more) return 0;
    if (parser.is_done()) break;
  }
  if (!parser.is_done()) return 0;
  const auto message = parser.release();
  if (message.body().size() > 4096) abort();
  const std::string target(message.target());
  const auto match = kRouter->Find(std::string(message.method_string()), target);
  if (!match.handler && match.response.status < 200) abort();
  return 0;
}
