#include "runtime/bench/plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <vector>

#include "runtime/bench/svg.h"

namespace quern::bench {
namespace {

constexpr double kWidth = 960, kHeight = 420;
constexpr double kPanelWidth = 390, kPanelHeight = 300, kTop = 60;
constexpr size_t kMaxPoints = 2000;     // of one curve or cloud
constexpr double kLeastSeconds = 1e-5;  // below it a logarithm makes no sense here

struct Curve {
  const char* name;
  const char* colour;
  std::vector<float> values;  // seconds
};

// A logarithmic axis of seconds that begins and ends with a power of ten.
struct LogAxis {
  int low = -3, high = 0;               // powers of ten
  double Place(double seconds) const {  // from 0 to 1
    const double power = std::log10(std::max(seconds, kLeastSeconds));
    return std::clamp((power - low) / (high - low), 0.0, 1.0);
  }
};

LogAxis AxisFor(const std::vector<Curve>& curves) {
  double least = 1e9, most = 0;
  for (const Curve& curve : curves) {
    for (const float value : curve.values) {
      if (value <= 0) continue;  // an answer of one token has no ITL
      least = std::min<double>(least, value);
      most = std::max<double>(most, value);
    }
  }
  if (most <= 0) return {};
  LogAxis axis;
  axis.low = static_cast<int>(std::floor(std::log10(std::max(least, kLeastSeconds))));
  axis.high = static_cast<int>(std::ceil(std::log10(std::max(most, kLeastSeconds))));
  axis.high = std::max(axis.high, axis.low + 1);
  return axis;
}

std::string ShowSeconds(int power) {
  if (power >= 0) return fmt::format("{:g} s", std::pow(10, power));
  if (power >= -3) return fmt::format("{:g} ms", std::pow(10, power + 3));
  return fmt::format("{:g} us", std::pow(10, power + 6));
}

void Legend(Svg& svg, double left, const std::vector<Curve>& curves) {
  double x = left;
  for (const Curve& curve : curves) {
    svg.Add(R"(<rect x="{:.1f}" y="{:.1f}" width="10" height="10" fill="{}"/>)", x, kTop - 17,
            curve.colour);
    svg.Text(x + 14, kTop - 8, "start", curve.name);
    x += 80;
  }
}

void Distributions(Svg& svg, double left, std::vector<Curve> curves) {
  const LogAxis axis = AxisFor(curves);
  const double bottom = kTop + kPanelHeight;
  for (int power = axis.low; power <= axis.high; ++power) {
    const double x = left + kPanelWidth * axis.Place(std::pow(10, power));
    svg.Line(x, kTop, x, bottom);
    svg.Text(x, bottom + 16, "middle", ShowSeconds(power));
  }
  for (int percent = 0; percent <= 100; percent += 25) {
    const double y = bottom - kPanelHeight * percent / 100;
    svg.Line(left, y, left + kPanelWidth, y);
    svg.Text(left - 6, y + 4, "end", fmt::format("{} %", percent));
  }
  for (Curve& curve : curves) {
    if (curve.values.empty()) continue;
    std::sort(curve.values.begin(), curve.values.end());
    const size_t count = curve.values.size(), points = std::min(count, kMaxPoints);
    std::string path;
    for (size_t i = 0; i < points; ++i) {
      const size_t at = points == 1 ? 0 : i * (count - 1) / (points - 1);
      const double share = static_cast<double>(at + 1) / static_cast<double>(count);
      fmt::format_to(std::back_inserter(path), "{:.1f},{:.1f} ",
                     left + kPanelWidth * axis.Place(curve.values[at]),
                     bottom - kPanelHeight * share);
    }
    svg.Add(R"(<polyline points="{}" fill="none" stroke="{}" stroke-width="1.5"/>)", path,
            curve.colour);
  }
  svg.Text(left + kPanelWidth / 2, bottom + 36, "middle",
           "requests (ITL: tokens) that took at most");
  Legend(svg, left, curves);
}

void OverTime(Svg& svg, double left, const std::vector<float>& at,
              const std::vector<Curve>& clouds) {
  const LogAxis axis = AxisFor(clouds);
  const double bottom = kTop + kPanelHeight;
  const double end = at.empty() ? 1 : std::max(1e-3F, *std::max_element(at.begin(), at.end()));
  for (int power = axis.low; power <= axis.high; ++power) {
    const double y = bottom - kPanelHeight * axis.Place(std::pow(10, power));
    svg.Line(left, y, left + kPanelWidth, y);
    svg.Text(left - 6, y + 4, "end", ShowSeconds(power));
  }
  for (int quarter = 0; quarter <= 4; ++quarter) {
    const double x = left + kPanelWidth * quarter / 4;
    svg.Line(x, kTop, x, bottom);
    svg.Text(x, bottom + 16, "middle", fmt::format("{:.3g} s", end * quarter / 4));
  }
  const size_t step = at.size() / kMaxPoints + 1;
  for (const Curve& cloud : clouds) {
    for (size_t i = 0; i < at.size(); i += step) {
      svg.Add(R"(<circle cx="{:.1f}" cy="{:.1f}" r="2" fill="{}" fill-opacity="0.6"/>)",
              left + kPanelWidth * at[i] / end, bottom - kPanelHeight * axis.Place(cloud.values[i]),
              cloud.colour);
    }
  }
  svg.Text(left + kPanelWidth / 2, bottom + 36, "middle", "by the time when the request was due");
  Legend(svg, left, clouds);
}

}  // namespace

std::string PlotSvg(std::span<const RequestRecord* const> records, const std::string& title) {
  Curve ttft{"TTFT", "#1f77b4", {}}, itl{"ITL", "#d62728", {}}, e2e{"E2E", "#2ca02c", {}};
  Curve mean_itl{"mean ITL", "#d62728", {}};
  std::vector<float> due;
  for (const RequestRecord* record : records) {
    if (record->outcome != Outcome::kDone || record->text_events < 1) continue;
    due.push_back(static_cast<float>(record->scheduled));
    ttft.values.push_back(static_cast<float>(record->Ttft()));
    e2e.values.push_back(static_cast<float>(record->E2e()));
    mean_itl.values.push_back(static_cast<float>(record->Tpot()));
    const auto tokens_per_gap = static_cast<float>(record->TokensPerGap());
    for (const float gap : record->gaps) itl.values.push_back(gap / tokens_per_gap);
  }
  Svg svg(kWidth, kHeight);
  svg.Text(kWidth / 2, 22, "middle", title);
  Distributions(svg, 60, {ttft, itl, e2e});
  OverTime(svg, 540, due, {ttft, mean_itl});
  return svg.Take();
}

}  // namespace quern::bench
