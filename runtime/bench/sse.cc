#include "runtime/bench/sse.h"

namespace quern::bench {

Status SseParser::Feed(std::string_view bytes, const OnEvent& on_event) {
  while (!bytes.empty()) {
    if (after_return_) {
      after_return_ = false;
      if (bytes.front() == '\n') {
        bytes.remove_prefix(1);
        continue;
      }
    }
    const size_t end = bytes.find_first_of("\r\n");
    const std::string_view piece = bytes.substr(0, end);
    if (line_.size() + piece.size() > max_bytes_) {
      return MakeError(ErrorCode::kDataLoss, "a line of the event stream has more than {} bytes",
                       max_bytes_);
    }
    if (end == std::string_view::npos) {
      line_ += piece;
      return {};
    }
    after_return_ = bytes[end] == '\r';
    bytes.remove_prefix(end + 1);
    if (line_.empty()) {
      QUERN_TRY(TakeLine(piece, on_event));
    } else {
      line_ += piece;
      const std::string line = std::move(line_);
      line_.clear();
      QUERN_TRY(TakeLine(line, on_event));
    }
  }
  return {};
}

Status SseParser::TakeLine(std::string_view line, const OnEvent& on_event) {
  if (first_line_) {
    first_line_ = false;
    if (line.starts_with("\xEF\xBB\xBF")) line.remove_prefix(3);
  }
  if (line.empty()) {
    if (!has_data_) return {};
    has_data_ = false;
    const std::string data = std::move(data_);
    data_.clear();
    on_event(data);
    return {};
  }
  const size_t colon = line.find(':');
  if (line.substr(0, colon) != "data") return {};
  std::string_view value = colon == std::string_view::npos ? "" : line.substr(colon + 1);
  if (value.starts_with(' ')) value.remove_prefix(1);
  if (data_.size() + value.size() + 1 > max_bytes_) {
    return MakeError(ErrorCode::kDataLoss, "an event of the stream has more than {} bytes",
                     max_bytes_);
  }
  if (has_data_) data_ += '\n';
  data_ += value;
  has_data_ = true;
  return {};
}

}  // namespace quern::bench
