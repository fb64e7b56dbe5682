#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

#include "runtime/base/result.h"

namespace quern::server {

// "512MiB", "1.5GiB", "64k", "1000000" -> bytes. Units: B, k/kB, M/MB, G/GB, T/TB (powers of 1000;
// as in Kubernetes quantities), Ki/KiB, Mi/MiB, Gi/GiB, Ti/TiB (powers of 1024).
Result<int64_t> ParseBytes(std::string_view text);

// "30s", "500ms", "2m", "1h", "1.5s" -> milliseconds. A bare number counts seconds.
Result<std::chrono::milliseconds> ParseDuration(std::string_view text);

// For people: "236.0 MiB".
std::string ShowBytes(int64_t bytes);

}  // namespace quern::server
