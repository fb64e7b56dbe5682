// What a server streams to quern-bench: the same events come out however the bytes are cut, and
// none of them breaks the reading of their JSON. Also its error bodies, what it says of itself, and
// URLs of the command line.

#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "runtime/bench/server_facts.h"
#include "runtime/bench/sse.h"
#include "runtime/bench/stream_event.h"
#include "runtime/bench/url.h"

namespace {

// Small, so that the limits are met.
constexpr size_t kMaxBytes = 256;

std::vector<std::string> Read(std::string_view bytes, size_t piece) {
  quern::bench::SseParser parser(kMaxBytes);
  std::vector<std::string> events;
  for (size_t at = 0; at < bytes.size(); at += piece) {
    const auto fed = parser.Feed(bytes.substr(at, piece),
                                 [&](std::string_view data) { events.emplace_back(data); });
    if (!fed.ok()) {
      events.push_back(fed.error().message);
      return events;
    }
  }
  return events;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const auto whole = Read(bytes, size + 1);
  for (const size_t piece : {size_t{1}, size_t{7}}) {
    if (Read(bytes, piece) != whole) std::abort();
  }
  for (const std::string& event : whole) (void)quern::bench::ReadStreamEvent(event);
  (void)quern::bench::ReadStreamEvent(bytes);
  for (const char c : quern::bench::ReadErrorMessage(bytes)) {
    if (static_cast<unsigned char>(c) < 0x20) std::abort();  // it goes to a terminal
  }
  quern::bench::ServerFacts facts;
  quern::bench::ReadModels(bytes, facts);
  for (const std::string& shown :
       {facts.Precision(), quern::bench::ReadProcessFacts(bytes).hardware}) {
    for (const char c : shown) {
      if (static_cast<unsigned char>(c) < 0x20) std::abort();
    }
  }
  if (const auto url = quern::bench::ParseBaseUrl(bytes)) {
    const auto again = quern::bench::ParseBaseUrl(url->Show());
    if (!again || again->Show() != url->Show()) std::abort();
  }
  return 0;
}
