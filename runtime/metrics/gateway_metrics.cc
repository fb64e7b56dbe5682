#include "runtime/metrics/gateway_metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include "runtime/base/cgroup.h"

namespace quern {
namespace {

using GatewayBuckets = prometheus::Histogram::BucketBoundaries;

const GatewayBuckets kWaited = {0.1, 0.25, 0.5, 1,  2.5, 5,   10,  15, 20,
                                30,  45,   60,  90, 120, 180, 300, 600};
const GatewayBuckets kOverhead = {0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025,
                                  0.005,   0.01,   0.025,   0.05,   0.1,   1};

}  // namespace

struct GatewayMetrics::Families {
  using CounterFamily = prometheus::Family<prometheus::Counter>;

  prometheus::Gauge& Gauge(const char* name, const char* help) {
    return prometheus::BuildGauge().Name(name).Help(help).Register(registry).Add({});
  }
  CounterFamily& Counters(const char* name, const char* help) {
    return prometheus::BuildCounter().Name(name).Help(help).Register(registry);
  }
  prometheus::Counter& Counter(const char* name, const char* help) {
    return Counters(name, help).Add({});
  }
  prometheus::Histogram& Histogram(const char* name, const char* help,
                                   const GatewayBuckets& buckets) {
    return prometheus::BuildHistogram().Name(name).Help(help).Register(registry).Add({}, buckets);
  }

  prometheus::Registry registry;

  CounterFamily& requests =
      Counters("quern_gateway_requests_total",
               "Requests that ended, by the status that the client got; 499: it left before.");
  CounterFamily& http_limits = Counters("quern_gateway_http_limits_total",
                                        "How often a client met a limit of the listener.");
  prometheus::Counter& body_bytes =
      Counter("quern_gateway_request_body_bytes_total", "Bytes of the bodies of requests.");
  prometheus::Counter& estimated =
      Counter("quern_gateway_estimated_prompt_tokens_total",
              "Prompt tokens that have arrived, estimated from the bytes of the bodies.");
  prometheus::Gauge& ratio =
      Gauge("quern_gateway_prompt_tokens_per_body_byte",
            "What the estimate multiplies with, learned from the usage of answers.");
  prometheus::Counter& prompt_tokens =
      Counter("quern_gateway_prompt_tokens_total", "Prompt tokens in the usage of answers.");
  prometheus::Counter& generation_tokens =
      Counter("quern_gateway_generation_tokens_total", "Generated tokens in the usage of answers.");
  prometheus::Gauge& in_flight =
      Gauge("quern_gateway_requests_in_flight", "Requests that a replica is answering.");
  prometheus::Gauge& waiting =
      Gauge("quern_gateway_requests_waiting", "Requests that wait for a ready replica.");
  prometheus::Gauge& waiting_bytes =
      Gauge("quern_gateway_waiting_bytes", "Bytes of the bodies of requests that wait.");
  prometheus::Histogram& waited =
      Histogram("quern_gateway_waiting_seconds",
                "How long requests waited for a ready replica: those that had to.", kWaited);
  CounterFamily& refused = Counters("quern_gateway_requests_refused_total",
                                    "Requests that the gateway itself refused, by reason.");
  prometheus::Histogram& overhead = Histogram(
      "quern_gateway_overhead_seconds",
      "From a request's arrival until it goes to a replica, without waiting for one.", kOverhead);
  CounterFamily& upstream_errors =
      Counters("quern_gateway_upstream_errors_total", "Exchanges with replicas that failed.");
  prometheus::Counter& retries =
      Counter("quern_gateway_retries_total", "Requests that were sent to a replica once more.");
  prometheus::Counter& stream_errors =
      Counter("quern_gateway_stream_errors_total",
              "Streams that had begun and ended with an error of the gateway, or were cut off.");
  CounterFamily& wakes =
      Counters("quern_gateway_wake_calls_total", "Calls of the wake URL, by what came of them.");
  prometheus::Gauge& replicas = Gauge("quern_gateway_replicas", "Replicas that are known.");
  prometheus::Gauge& replicas_ready =
      Gauge("quern_gateway_replicas_ready", "Replicas that say they are ready.");
  prometheus::Gauge& resident =
      Gauge("quern_gateway_process_resident_memory_bytes", "Resident memory of the process.");
};

GatewayMetrics::GatewayMetrics(const std::string& version)
    : families_(std::make_unique<Families>()) {
  prometheus::BuildGauge()
      .Name("quern_gateway_info")
      .Help("The gateway, as labels; the value is 1.")
      .Register(families_->registry)
      .Add({{"version", version}})
      .Set(1);
}
GatewayMetrics::~GatewayMetrics() = default;

void GatewayMetrics::CountRequest(int code) {
  families_->requests.Add({{"code", std::to_string(code)}}).Increment();
}
void GatewayMetrics::CountHttpLimit(std::string_view limit) {
  families_->http_limits.Add({{"limit", std::string(limit)}}).Increment();
}
void GatewayMetrics::CountArrived(size_t body_bytes, double estimated_prompt_tokens) {
  families_->body_bytes.Increment(static_cast<double>(body_bytes));
  families_->estimated.Increment(estimated_prompt_tokens);
}
void GatewayMetrics::SetTokensPerByte(double ratio) { families_->ratio.Set(ratio); }
void GatewayMetrics::CountUsage(int64_t prompt_tokens, int64_t generation_tokens) {
  families_->prompt_tokens.Increment(static_cast<double>(prompt_tokens));
  families_->generation_tokens.Increment(static_cast<double>(generation_tokens));
}
void GatewayMetrics::SetInFlight(size_t requests) {
  families_->in_flight.Set(static_cast<double>(requests));
}
void GatewayMetrics::SetWaiting(size_t requests, size_t bytes) {
  families_->waiting.Set(static_cast<double>(requests));
  families_->waiting_bytes.Set(static_cast<double>(bytes));
}
void GatewayMetrics::ObserveWaited(double seconds) { families_->waited.Observe(seconds); }
void GatewayMetrics::CountRefused(std::string_view reason) {
  families_->refused.Add({{"reason", std::string(reason)}}).Increment();
}
void GatewayMetrics::ObserveOverhead(double seconds) { families_->overhead.Observe(seconds); }
void GatewayMetrics::CountUpstreamError(std::string_view reason) {
  families_->upstream_errors.Add({{"reason", std::string(reason)}}).Increment();
}
void GatewayMetrics::CountRetry() { families_->retries.Increment(); }
void GatewayMetrics::CountStreamError() { families_->stream_errors.Increment(); }
void GatewayMetrics::CountWake(bool succeeded) {
  families_->wakes.Add({{"result", succeeded ? "ok" : "error"}}).Increment();
}
void GatewayMetrics::SetReplicas(size_t known, size_t ready) {
  families_->replicas.Set(static_cast<double>(known));
  families_->replicas_ready.Set(static_cast<double>(ready));
}

std::string GatewayMetrics::Text() const {
  families_->resident.Set(static_cast<double>(ProcessMemoryUse().resident_bytes));
  return prometheus::TextSerializer().Serialize(families_->registry.Collect());
}

}  // namespace quern
