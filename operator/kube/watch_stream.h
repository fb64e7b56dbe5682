#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "operator/kube/client.h"
#include "operator/kube/kept_metadata.h"

namespace quern::control::kube {

// Cuts a watch's byte stream into events: one JSON object a line, however the bytes are cut into
// chunks. Holds at most one line, of bounded length. Not thread-safe.
class WatchStream {
 public:
  // `what` names the watch in messages; of the objects' metadata `keep` is kept, or all.
  WatchStream(std::string what, size_t max_line_bytes,
              std::optional<KeptMetadata> keep = std::nullopt)
      : what_(std::move(what)), max_line_bytes_(max_line_bytes), keep_(std::move(keep)) {}

  // Calls `on_event` for each event that these bytes complete, until it returns false. Returns
  // whether to go on. Errors: what the server says within the stream (410 is kExpired), kDataLoss
  // for a line that is no event, kResourceExhausted for one that is too long.
  Result<bool> Feed(std::string_view bytes, const std::function<bool(const WatchEvent&)>& on_event);
  // The stream has ended: kUnavailable when that was within a line.
  Status Finish() const;

 private:
  const std::string what_;
  const size_t max_line_bytes_;
  const std::optional<KeptMetadata> keep_;
  std::string line_;
};

// One line of a watch. Takes any bytes. Errors as Feed's.
Result<WatchEvent> ParseWatchEvent(std::string_view line, const std::string& what,
                                   const KeptMetadata* keep = nullptr);

}  // namespace quern::control::kube
