#include "operator/metrics/prometheus_text.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>

namespace quern::control {
namespace {

bool IsNameStart(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == ':';
}
bool IsNameChar(char c) { return IsNameStart(c) || (c >= '0' && c <= '9'); }
bool IsSpace(char c) { return c == ' ' || c == '\t'; }

// One line, read from left to right.
class Line {
 public:
  explicit Line(std::string_view text) : text_(text) {}

  void SkipSpaces() {
    while (at_ < text_.size() && IsSpace(text_[at_])) ++at_;
  }
  bool AtEnd() const { return at_ == text_.size(); }
  bool Take(char c) {
    if (AtEnd() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  std::string_view Name() {
    const size_t first = at_;
    if (!AtEnd() && IsNameStart(text_[at_])) {
      while (!AtEnd() && IsNameChar(text_[at_])) ++at_;
    }
    return text_.substr(first, at_ - first);
  }
  // The inside of a quoted string whose opening quote has been taken. False when it does not end.
  bool Quoted(std::string& out) {
    while (!AtEnd()) {
      const char c = text_[at_++];
      if (c == '"') return true;
      if (c != '\\') {
        out.push_back(c);
        continue;
      }
      if (AtEnd()) return false;
      const char escaped = text_[at_++];
      if (escaped == 'n') {
        out.push_back('\n');
      } else if (escaped == '\\' || escaped == '"') {
        out.push_back(escaped);
      } else {  // not an escape: both stay, as Prometheus' own parser has it
        out.push_back('\\');
        out.push_back(escaped);
      }
    }
    return false;
  }
  std::string_view Word() {
    const size_t first = at_;
    while (!AtEnd() && !IsSpace(text_[at_])) ++at_;
    return text_.substr(first, at_ - first);
  }

 private:
  std::string_view text_;
  size_t at_ = 0;
};

bool ReadValue(std::string_view word, double& out) {
  double sign = 1;
  std::string_view digits = word;
  if (!digits.empty() && (digits[0] == '+' || digits[0] == '-')) {
    if (digits[0] == '-') sign = -1;
    digits.remove_prefix(1);
  }
  if (digits == "Inf" || digits == "inf" || digits == "Infinity") {
    out = sign * std::numeric_limits<double>::infinity();
    return true;
  }
  if (digits == "NaN" || digits == "nan") {
    out = std::numeric_limits<double>::quiet_NaN();
    return true;
  }
  if (digits.empty() || !((digits[0] >= '0' && digits[0] <= '9') || digits[0] == '.')) return false;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), out);
  if (end != digits.data() + digits.size()) return false;
  if (error == std::errc::result_out_of_range) {
    // Too small to tell from 0, or too large: either way no figure to reckon with.
    out = digits.find("e-") != std::string_view::npos || digits.find("E-") != std::string_view::npos
              ? 0
              : std::numeric_limits<double>::infinity();
  } else if (error != std::errc()) {
    return false;
  }
  out *= sign;
  return true;
}

// "" or what is wrong with the line.
std::string_view ReadLabels(Line& line, const MetricLimits& limits, MetricSample& sample) {
  while (true) {
    line.SkipSpaces();
    if (line.Take('}')) return "";
    const std::string_view name = line.Name();
    if (name.empty()) return "a label's name is missing";
    line.SkipSpaces();
    if (!line.Take('=')) return "'=' is missing behind a label's name";
    line.SkipSpaces();
    if (!line.Take('"')) return "a label's value is not quoted";
    std::string value;
    if (!line.Quoted(value)) return "a label's value does not end";
    if (sample.labels.size() == limits.labels) return "it has too many labels";
    sample.labels.emplace_back(name, std::move(value));
    line.SkipSpaces();
    if (line.Take(',')) continue;
    if (!line.Take('}')) return "'}' or ',' is missing behind a label";
    return "";
  }
}

std::string_view ReadSample(std::string_view text, const MetricLimits& limits,
                            MetricSample& sample) {
  Line line(text);
  line.SkipSpaces();
  sample.name = line.Name();
  if (sample.name.empty()) return "a metric's name must come first";
  line.SkipSpaces();
  if (line.Take('{')) {
    if (const auto wrong = ReadLabels(line, limits, sample); !wrong.empty()) return wrong;
  }
  line.SkipSpaces();
  if (!ReadValue(line.Word(), sample.value)) return "the value is no number";
  line.SkipSpaces();
  if (line.AtEnd() || line.Take('#')) return "";  // '#': an exemplar of OpenMetrics
  double timestamp = 0;
  if (!ReadValue(line.Word(), timestamp)) return "the timestamp is no number";
  line.SkipSpaces();
  return line.AtEnd() || line.Take('#') ? "" : "something follows the timestamp";
}

}  // namespace

std::string_view MetricSample::Label(std::string_view label) const {
  for (const auto& [name, value] : labels) {
    if (name == label) return value;
  }
  return "";
}

Status VisitPrometheusText(std::string_view text, const MetricLimits& limits,
                           const std::function<void(const MetricSample&)>& visit) {
  size_t number = 0;
  size_t samples = 0;
  MetricSample sample;
  for (size_t at = 0; at < text.size();) {
    ++number;
    const size_t end = std::min(text.find('\n', at), text.size());
    std::string_view line = text.substr(at, end - at);
    at = end + 1;
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    while (!line.empty() && IsSpace(line.front())) line.remove_prefix(1);
    if (line.empty() || line.front() == '#') continue;
    if (line.size() > limits.line_bytes) {
      return MakeError(ErrorCode::kResourceExhausted, "metrics line {}: is longer than {} bytes",
                       number, limits.line_bytes);
    }
    if (samples++ == limits.samples) {
      return MakeError(ErrorCode::kResourceExhausted, "metrics line {}: more than {} samples",
                       number, limits.samples);
    }
    sample.labels.clear();
    if (const auto wrong = ReadSample(line, limits, sample); !wrong.empty()) {
      return MakeError(ErrorCode::kInvalidArgument, "metrics line {}: {}", number, wrong);
    }
    visit(sample);
  }
  return {};
}

Result<std::vector<MetricSample>> ParsePrometheusText(std::string_view text,
                                                      const MetricLimits& limits) {
  std::vector<MetricSample> out;
  QUERN_TRY(VisitPrometheusText(text, limits,
                                [&out](const MetricSample& sample) { out.push_back(sample); }));
  return out;
}

}  // namespace quern::control
