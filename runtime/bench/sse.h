#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>

#include "runtime/base/result.h"

namespace quern::bench {

// Reads server-sent events from a byte stream that may be cut anywhere (WHATWG HTML, section
// 9.2.6). Only `data` matters here: names, ids and retry times are skipped. Not thread-safe.
class SseParser {
 public:
  // Called with the data of each event, its lines joined by '\n'; events without data are none.
  using OnEvent = std::function<void(std::string_view data)>;

  // kDataLoss from Feed when a line or the data of an event has more than `max_bytes`.
  explicit SseParser(size_t max_bytes = size_t{4} << 20) : max_bytes_(max_bytes) {}

  // After an error the parser is of no more use.
  Status Feed(std::string_view bytes, const OnEvent& on_event);

 private:
  Status TakeLine(std::string_view line, const OnEvent& on_event);

  const size_t max_bytes_;
  std::string line_;  // begun, not ended
  std::string data_;
  bool has_data_ = false;
  bool first_line_ = true;
  bool after_return_ = false;  // a '\n' that comes next belongs to the '\r' before it
};

}  // namespace quern::bench
