#pragma once

#include <string_view>

#include "runtime/http/message.h"
#include "runtime/http/response_parser.h"

namespace quern::gateway {

// The fields of a request as a replica gets them. Left out are those that speak of one connection
// only (RFC 9110, 7.6.1: Connection and what it names, Keep-Alive, Proxy-Connection, TE,
// Transfer-Encoding, Upgrade; also Proxy-Authorization and Trailer), Content-Length, which is set
// anew, and Expect, which has been answered. Host stays. Via is added (7.6.3), and the client's
// address to X-Forwarded-For.
http::Headers RequestFields(const http::Request& request);

// The head of an answer as the client gets it: the same rules; Content-Length is in stream_length.
http::Response ResponseHeadOf(const http::ReceivedHead& head);

// Server-sent events that are as they were written: text/event-stream without a Content-Encoding.
bool IsEventStream(const http::ReceivedHead& head);

}  // namespace quern::gateway
