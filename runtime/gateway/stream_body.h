#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace quern::gateway {

// Whether the body of a request asks for a stream: its member "stream" is true. Anything that is no
// JSON object does not.
bool AsksForStream(std::string_view body);

// Server-sent events on their way through: the bytes go on unchanged, but the beginning of an event
// is kept until its end has come, which no client would act on before. So a stream that breaks off
// can be ended by an event of ours. An event of more than `max_held` bytes goes on in pieces.
class EventHold {
 public:
  explicit EventHold(size_t max_held = 256 * 1024) : max_held_(max_held) {}

  // What may go on now; holds until the next call.
  std::string_view Feed(std::string_view bytes);
  // What is still kept, at the stream's good end.
  std::string_view Rest() const { return held_; }
  // No part of an event has gone on without its end.
  bool at_boundary() const { return at_boundary_; }

 private:
  const size_t max_held_;
  std::string held_;
  std::string out_;
  bool at_boundary_ = true;
};

}  // namespace quern::gateway
