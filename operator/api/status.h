#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "operator/api/conditions.h"

namespace quern::control {

// One hardware variant's replicas.
struct VariantStatus {
  std::string name;
  int64_t replicas = 0;
  int64_t ready_replicas = 0;

  bool operator==(const VariantStatus&) const = default;
};

// What the autoscaler saw, as decimal strings (the API conventions allow no floats).
struct ScalingInputs {
  std::string prompt_tokens_per_second;       // arriving, stable window
  std::string requests_per_second;            // arriving, stable window
  std::string output_tokens_per_request;      // learned
  std::string backlog_tokens;                 // arrived, but not yet being served
  std::string demand_tokens_per_second;       // the figure decided on
  std::string tokens_per_second_per_replica;  // target x utilization
  int64_t fresh_pods = 0;                     // pods whose metrics are recent
  int64_t expected_pods = 0;                  // pods that should have given some

  bool operator==(const ScalingInputs&) const = default;
};

struct ScalingDecision {
  std::string time;  // RFC 3339; when it was taken first
  int64_t from = 0;
  int64_t replicas = 0;
  std::string rule;
  std::string message;  // a sentence with the figures
  ScalingInputs inputs;

  bool operator==(const ScalingDecision&) const = default;
};

// One change of the number of replicas.
struct ScalingChange {
  std::string time;
  int64_t from = 0;
  int64_t to = 0;
  std::string rule;
  std::string message;

  bool operator==(const ScalingChange&) const = default;
};

struct Percentiles {
  std::string p50;  // seconds
  std::string p95;

  bool operator==(const Percentiles&) const = default;
};

// Figures over the stable window, refreshed at most every 30 s. "" = nothing was measured.
struct PerformanceStatus {
  std::string updated;            // RFC 3339
  std::string tokens_per_second;  // prompt and output tokens served
  std::string kv_cache_usage;     // 0..1, the fullest replica's
  Percentiles time_to_first_token;
  Percentiles inter_token_latency;
  int64_t running_requests = 0;
  int64_t waiting_requests = 0;

  bool operator==(const PerformanceStatus&) const = default;
};

struct EndpointStatus {
  int64_t observed_generation = 0;
  std::string url;
  std::string selector;  // label selector of the pods, for the scale subresource
  int64_t desired_replicas = 0;
  int64_t replicas = 0;  // that there are
  int64_t ready_replicas = 0;
  std::vector<VariantStatus> variants;
  std::vector<Condition> conditions;
  std::optional<ScalingDecision> last_decision;
  std::vector<ScalingChange> history;  // newest first, at most kMaxHistory
  std::optional<PerformanceStatus> performance;

  static constexpr size_t kMaxHistory = 10;
  bool operator==(const EndpointStatus&) const = default;
};

nlohmann::json ToJson(const EndpointStatus& status);

// Lenient, as status may come from another version: what is missing or of another type stays empty.
EndpointStatus StatusFromJson(const nlohmann::json& object);

}  // namespace quern::control
