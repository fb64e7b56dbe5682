#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/result.h"

namespace quern::control {

// One sample of a page of metrics.
struct MetricSample {
  std::string name;  // as written: histograms have _bucket, _sum and _count
  std::vector<std::pair<std::string, std::string>> labels;  // in the page's order, unescaped
  double value = 0;

  // The label's value, or "".
  std::string_view Label(std::string_view label) const;
};

// What a page may have; more is refused, so that a wrong port or a runaway pod costs little.
struct MetricLimits {
  size_t samples = 20'000;
  size_t labels = 32;
  size_t line_bytes = 16'384;
};

// Reads Prometheus' text exposition format 0.0.4 (also OpenMetrics' text, whose "# EOF" and
// exemplars are passed over). Comments, HELP, TYPE and timestamps are skipped. Takes any bytes.
// Errors: kInvalidArgument with line number and reason; kResourceExhausted beyond a limit.
Result<std::vector<MetricSample>> ParsePrometheusText(std::string_view text,
                                                      const MetricLimits& limits = {});

}  // namespace quern::control
