#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <string_view>

namespace quern::control {

// Wall-clock time as Kubernetes writes it: metav1.Time has whole seconds, in UTC.
using WallTime = std::chrono::system_clock::time_point;

// "2026-01-02T03:04:05Z"; fractions of a second are cut off.
std::string FormatTime(WallTime time);

// Reads RFC 3339 in UTC ("...Z", with or without a fraction, as metav1.Time and MicroTime write
// it). Empty for anything else.
std::optional<WallTime> ParseTime(std::string_view text);

// Reads the durations of the CRD: one to three of "10s", "5m", "1h", added up. Empty for anything
// else.
std::optional<std::chrono::seconds> ParseDuration(std::string_view text);

}  // namespace quern::control
