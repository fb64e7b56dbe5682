#include "operator/api/status.h"

#include "operator/api/json.h"

namespace quern::control {
namespace {

json ToJson(const ScalingInputs& in) {
  return {{"promptTokensPerSecond", in.prompt_tokens_per_second},
          {"requestsPerSecond", in.requests_per_second},
          {"outputTokensPerRequest", in.output_tokens_per_request},
          {"backlogTokens", in.backlog_tokens},
          {"demandTokensPerSecond", in.demand_tokens_per_second},
          {"tokensPerSecondPerReplica", in.tokens_per_second_per_replica},
          {"freshPods", in.fresh_pods},
          {"expectedPods", in.expected_pods}};
}

ScalingInputs InputsFromJson(const json& o) {
  return {StringAt(o, {"promptTokensPerSecond"}),  StringAt(o, {"requestsPerSecond"}),
          StringAt(o, {"outputTokensPerRequest"}), StringAt(o, {"backlogTokens"}),
          StringAt(o, {"demandTokensPerSecond"}),  StringAt(o, {"tokensPerSecondPerReplica"}),
          IntAt(o, {"freshPods"}).value_or(0),     IntAt(o, {"expectedPods"}).value_or(0)};
}

json ScalingToJson(const EndpointStatus& status) {
  json scaling = json::object();
  if (status.last_decision) {
    const ScalingDecision& d = *status.last_decision;
    scaling["lastDecision"] = {{"time", d.time},         {"from", d.from},
                               {"replicas", d.replicas}, {"rule", d.rule},
                               {"message", d.message},   {"inputs", ToJson(d.inputs)}};
  }
  json history = json::array();
  for (const ScalingChange& c : status.history) {
    history.push_back({{"time", c.time},
                       {"from", c.from},
                       {"to", c.to},
                       {"rule", c.rule},
                       {"message", c.message}});
  }
  if (!history.empty()) scaling["history"] = std::move(history);
  return scaling;
}

void PutPercentiles(json& out, const char* key, const Percentiles& p) {
  json object = json::object();
  if (!p.p50.empty()) object["p50"] = p.p50;
  if (!p.p95.empty()) object["p95"] = p.p95;
  if (!object.empty()) out[key] = std::move(object);
}

json ToJson(const PerformanceStatus& p) {
  json out = {{"updated", p.updated},
              {"runningRequests", p.running_requests},
              {"waitingRequests", p.waiting_requests}};
  if (!p.tokens_per_second.empty()) out["tokensPerSecond"] = p.tokens_per_second;
  if (!p.kv_cache_usage.empty()) out["kvCacheUsage"] = p.kv_cache_usage;
  PutPercentiles(out, "timeToFirstToken", p.time_to_first_token);
  PutPercentiles(out, "interTokenLatency", p.inter_token_latency);
  return out;
}

Percentiles PercentilesFromJson(const json& o, const char* key) {
  return {StringAt(o, {key, "p50"}), StringAt(o, {key, "p95"})};
}

void ScalingFromJson(const json& scaling, EndpointStatus& status) {
  if (const json* last = Find(scaling, {"lastDecision"}); last != nullptr && last->is_object()) {
    ScalingDecision d;
    d.time = StringAt(*last, {"time"});
    d.from = IntAt(*last, {"from"}).value_or(0);
    d.replicas = IntAt(*last, {"replicas"}).value_or(0);
    d.rule = StringAt(*last, {"rule"});
    d.message = StringAt(*last, {"message"});
    if (const json* inputs = Find(*last, {"inputs"})) d.inputs = InputsFromJson(*inputs);
    status.last_decision = std::move(d);
  }
  for (const json& entry : ArrayAt(scaling, {"history"})) {
    if (status.history.size() == EndpointStatus::kMaxHistory) break;
    status.history.push_back({StringAt(entry, {"time"}), IntAt(entry, {"from"}).value_or(0),
                              IntAt(entry, {"to"}).value_or(0), StringAt(entry, {"rule"}),
                              StringAt(entry, {"message"})});
  }
}

}  // namespace

nlohmann::json ToJson(const EndpointStatus& status) {
  json variants = json::array();
  for (const VariantStatus& v : status.variants) {
    variants.push_back(
        {{"name", v.name}, {"replicas", v.replicas}, {"readyReplicas", v.ready_replicas}});
  }
  json conditions = json::array();
  for (const Condition& c : status.conditions) conditions.push_back(ToJson(c));
  json out = {{"observedGeneration", status.observed_generation},
              {"desiredReplicas", status.desired_replicas},
              {"replicas", status.replicas},
              {"readyReplicas", status.ready_replicas},
              {"variants", std::move(variants)},
              {"conditions", std::move(conditions)}};
  if (!status.url.empty()) out["url"] = status.url;
  if (!status.selector.empty()) out["selector"] = status.selector;
  if (json scaling = ScalingToJson(status); !scaling.empty()) out["scaling"] = std::move(scaling);
  if (status.performance) out["performance"] = ToJson(*status.performance);
  return out;
}

EndpointStatus StatusFromJson(const nlohmann::json& o) {
  EndpointStatus status;
  status.observed_generation = IntAt(o, {"observedGeneration"}).value_or(0);
  status.url = StringAt(o, {"url"});
  status.selector = StringAt(o, {"selector"});
  status.desired_replicas = IntAt(o, {"desiredReplicas"}).value_or(0);
  status.replicas = IntAt(o, {"replicas"}).value_or(0);
  status.ready_replicas = IntAt(o, {"readyReplicas"}).value_or(0);
  for (const json& v : ArrayAt(o, {"variants"})) {
    status.variants.push_back({StringAt(v, {"name"}), IntAt(v, {"replicas"}).value_or(0),
                               IntAt(v, {"readyReplicas"}).value_or(0)});
  }
  for (const json& c : ArrayAt(o, {"conditions"})) {
    if (c.is_object()) status.conditions.push_back(ConditionFromJson(c));
  }
  if (const json* scaling = Find(o, {"scaling"})) ScalingFromJson(*scaling, status);
  if (const json* p = Find(o, {"performance"}); p != nullptr && p->is_object()) {
    PerformanceStatus performance;
    performance.updated = StringAt(*p, {"updated"});
    performance.tokens_per_second = StringAt(*p, {"tokensPerSecond"});
    performance.kv_cache_usage = StringAt(*p, {"kvCacheUsage"});
    performance.time_to_first_token = PercentilesFromJson(*p, "timeToFirstToken");
    performance.inter_token_latency = PercentilesFromJson(*p, "interTokenLatency");
    performance.running_requests = IntAt(*p, {"runningRequests"}).value_or(0);
    performance.waiting_requests = IntAt(*p, {"waitingRequests"}).value_or(0);
    status.performance = std::move(performance);
  }
  return status;
}

}  // namespace quern::control
