#include "operator/api/quantity.h"

#include <charconv>
#include <cmath>

namespace quern::control {
namespace {

// What the suffix multiplies by; empty for a suffix that is none.
std::optional<double> Multiplier(std::string_view suffix) {
  if (suffix.empty()) return 1.0;
  if (suffix.size() == 2 && suffix[1] == 'i') {
    switch (suffix[0]) {
      case 'K':
        return 1024.0;
      case 'M':
        return 1024.0 * 1024;
      case 'G':
        return 1024.0 * 1024 * 1024;
      case 'T':
        return std::ldexp(1.0, 40);
      case 'P':
        return std::ldexp(1.0, 50);
      case 'E':
        return std::ldexp(1.0, 60);
      default:
        return std::nullopt;
    }
  }
  if (suffix.size() == 1) {
    switch (suffix[0]) {
      case 'n':
        return 1e-9;
      case 'u':
        return 1e-6;
      case 'm':
        return 1e-3;
      case 'k':
        return 1e3;
      case 'M':
        return 1e6;
      case 'G':
        return 1e9;
      case 'T':
        return 1e12;
      case 'P':
        return 1e15;
      case 'E':
        return 1e18;
      default:
        return std::nullopt;
    }
  }
  if (suffix[0] != 'e' && suffix[0] != 'E') return std::nullopt;
  int exponent = 0;
  const char* first = suffix.data() + 1 + (suffix[1] == '+' ? 1 : 0);
  const auto [end, error] = std::from_chars(first, suffix.data() + suffix.size(), exponent);
  if (error != std::errc() || end != suffix.data() + suffix.size()) return std::nullopt;
  if (exponent > 18 || exponent < -18) return std::nullopt;
  return std::pow(10.0, exponent);
}

bool IsNumberChar(char c) { return (c >= '0' && c <= '9') || c == '.'; }

}  // namespace

std::optional<double> ParseDecimal(std::string_view text) {
  if (text.empty() || text.size() > 32) return std::nullopt;
  for (char c : text) {
    if (!IsNumberChar(c)) return std::nullopt;
  }
  double value = 0;
  const auto [end, error] =
      std::from_chars(text.data(), text.data() + text.size(), value, std::chars_format::fixed);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::optional<double> ParseQuantity(std::string_view text) {
  double sign = 1;
  if (!text.empty() && (text[0] == '+' || text[0] == '-')) {
    if (text[0] == '-') sign = -1;
    text.remove_prefix(1);
  }
  size_t digits = 0;
  while (digits < text.size() && IsNumberChar(text[digits])) ++digits;
  const auto number = ParseDecimal(text.substr(0, digits));
  const auto multiplier = Multiplier(text.substr(digits));
  if (!number || !multiplier) return std::nullopt;
  return sign * *number * *multiplier;
}

std::optional<int64_t> ParseBytes(std::string_view text) {
  const auto value = ParseQuantity(text);
  if (!value || *value < 0 || *value > 9007199254740992.0) return std::nullopt;
  return static_cast<int64_t>(std::ceil(*value));
}

}  // namespace quern::control
