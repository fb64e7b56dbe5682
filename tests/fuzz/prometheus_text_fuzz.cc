// Any bytes as a page of metrics: never a crash, and no more than the limits allow.

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "operator/metrics/collector.h"
#include "operator/metrics/prometheus_text.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  quern::control::MetricLimits limits;
  limits.samples = 100;
  const std::string_view page(reinterpret_cast<const char*>(data), size);
  const auto samples = quern::control::ParsePrometheusText(page, limits);
  if (samples && samples->size() > limits.samples) std::abort();
  const auto reading = quern::control::ReadPodMetrics(page, limits);
  if (!samples && reading) std::abort();
  if (!reading) return 0;
  for (const double value : reading->sample.counters.values) {
    if (!(value >= 0 && value <= quern::control::kMaxFigure)) std::abort();
  }
  (void)quern::control::Percentile(reading->time_to_first_token, 0.95);
  return 0;
}
