#include "operator/api/time.h"

#include <fmt/format.h>

#include <cstdint>

namespace quern::control {
namespace {

// Reads exactly `digits` decimal digits at `at`; moves `at` behind them.
std::optional<int> Digits(std::string_view text, size_t& at, int digits) {
  if (at + digits > text.size()) return std::nullopt;
  int value = 0;
  for (int i = 0; i < digits; ++i, ++at) {
    if (text[at] < '0' || text[at] > '9') return std::nullopt;
    value = value * 10 + (text[at] - '0');
  }
  return value;
}

bool Literal(std::string_view text, size_t& at, char wanted) {
  if (at >= text.size() || text[at] != wanted) return false;
  ++at;
  return true;
}

}  // namespace

std::string FormatTime(WallTime time) {
  using namespace std::chrono;  // NOLINT: calendar types
  const auto seconds_since = floor<seconds>(time);
  const auto day = floor<days>(seconds_since);
  const year_month_day date(day);
  const hh_mm_ss clock(seconds_since - day);
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z", static_cast<int>(date.year()),
                     static_cast<unsigned>(date.month()), static_cast<unsigned>(date.day()),
                     clock.hours().count(), clock.minutes().count(), clock.seconds().count());
}

std::optional<WallTime> ParseTime(std::string_view text) {
  using namespace std::chrono;  // NOLINT: calendar types
  size_t at = 0;
  const auto y = Digits(text, at, 4);
  if (!y || !Literal(text, at, '-')) return std::nullopt;
  const auto mo = Digits(text, at, 2);
  if (!mo || !Literal(text, at, '-')) return std::nullopt;
  const auto d = Digits(text, at, 2);
  if (!d || !Literal(text, at, 'T')) return std::nullopt;
  const auto h = Digits(text, at, 2);
  if (!h || !Literal(text, at, ':')) return std::nullopt;
  const auto mi = Digits(text, at, 2);
  if (!mi || !Literal(text, at, ':')) return std::nullopt;
  const auto s = Digits(text, at, 2);
  if (!s) return std::nullopt;
  int64_t nanos = 0;
  if (Literal(text, at, '.')) {
    int64_t scale = 100'000'000;
    const size_t first = at;
    for (; at < text.size() && text[at] >= '0' && text[at] <= '9' && at - first < 9; ++at) {
      nanos += (text[at] - '0') * scale;
      scale /= 10;
    }
    if (at == first) return std::nullopt;
  }
  if (!Literal(text, at, 'Z') || at != text.size()) return std::nullopt;
  const year_month_day date{year(*y), month(*mo), day(*d)};
  if (!date.ok() || *h > 23 || *mi > 59 || *s > 60) return std::nullopt;
  return sys_days(date) + hours(*h) + minutes(*mi) + seconds(*s) +
         duration_cast<system_clock::duration>(nanoseconds(nanos));
}

std::optional<std::chrono::seconds> ParseDuration(std::string_view text) {
  int64_t total = 0;
  int parts = 0;
  for (size_t at = 0; at < text.size(); ++parts) {
    int64_t number = 0;
    size_t digits = 0;
    for (; at < text.size() && text[at] >= '0' && text[at] <= '9'; ++at, ++digits) {
      if (digits == 5) return std::nullopt;
      number = number * 10 + (text[at] - '0');
    }
    if (digits == 0 || at >= text.size() || parts == 3) return std::nullopt;
    switch (text[at++]) {
      case 's':
        total += number;
        break;
      case 'm':
        total += number * 60;
        break;
      case 'h':
        total += number * 3600;
        break;
      default:
        return std::nullopt;
    }
  }
  if (parts == 0) return std::nullopt;
  return std::chrono::seconds(total);
}

}  // namespace quern::control
