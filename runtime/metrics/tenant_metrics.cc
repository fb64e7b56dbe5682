#include "runtime/metrics/tenant_metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/registry.h>

#include <string_view>
#include <utility>

namespace quern {
namespace {

// In the order of FinishedAs; then those that did not begin.
constexpr std::array<std::string_view, 6> kReasons = {"stop",   "length", "cancelled",
                                                      "format", "error",  "rejected"};

prometheus::Family<prometheus::Counter>& Counters(prometheus::Registry& registry,
                                                  const std::string& model, const char* name,
                                                  const char* help) {
  return prometheus::BuildCounter()
      .Name(name)
      .Help(help)
      .Labels({{"model", model}})
      .Register(registry);
}

}  // namespace

TenantMetrics::TenantMetrics(prometheus::Registry& registry, const std::string& model)
    : prompt_tokens_(Counters(registry, model, "quern_tenant_prompt_tokens_total",
                              "Prompt tokens of the tenant's requests that have ended.")),
      generation_tokens_(Counters(registry, model, "quern_tenant_generation_tokens_total",
                                  "Tokens generated for the tenant's requests that have ended.")),
      requests_(Counters(registry, model, "quern_tenant_requests_total",
                         "The tenant's requests that ended, or were refused for load, by reason.")),
      file_valid_(prometheus::BuildGauge()
                      .Name("quern_tenants_file_valid")
                      .Help("1: the tenants are those of the file; 0: it has become bad or is "
                            "gone, and they stay as they were.")
                      .Labels({{"model", model}})
                      .Register(registry)
                      .Add({})) {}

void TenantMetrics::Set(const std::vector<std::string>& names) {
  std::lock_guard lock(mutex_);
  std::map<std::string, Series> kept;
  for (const std::string& name : names) {
    auto old = tenants_.extract(name);
    kept.emplace(name, old ? old.mapped() : Add(name));
  }
  for (const auto& [name, series] : tenants_) Remove(series);
  tenants_ = std::move(kept);
}

void TenantMetrics::SetFileValid(bool valid) { file_valid_.Set(valid ? 1 : 0); }

void TenantMetrics::CountFinished(const std::string& name, FinishedAs how, int32_t prompt_tokens,
                                  int32_t generation_tokens) {
  std::lock_guard lock(mutex_);
  const auto found = tenants_.find(name);
  if (found == tenants_.end()) return;
  found->second.requests[static_cast<size_t>(how)]->Increment();
  found->second.prompt_tokens->Increment(prompt_tokens);
  found->second.generation_tokens->Increment(generation_tokens);
}

void TenantMetrics::CountRefused(const std::string& name) {
  std::lock_guard lock(mutex_);
  const auto found = tenants_.find(name);
  if (found != tenants_.end()) found->second.requests.back()->Increment();
}

TenantMetrics::Series TenantMetrics::Add(const std::string& name) {
  Series series;
  series.prompt_tokens = &prompt_tokens_.Add({{"tenant", name}});
  series.generation_tokens = &generation_tokens_.Add({{"tenant", name}});
  for (size_t i = 0; i < kReasons.size(); ++i) {
    series.requests[i] = &requests_.Add({{"tenant", name}, {"reason", std::string(kReasons[i])}});
  }
  return series;
}

void TenantMetrics::Remove(const Series& series) {
  prompt_tokens_.Remove(series.prompt_tokens);
  generation_tokens_.Remove(series.generation_tokens);
  for (auto* requests : series.requests) requests_.Remove(requests);
}

}  // namespace quern
