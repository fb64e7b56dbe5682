#include "runtime/bench/figures.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "runtime/base/percentile.h"

namespace quern::bench {
namespace {

void CountGoodput(const RequestRecord& record, const Objective& objective, Goodput& goodput) {
  bool good = true;
  const auto check = [&good](const std::optional<double>& bound, double value, int64_t& missed) {
    if (!bound || value <= *bound) return;
    ++missed;
    good = false;
  };
  // An answer without any text has kept nobody's first token.
  const double ttft =
      record.text_events > 0 ? record.Ttft() : std::numeric_limits<double>::infinity();
  check(objective.ttft, ttft, goodput.missed_ttft);
  check(objective.tpot, record.Tpot(), goodput.missed_tpot);
  check(objective.e2e, record.E2e(), goodput.missed_e2e);
  if (objective.itl && !record.gaps.empty()) {
    std::vector<float> gaps = record.gaps;
    std::sort(gaps.begin(), gaps.end());
    const double p95 = PercentileOfSorted<float>(gaps, 0.95) / record.TokensPerGap();
    check(objective.itl, p95, goodput.missed_itl);
  }
  if (good) ++goodput.met;
}

struct Samples {
  std::vector<float> ttft, tpot, itl, e2e, lateness;
};

// Every gap as the tokens that it stands for: (tokens - 1) samples in all, of the same sum.
void AddGaps(const RequestRecord& record, std::vector<float>& itl) {
  const double tokens_per_gap = record.TokensPerGap();
  double due = 0;
  for (const float gap : record.gaps) {
    due += tokens_per_gap;
    const auto samples = static_cast<size_t>(std::llround(due));
    due -= static_cast<double>(samples);
    itl.insert(itl.end(), samples, static_cast<float>(gap / tokens_per_gap));
  }
}

void CountDone(const RequestRecord& record, Figures& figures, Samples& samples) {
  ++figures.done;
  const int32_t output = record.OutputTokens();
  if (record.usage.completion < 0 || record.usage.prompt < 0) ++figures.usage_missing;
  if (output < record.wanted_output) ++figures.ended_early;
  figures.prompt_tokens += record.usage.prompt >= 0 ? record.usage.prompt : record.wanted_prompt;
  figures.wanted_prompt_tokens += record.wanted_prompt;
  figures.cached_tokens += std::max(0, record.usage.cached);
  figures.output_tokens += output;
  if (record.text_events > 0) samples.ttft.push_back(static_cast<float>(record.Ttft()));
  if (record.text_events > 1) samples.tpot.push_back(static_cast<float>(record.Tpot()));
  samples.e2e.push_back(static_cast<float>(record.E2e()));
  if (record.gaps.size() + 1 < static_cast<size_t>(record.text_events)) {
    figures.gaps_are_whole = false;
  } else {
    AddGaps(record, samples.itl);
  }
}

}  // namespace

Distribution DistributionOf(std::vector<float>& samples) {
  if (samples.empty()) return {};
  std::sort(samples.begin(), samples.end());
  const std::span<const float> sorted(samples);
  return {.count = samples.size(),
          .mean = std::accumulate(samples.begin(), samples.end(), 0.0) /
                  static_cast<double>(samples.size()),
          .p50 = PercentileOfSorted(sorted, 0.5),
          .p90 = PercentileOfSorted(sorted, 0.9),
          .p95 = PercentileOfSorted(sorted, 0.95),
          .p99 = PercentileOfSorted(sorted, 0.99),
          .max = samples.back()};
}

Figures FiguresOf(std::span<const RequestRecord* const> records, const Objective& objective) {
  Figures figures;
  Samples samples;
  double in_flight_seconds = 0;
  int64_t text_events = 0;
  for (const RequestRecord* record : records) {
    figures.seconds = std::max(figures.seconds, record->end);
    in_flight_seconds += record->end - record->sent;
    samples.lateness.push_back(static_cast<float>(record->sent - record->scheduled));
    switch (record->outcome) {
      case Outcome::kDone:
        CountDone(*record, figures, samples);
        CountGoodput(*record, objective, figures.goodput);
        text_events += record->text_events;
        break;
      case Outcome::kFailed:
        ++figures.failed;
        ++figures.errors[record->error];
        break;
      default:
        ++figures.cancelled;
    }
  }
  const auto rate = [&figures](auto amount) {
    return figures.seconds > 0 ? static_cast<double>(amount) / figures.seconds : 0;
  };
  figures.requests_per_second = rate(figures.done);
  figures.prompt_tokens_per_second = rate(figures.prompt_tokens);
  figures.output_tokens_per_second = rate(figures.output_tokens);
  figures.total_tokens_per_second = rate(figures.prompt_tokens + figures.output_tokens);
  figures.mean_in_flight = rate(in_flight_seconds);
  if (text_events > 0) {
    figures.tokens_per_event =
        static_cast<double>(figures.output_tokens) / static_cast<double>(text_events);
  }
  figures.goodput.requests_per_second = rate(figures.goodput.met);
  if (const int64_t ended = figures.done + figures.failed; ended > 0) {
    figures.goodput.share = static_cast<double>(figures.goodput.met) / static_cast<double>(ended);
  }
  figures.ttft = DistributionOf(samples.ttft);
  figures.tpot = DistributionOf(samples.tpot);
  figures.itl = DistributionOf(samples.itl);
  figures.e2e = DistributionOf(samples.e2e);
  figures.lateness = DistributionOf(samples.lateness);
  return figures;
}

}  // namespace quern::bench
