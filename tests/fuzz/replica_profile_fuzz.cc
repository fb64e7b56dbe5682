// Coefficients of quern-operator simulate: whatever the bytes, what is read can be simulated.

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "operator/simulation/profile.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto profile = quern::simulation::ParseProfile(text);
  if (!profile) {
    if (profile.error().message.empty()) std::abort();
    return 0;
  }
  const double step = profile->times.Predict({.decode_sequences = 1});
  if (!std::isfinite(step) || step <= 0) std::abort();
  if (profile->max_sequences < 1 || profile->max_batch_tokens < profile->max_sequences)
    std::abort();
  if (profile->kv_tokens < 1 || !(profile->max_decode_slowdown >= 1)) std::abort();
  return 0;
}
