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
  const auto samples =
      quern::control::ParsePrometheusText({reinterpret_cast<const char*>(data), size}, limits);
  if (!samples) return 0;
  if (samples->size() > limits.samples) std::abort();
  const auto reading = quern::control::ReadPodMetrics(*samples);
  if (!reading) return 0;
  for (const double value : reading->sample.counters.values) {
    if (!(value >= 0)) std::abort();
  }
  (void)quern::control::Percentile(reading->time_to_first_token, 0.95);
  return 0;
}
