#pragma once

#include <cstddef>
#include <functional>
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
// quern-serve's has fewer than 300 samples, of at most 5 labels.
struct MetricLimits {
  size_t samples = 5'000;
  size_t labels = 16;
  size_t line_bytes = 4'096;
};

// Reads Prometheus' text exposition format 0.0.4 (also OpenMetrics' text, whose "# EOF" and
// exemplars are passed over) and shows each sample to `visit`. One sample is held at a time,
// whatever the page. Comments, HELP, TYPE and timestamps are skipped. Takes any bytes.
// Errors: kInvalidArgument with line number and reason; kResourceExhausted beyond a limit.
Status VisitPrometheusText(std::string_view text, const MetricLimits& limits,
                           const std::function<void(const MetricSample&)>& visit);

// All samples of a page that is trusted to be of a reasonable size.
Result<std::vector<MetricSample>> ParsePrometheusText(std::string_view text,
                                                      const MetricLimits& limits = {});

}  // namespace quern::control
