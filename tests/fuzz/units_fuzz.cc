// Sizes and durations of the command line, and percent-encoded paths.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "runtime/http/message.h"
#include "runtime/server/units.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (const auto bytes = quern::server::ParseBytes(text); bytes && *bytes < 0) abort();
  if (const auto time = quern::server::ParseDuration(text); time && time->count() < 0) abort();
  if (const auto path = quern::http::PercentDecode(text); path && path->size() > size) abort();
  return 0;
}
