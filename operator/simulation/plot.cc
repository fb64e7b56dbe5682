#include <algorithm>
#include <cmath>

#include "operator/simulation/report.h"
#include "runtime/bench/svg.h"

namespace quern::simulation {
namespace {

constexpr double kWidth = 1000, kPanel = 220, kTop = 60, kLeft = 80, kPlotWidth = 860;
constexpr double kPlotHeight = 150;
constexpr size_t kBins = 430;

constexpr char kDemand[] = "#9ecae1", kSupply[] = "#2ca02c", kReplicas[] = "#555",
               kMisses[] = "#d62728";

struct Series {
  std::vector<double> demand, supply, replicas, misses;  // by bin
};

class Panels {
 public:
  Panels(const Scenario& scenario, double tokens_per_second, double end)
      : scenario_(scenario), tokens_per_second_(tokens_per_second), bin_(end / kBins) {}

  Series Of(const RunTrace& trace) const {
    Series out;
    for (auto* series : {&out.demand, &out.supply, &out.replicas, &out.misses}) {
      series->assign(kBins, 0);
    }
    for (size_t i = 0; i < scenario_.load.size(); ++i) {
      const bench::TraceRequest& request = scenario_.load[i];
      const size_t bin = BinOf(request.at);
      out.demand[bin] += (request.prompt_tokens + request.output_tokens) / bin_;
      if (!scenario_.objective.Met(request, trace.outcomes[i])) out.misses[bin] += 1;
    }
    for (const Fleet::Life& life : trace.lives) {
      const double gone = life.gone < 0 ? bin_ * kBins : life.gone;
      AddSpan(life.created, gone, 1, out.replicas);
      AddSpan(std::max(life.ready_at, 0.0), gone, tokens_per_second_, out.supply);
    }
    return out;
  }

 private:
  size_t BinOf(double time) const {
    return std::min(static_cast<size_t>(std::max(time, 0.0) / bin_), kBins - 1);
  }
  // Adds `value` to the bins of [from, to), to those that it covers in part by as much.
  void AddSpan(double from, double to, double value, std::vector<double>& bins) const {
    if (to <= from) return;
    for (size_t bin = BinOf(from); bin <= BinOf(to); ++bin) {
      const double begin = static_cast<double>(bin) * bin_;
      const double covered = std::min(to, begin + bin_) - std::max(from, begin);
      bins[bin] += value * std::max(covered, 0.0) / bin_;
    }
  }

  const Scenario& scenario_;
  const double tokens_per_second_;
  const double bin_;
};

double Largest(const std::vector<double>& values) {
  return values.empty() ? 0 : *std::max_element(values.begin(), values.end());
}

// `values` as parts of `most`, as the points of a line over the panel.
std::string Points(const std::vector<double>& values, double most, double bottom) {
  std::string points;
  for (size_t i = 0; i < values.size(); ++i) {
    const double x = kLeft + kPlotWidth * (static_cast<double>(i) + 0.5) / kBins;
    points += fmt::format("{:.1f},{:.1f} ", x, bottom - kPlotHeight * values[i] / most);
  }
  return points;
}

void Draw(bench::Svg& svg, double top, const Entry& entry, const Series& series, double most_tokens,
          double most_replicas, double most_misses) {
  const double bottom = top + kPlotHeight;
  svg.Text(kLeft, top - 6, "start",
           fmt::format("{}: {:.2f} % within the objective, {:.3f} replica-hours", entry.policy,
                       entry.result.attainment * 100, entry.result.replica_hours));
  for (int quarter = 0; quarter <= 4; ++quarter) {
    const double y = bottom - kPlotHeight * quarter / 4;
    svg.Line(kLeft, y, kLeft + kPlotWidth, y);
    svg.Text(kLeft - 6, y + 4, "end", fmt::format("{:.3g}", most_tokens * quarter / 4));
    svg.Text(kLeft + kPlotWidth + 6, y + 4, "start",
             fmt::format("{:.3g}", most_replicas * quarter / 4));
  }
  svg.Add(R"(<polygon points="{:.1f},{:.1f} {}{:.1f},{:.1f}" fill="{}"/>)", kLeft, bottom,
          Points(series.demand, most_tokens, bottom), kLeft + kPlotWidth, bottom, kDemand);
  svg.Add(R"(<polyline points="{}" fill="none" stroke="{}" stroke-width="1.5"/>)",
          Points(series.supply, most_tokens, bottom), kSupply);
  svg.Add(R"(<polyline points="{}" fill="none" stroke="{}" stroke-dasharray="4 2"/>)",
          Points(series.replicas, most_replicas, bottom), kReplicas);
  for (size_t i = 0; i < kBins; ++i) {
    if (series.misses[i] <= 0) continue;
    const double x = kLeft + kPlotWidth * static_cast<double>(i) / kBins;
    const double height = 30 * series.misses[i] / most_misses;
    svg.Add(R"(<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" fill="{}"/>)", x,
            bottom - height, kPlotWidth / kBins, height, kMisses);
  }
}

}  // namespace

std::string PlotSvg(const std::string& trace, const Scenario& scenario,
                    const Comparison& comparison) {
  double end = scenario.load.back().at;
  std::vector<const Entry*> runs;
  for (const Entry& entry : comparison.entries) {
    if (entry.policy == kClairvoyant) continue;
    runs.push_back(&entry);
    end = std::max(end, entry.result.seconds);
  }
  end = std::max(end, 1e-3);
  const Panels panels(scenario, comparison.tokens_per_second, end);
  std::vector<Series> all;
  double most_tokens = 1, most_replicas = 1, most_misses = 1;
  for (const Entry* entry : runs) {
    all.push_back(panels.Of(entry->trace));
    most_tokens = std::max({most_tokens, Largest(all.back().demand), Largest(all.back().supply)});
    most_replicas = std::max(most_replicas, Largest(all.back().replicas));
    most_misses = std::max(most_misses, Largest(all.back().misses));
  }
  const double height = kTop + kPanel * static_cast<double>(runs.size()) + 20;
  bench::Svg svg(kWidth, height);
  svg.Text(kWidth / 2, 20, "middle",
           fmt::format("{}, {}, ready after {:g} s: left tokens/s, right replicas, over {:.0f} s",
                       trace, scenario.profile.name, scenario.start_up, end));
  double x = kLeft;
  for (const auto& [name, colour] :
       {std::pair("demand", kDemand), std::pair("supply within the objective", kSupply),
        std::pair("replicas", kReplicas), std::pair("misses", kMisses)}) {
    svg.Add(R"(<rect x="{:.1f}" y="28" width="10" height="10" fill="{}"/>)", x, colour);
    svg.Text(x + 14, 37, "start", name);
    x += 200;
  }
  for (size_t i = 0; i < runs.size(); ++i) {
    Draw(svg, kTop + kPanel * static_cast<double>(i) + 10, *runs[i], all[i], most_tokens,
         most_replicas, most_misses);
  }
  return svg.Take();
}

}  // namespace quern::simulation
