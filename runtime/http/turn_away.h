#pragma once

#include <boost/asio/ip/tcp.hpp>
#include <memory>

#include "runtime/http/session.h"

namespace quern::http {

// Answers a connection for which there is no place with 503, and closes it when the client has
// closed its side, which it does once it has read that: closing with its request unread would reset
// the connection, and might take the answer with it. Kept for at most linger_timeout, and at most
// max_turned_away at once; beyond that closed at once. Any thread; `socket`'s executor is a strand.
void TurnAway(boost::asio::ip::tcp::socket socket, std::shared_ptr<SessionContext> context);

}  // namespace quern::http
