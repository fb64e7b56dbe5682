#include "operator/metrics/operator_metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <map>
#include <mutex>

namespace quern::control {
namespace {

using prometheus::BuildCounter;
using prometheus::BuildGauge;
using prometheus::BuildHistogram;
using prometheus::Counter;
using prometheus::Family;
using prometheus::Gauge;
using prometheus::Histogram;
using prometheus::Registry;

const Histogram::BucketBoundaries kSeconds = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1,
                                              0.25,  0.5,    1,     2.5,  5,     10,   30};

Family<Counter>& MakeCounter(Registry& registry, const char* name, const char* help) {
  return BuildCounter().Name(name).Help(help).Register(registry);
}
Family<Gauge>& MakeGauge(Registry& registry, const char* name, const char* help) {
  return BuildGauge().Name(name).Help(help).Register(registry);
}
Family<Histogram>& MakeHistogram(Registry& registry, const char* name, const char* help) {
  return BuildHistogram().Name(name).Help(help).Register(registry);
}

}  // namespace

struct OperatorMetrics::Impl {
  Registry registry;
  Family<Counter>& reconciles =
      MakeCounter(registry, "quern_operator_reconcile_total", "Reconciles by outcome.");
  Family<Counter>& reconcile_errors = MakeCounter(registry, "quern_operator_reconcile_errors_total",
                                                  "Failed reconciles by kind of error.");
  Histogram& reconcile_seconds =
      MakeHistogram(registry, "quern_operator_reconcile_duration_seconds", "Time of one reconcile.")
          .Add({}, kSeconds);
  Gauge& queue_depth =
      MakeGauge(registry, "quern_operator_workqueue_depth", "Keys that wait for a worker.").Add({});
  Counter& queue_adds =
      MakeCounter(registry, "quern_operator_workqueue_adds_total", "Keys put into the queue.")
          .Add({});
  Counter& queue_retries = MakeCounter(registry, "quern_operator_workqueue_retries_total",
                                       "Keys put back after a failure.")
                               .Add({});
  Counter& queue_full = MakeCounter(registry, "quern_operator_workqueue_full_total",
                                    "Keys turned away because the queue was full.")
                            .Add({});
  Histogram& queue_seconds = MakeHistogram(registry, "quern_operator_workqueue_wait_seconds",
                                           "How long keys waited for a worker.")
                                 .Add({}, kSeconds);
  Family<Counter>& decisions =
      MakeCounter(registry, "quern_operator_scaling_decisions_total", "Scaling decisions by rule.");
  Family<Gauge>& wanted = MakeGauge(registry, "quern_operator_endpoint_desired_replicas",
                                    "Replicas that the last decision asks for.");
  Family<Gauge>& replicas =
      MakeGauge(registry, "quern_operator_endpoint_replicas", "Pods of the endpoint.");
  Family<Gauge>& ready =
      MakeGauge(registry, "quern_operator_endpoint_ready_replicas", "Pods that are ready.");
  Family<Gauge>& tokens =
      MakeGauge(registry, "quern_operator_endpoint_tokens_per_second",
                "Prompt and output tokens per second served, over the stable window.");
  Family<Counter>& scrapes =
      MakeCounter(registry, "quern_operator_scrapes_total", "Reads of pods' metrics by outcome.");
  Histogram& scrape_seconds = MakeHistogram(registry, "quern_operator_scrape_duration_seconds",
                                            "Time of one read of a pod's metrics.")
                                  .Add({}, kSeconds);
  Family<Counter>& applies =
      MakeCounter(registry, "quern_operator_applies_total", "Objects applied, by kind and reason.");
  Family<Counter>& events_dropped =
      MakeCounter(registry, "quern_operator_events_dropped_total",
                  "Kubernetes events that nobody will see, by reason.");
  Gauge& leader =
      MakeGauge(registry, "quern_operator_leader", "1 while this process holds the lease.").Add({});
  Family<Gauge>& informer_objects =
      MakeGauge(registry, "quern_operator_informer_objects", "Objects in each informer's store.");
  Family<Counter>& api_calls = MakeCounter(registry, "quern_operator_api_requests_total",
                                           "Kubernetes API calls by verb, resource and status.");
  Family<Histogram>& api_seconds =
      MakeHistogram(registry, "quern_operator_api_request_duration_seconds",
                    "Time of Kubernetes API calls but watches.");

  std::mutex mutex;
  struct EndpointGauges {
    Gauge* wanted;
    Gauge* replicas;
    Gauge* ready;
    Gauge* tokens;
  };
  std::map<std::pair<std::string, std::string>, EndpointGauges> endpoints;
};

OperatorMetrics::OperatorMetrics(const std::string& version) : impl_(std::make_unique<Impl>()) {
  MakeGauge(impl_->registry, "quern_operator_build_info", "1, labelled with the version.")
      .Add({{"version", version}})
      .Set(1);
  // Series that alerts look at exist from the start.
  for (const char* result : {"success", "error"}) impl_->reconciles.Add({{"result", result}});
  for (const char* result : {"success", "error"}) impl_->scrapes.Add({{"result", result}});
  for (const char* reason : {"too_many", "not_sent"})
    impl_->events_dropped.Add({{"reason", reason}});
}

OperatorMetrics::~OperatorMetrics() = default;

void OperatorMetrics::Reconciled(const char* error, std::chrono::duration<double> took) {
  const bool failed = error[0] != '\0';
  impl_->reconciles.Add({{"result", failed ? "error" : "success"}}).Increment();
  if (failed) impl_->reconcile_errors.Add({{"code", error}}).Increment();
  impl_->reconcile_seconds.Observe(took.count());
}

void OperatorMetrics::QueueDepth(size_t depth) {
  impl_->queue_depth.Set(static_cast<double>(depth));
}
void OperatorMetrics::QueueAdded() { impl_->queue_adds.Increment(); }
void OperatorMetrics::QueueRetried() { impl_->queue_retries.Increment(); }
void OperatorMetrics::QueueFull() { impl_->queue_full.Increment(); }
void OperatorMetrics::QueueWaited(std::chrono::duration<double> waited) {
  impl_->queue_seconds.Observe(waited.count());
}

void OperatorMetrics::Decided(const char* rule) {
  impl_->decisions.Add({{"rule", rule}}).Increment();
}

void OperatorMetrics::Endpoint(const std::string& ns, const std::string& endpoint, int64_t wanted,
                               int64_t replicas, int64_t ready, double tokens_per_second) {
  const prometheus::Labels labels = {{"endpoint_namespace", ns}, {"endpoint", endpoint}};
  std::lock_guard lock(impl_->mutex);
  auto it = impl_->endpoints.find({ns, endpoint});
  if (it == impl_->endpoints.end()) {
    const Impl::EndpointGauges gauges = {&impl_->wanted.Add(labels), &impl_->replicas.Add(labels),
                                         &impl_->ready.Add(labels), &impl_->tokens.Add(labels)};
    it = impl_->endpoints.emplace(std::make_pair(ns, endpoint), gauges).first;
  }
  it->second.wanted->Set(static_cast<double>(wanted));
  it->second.replicas->Set(static_cast<double>(replicas));
  it->second.ready->Set(static_cast<double>(ready));
  it->second.tokens->Set(tokens_per_second);
}

void OperatorMetrics::ForgetEndpoint(const std::string& ns, const std::string& endpoint) {
  std::lock_guard lock(impl_->mutex);
  const auto it = impl_->endpoints.find({ns, endpoint});
  if (it == impl_->endpoints.end()) return;
  impl_->wanted.Remove(it->second.wanted);
  impl_->replicas.Remove(it->second.replicas);
  impl_->ready.Remove(it->second.ready);
  impl_->tokens.Remove(it->second.tokens);
  impl_->endpoints.erase(it);
}

void OperatorMetrics::Scraped(bool ok, std::chrono::duration<double> took) {
  impl_->scrapes.Add({{"result", ok ? "success" : "error"}}).Increment();
  impl_->scrape_seconds.Observe(took.count());
}

void OperatorMetrics::Applied(const std::string& kind, const char* why) {
  impl_->applies.Add({{"kind", kind}, {"reason", why}}).Increment();
}

void OperatorMetrics::EventDropped(const char* reason) {
  impl_->events_dropped.Add({{"reason", reason}}).Increment();
}

void OperatorMetrics::Leader(bool leader) { impl_->leader.Set(leader ? 1 : 0); }

void OperatorMetrics::InformerObjects(const std::string& resource, size_t objects) {
  impl_->informer_objects.Add({{"resource", resource}}).Set(static_cast<double>(objects));
}

void OperatorMetrics::ApiCall(const std::string& verb, const std::string& resource, int code,
                              std::chrono::duration<double> took) {
  impl_->api_calls.Add({{"verb", verb}, {"resource", resource}, {"code", std::to_string(code)}})
      .Increment();
  if (verb != "watch") impl_->api_seconds.Add({{"verb", verb}}, kSeconds).Observe(took.count());
}

std::string OperatorMetrics::Text() const {
  return prometheus::TextSerializer().Serialize(impl_->registry.Collect());
}

}  // namespace quern::control
