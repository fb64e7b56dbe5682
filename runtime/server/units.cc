#include "runtime/server/units.h"

#include <array>
#include <charconv>
#include <cmath>
#include <optional>
#include <utility>

namespace quern::server {
namespace {

// The number at the start, and the unit after it. nullopt where there is no finite number >= 0.
std::optional<std::pair<double, std::string_view>> Split(std::string_view text) {
  double number = 0;
  const auto [end, error] =
      std::from_chars(text.data(), text.data() + text.size(), number, std::chars_format::fixed);
  if (error != std::errc() || !std::isfinite(number) || number < 0) return std::nullopt;
  return std::pair{number, text.substr(static_cast<size_t>(end - text.data()))};
}

}  // namespace

Result<int64_t> ParseBytes(std::string_view text) {
  constexpr double k1000 = 1e3, k1024 = 1024;
  static constexpr std::array<std::pair<std::string_view, double>, 18> kUnits = {{
      {"", 1},
      {"B", 1},
      {"k", k1000},
      {"kB", k1000},
      {"M", 1e6},
      {"MB", 1e6},
      {"G", 1e9},
      {"GB", 1e9},
      {"T", 1e12},
      {"TB", 1e12},
      {"Ki", k1024},
      {"KiB", k1024},
      {"Mi", k1024 * k1024},
      {"MiB", k1024 * k1024},
      {"Gi", k1024 * k1024 * k1024},
      {"GiB", k1024 * k1024 * k1024},
      {"Ti", k1024 * k1024 * k1024 * k1024},
      {"TiB", k1024 * k1024 * k1024 * k1024},
  }};
  if (const auto split = Split(text)) {
    for (const auto& [unit, factor] : kUnits) {
      if (split->second != unit) continue;
      const double bytes = split->first * factor;
      if (bytes < 9e18) return static_cast<int64_t>(bytes);
    }
  }
  return MakeError(ErrorCode::kInvalidArgument,
                   "'{}' is not a size; write for example 512MiB, 1.5GiB or 800MB", text);
}

Result<std::chrono::milliseconds> ParseDuration(std::string_view text) {
  static constexpr std::array<std::pair<std::string_view, double>, 5> kUnits = {
      {{"ms", 1}, {"s", 1000}, {"", 1000}, {"m", 60'000}, {"h", 3'600'000}}};
  if (const auto split = Split(text)) {
    for (const auto& [unit, factor] : kUnits) {
      const double ms = split->first * factor;
      if (split->second == unit && ms < 1e12) {
        return std::chrono::milliseconds(static_cast<int64_t>(ms));
      }
    }
  }
  return MakeError(ErrorCode::kInvalidArgument,
                   "'{}' is not a duration; write for example 30s, 500ms or 2m", text);
}

std::string ShowBytes(int64_t bytes) {
  constexpr std::array<const char*, 5> kNames = {"B", "KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 1024 && unit + 1 < kNames.size()) {
    value /= 1024;
    ++unit;
  }
  return unit == 0 ? fmt::format("{} B", bytes) : fmt::format("{:.1f} {}", value, kNames[unit]);
}

}  // namespace quern::server
