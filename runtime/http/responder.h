#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string_view>

#include "runtime/http/message.h"

namespace quern::http {

// The way to answer one request: either one Send, or BeginStream, any number of Write, and Finish.
// Everything but Post must be called on the session's strand: in the route's handler, in a callback
// given here, or in a function given to Post. (Of a server with one I/O thread, that thread is
// every session's strand.) After the client has gone all calls do nothing. A Responder that is let
// go of without an answer answers 500. All must have been let go of before the HttpServer is
// destroyed (Stop need not wait for that): threads that hold some end before it.
class Responder {
 public:
  virtual ~Responder() = default;

  // Runs `task` on the session's strand, soon. Any thread.
  virtual void Post(std::function<void()> task) = 0;

  virtual void Send(Response response) = 0;

  // Sends the head; the body of `head` is its first bytes. Chunked, or ended by closing for
  // HTTP/1.0, or of the length that `head` says. A stream that is let go of without Finish is cut
  // off: the connection is closed.
  virtual void BeginStream(Response head) = 0;
  // The bytes go out as fast as the client takes them. A writer should hold back while !Writable();
  // if it does not, the connection is dropped at HttpLimits::max_stream_buffer.
  virtual void Write(std::string_view bytes) = 0;
  virtual void Finish() = 0;

  // Fewer bytes wait than HttpLimits::stream_high_water.
  virtual bool Writable() const = 0;
  // The client has gone, or the answer is complete.
  virtual bool Done() const = 0;

  // `writable`: called each time that all bytes have gone out. `gone`: called once if the client
  // goes away (or is dropped) before the answer is complete.
  virtual void SetCallbacks(std::function<void()> writable, std::function<void()> gone) = 0;
};

using ResponderPtr = std::shared_ptr<Responder>;

}  // namespace quern::http
