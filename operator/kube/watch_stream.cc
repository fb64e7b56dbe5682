#include "operator/kube/watch_stream.h"

#include "operator/kube/api_status.h"
#include "operator/kube/object.h"

namespace quern::control::kube {
namespace {

constexpr size_t kKeptLineBytes = 256 << 10;

}  // namespace

Result<WatchEvent> ParseWatchEvent(std::string_view line, const std::string& what,
                                   const KeptMetadata* keep) {
  json event = keep == nullptr ? json::parse(line, nullptr, /*allow_exceptions=*/false)
                               : ParseKept(line, JsonShape::kEvent, *keep);
  if (!event.is_object() || !event.contains("object") || !event["object"].is_object()) {
    return MakeError(ErrorCode::kDataLoss,
                     "{}: a line of {} bytes is no watch event; expected an object with type and "
                     "object",
                     what, line.size());
  }
  const std::string type = StringAt(event, "/type");
  json& object = event["object"];
  if (type == "ERROR") return ErrorFromStatus(object, what);
  WatchEvent::Type parsed;
  if (type == "ADDED") {
    parsed = WatchEvent::Type::kAdded;
  } else if (type == "MODIFIED") {
    parsed = WatchEvent::Type::kModified;
  } else if (type == "DELETED") {
    parsed = WatchEvent::Type::kDeleted;
  } else if (type == "BOOKMARK") {
    parsed = WatchEvent::Type::kBookmark;
  } else {
    return MakeError(ErrorCode::kDataLoss, "{}: a watch event of unknown type '{}'", what,
                     type.substr(0, 40));
  }
  if (ObjectResourceVersion(object).empty()) {
    return MakeError(ErrorCode::kDataLoss,
                     "{}: a watch event's object has no metadata.resourceVersion", what);
  }
  return WatchEvent{parsed, std::move(object)};
}

Result<bool> WatchStream::Feed(std::string_view bytes,
                               const std::function<bool(const WatchEvent&)>& on_event) {
  while (!bytes.empty()) {
    const size_t end = bytes.find('\n');
    const std::string_view part = bytes.substr(0, end);
    if (line_.size() + part.size() > max_line_bytes_) {
      return MakeError(ErrorCode::kResourceExhausted, "{}: an event is longer than {} bytes", what_,
                       max_line_bytes_);
    }
    line_.append(part);
    if (end == std::string_view::npos) return true;
    bytes.remove_prefix(end + 1);
    if (line_.find_first_not_of(" \t\r") == std::string::npos) {
      line_.clear();
      continue;
    }
    auto event = ParseWatchEvent(line_, what_, keep_ ? &*keep_ : nullptr);
    line_.clear();
    // One large event must not hold its megabytes for as long as the watch lasts.
    if (line_.capacity() > kKeptLineBytes) line_.shrink_to_fit();
    if (!event) return std::move(event).error();
    if (!on_event(*event)) return false;
  }
  return true;
}

Status WatchStream::Finish() const {
  if (line_.empty()) return {};
  return MakeError(ErrorCode::kUnavailable, "{}: the stream ended within an event, after {} bytes",
                   what_, line_.size());
}

}  // namespace quern::control::kube
