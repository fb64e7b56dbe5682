// A watch's byte stream: whatever the bytes and however they are cut, the same events come out.

#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "operator/kube/watch_stream.h"

namespace {

using quern::control::kube::WatchEvent;
using quern::control::kube::WatchStream;

// What a stream told, ended by how it ended.
std::vector<std::string> Read(std::string_view bytes, size_t piece) {
  WatchStream stream("watch", 4096);
  std::vector<std::string> told;
  for (size_t at = 0; at < bytes.size(); at += piece) {
    const auto fed = stream.Feed(bytes.substr(at, piece), [&](const WatchEvent& event) {
      told.push_back(std::to_string(static_cast<int>(event.type)) +
                     event.object.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
      return true;
    });
    if (!fed) {
      told.push_back(fed.error().message);
      return told;
    }
  }
  told.push_back(stream.Finish().ok() ? "whole" : "cut");
  return told;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const auto whole = Read(bytes, size + 1);
  for (const size_t piece : {size_t{1}, size_t{7}}) {
    if (Read(bytes, piece) != whole) std::abort();
  }
  using quern::control::kube::JsonShape;
  for (const JsonShape shape : {JsonShape::kObject, JsonShape::kEvent, JsonShape::kList}) {
    const auto kept = quern::control::kube::ParseKept(bytes, shape, {});
    (void)kept.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  }
  return 0;
}
