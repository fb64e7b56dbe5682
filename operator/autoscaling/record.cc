#include "operator/autoscaling/record.h"

#include "operator/api/json.h"

namespace quern::control {
namespace {

constexpr ScalingRule kRules[] = {ScalingRule::kSteady,
                                  ScalingRule::kScaleUp,
                                  ScalingRule::kPanic,
                                  ScalingRule::kPanicHold,
                                  ScalingRule::kScaleDownDelayed,
                                  ScalingRule::kScaleDown,
                                  ScalingRule::kHoldMissingMetrics,
                                  ScalingRule::kHoldNotReady,
                                  ScalingRule::kLimits};

// Visits each field once with its name: the writer and the reader below can not differ.
template <typename V, typename T>
void Fields(V& v, T& p, const ScalingPolicy*) {
  v("minReplicas", p.min_replicas), v("maxReplicas", p.max_replicas);
  v("targetTokensPerSecond", p.target_tokens_per_second),
      v("targetUtilization", p.target_utilization);
  v("stableWindow", p.stable_window), v("panicWindow", p.panic_window),
      v("scaleDownDelay", p.scale_down_delay);
}

template <typename V, typename T>
void Fields(V& v, T& w, const WindowIncrease*) {
  v("increase", w.increase.values), v("coveredSeconds", w.covered_seconds);
}

template <typename V, typename T>
void Fields(V& v, T& o, const ScalingObservation*) {
  v("currentReplicas", o.current_replicas), v("expectedPods", o.expected_pods),
      v("freshPods", o.fresh_pods);
  v("stable", o.stable), v("panic", o.panic), v("recent", o.recent.values);
  v("runningRequests", o.running_requests), v("waitingRequests", o.waiting_requests);
  v("readySeconds", o.ready_seconds);
}

template <typename V, typename T>
void Fields(V& v, T& n, const ScalingState::Need*) {
  v("time", n.time), v("replicas", n.replicas);
}

template <typename V, typename T>
void Fields(V& v, T& s, const ScalingState*) {
  v("started", s.started), v("since", s.since), v("last", s.last), v("panicUntil", s.panic_until);
  v("learnedOutputTokens", s.learned_output_tokens), v("learnedFinished", s.learned_finished);
  v("learnedPromptTokens", s.learned_prompt_tokens), v("learnedAdmitted", s.learned_admitted);
  v("needs", s.needs);
}

template <typename V, typename T>
void Fields(V& v, T& e, const ScalingExplanation*) {
  v("rule", e.rule), v("promptTokensPerSecond", e.prompt_tokens_per_second);
  v("requestsPerSecond", e.requests_per_second),
      v("outputTokensPerRequest", e.output_tokens_per_request);
  v("backlogTokens", e.backlog_tokens), v("demandTokensPerSecond", e.demand_tokens_per_second);
  v("tokensPerSecondPerReplica", e.tokens_per_second_per_replica),
      v("neededReplicas", e.needed_replicas);
  v("limited", e.limited), v("text", e.text);
}

template <typename V, typename T>
void Fields(V& v, T& d, const ScalingDecisionResult*) {
  v("replicas", d.replicas), v("state", d.state), v("explanation", d.explanation);
}

template <typename V, typename T>
void Fields(V& v, T& r, const ScalingRecord*) {
  v("policy", r.policy), v("seen", r.seen), v("state", r.state), v("now", r.now),
      v("decision", r.decision);
}

json Write(const json& value) { return value; }
json Write(ScalingRule rule) { return RuleName(rule); }
template <typename T>
json Write(const std::vector<T>& list);
template <typename T>
  requires std::is_class_v<T>
json WriteFields(const T& value) {
  json out = json::object();
  auto visit = [&](const char* name, const auto& field) {
    using F = std::decay_t<decltype(field)>;
    if constexpr (requires {
                    Fields(std::declval<int&>(), field, static_cast<const F*>(nullptr));
                  }) {
      out[name] = WriteFields(field);
    } else {
      out[name] = Write(field);
    }
  };
  Fields(visit, value, static_cast<const T*>(nullptr));
  return out;
}
template <typename T>
json Write(const std::vector<T>& list) {
  json out = json::array();
  for (const T& entry : list) out.push_back(WriteFields(entry));
  return out;
}

// Reads fields, and remembers the first that was wrong.
class Reader {
 public:
  Reader(const json& object, std::string path, std::string& error)
      : object_(object), path_(std::move(path)), error_(error) {}

  template <typename T>
  void operator()(const char* name, T& field) {
    const json* value = Find(object_, {name});
    const std::string path = path_ + "." + name;
    if (value == nullptr) return Fail(path);
    Read(*value, path, field);
  }

 private:
  void Fail(const std::string& path) {
    if (error_.empty()) error_ = path;
  }
  void Read(const json& v, const std::string& p, bool& f) {
    v.is_boolean() ? void(f = v.get<bool>()) : Fail(p);
  }
  void Read(const json& v, const std::string& p, int64_t& f) {
    v.is_number_integer() ? void(f = v.get<int64_t>()) : Fail(p);
  }
  void Read(const json& v, const std::string& p, double& f) {
    v.is_number() ? void(f = v.get<double>()) : Fail(p);
  }
  void Read(const json& v, const std::string& p, std::string& f) {
    v.is_string() ? void(f = v.get<std::string>()) : Fail(p);
  }
  void Read(const json& v, const std::string& p, ScalingRule& f) {
    for (ScalingRule rule : kRules) {
      if (v == RuleName(rule)) return void(f = rule);
    }
    Fail(p);
  }
  void Read(const json& v, const std::string& p, std::array<double, PodCounters::kFieldCount>& f) {
    if (!v.is_array() || v.size() != f.size()) return Fail(p);
    for (size_t i = 0; i < f.size(); ++i) Read(v[i], p, f[i]);
  }
  template <typename T>
  void Read(const json& v, const std::string& p, std::vector<T>& f) {
    if (!v.is_array() || v.size() > 10'000) return Fail(p);
    for (const json& entry : v) Read(entry, p + "[]", f.emplace_back());
  }
  template <typename T>
  void Read(const json& v, const std::string& p, T& f) {
    Reader inner(v, p, error_);
    Fields(inner, f, static_cast<const T*>(nullptr));
  }

  const json& object_;
  std::string path_;
  std::string& error_;
};

}  // namespace

nlohmann::json ToJson(const ScalingRecord& record) { return WriteFields(record); }

Result<ScalingRecord> RecordFromJson(const nlohmann::json& object) {
  ScalingRecord record;
  std::string error;
  Reader reader(object, "record", error);
  Fields(reader, record, static_cast<const ScalingRecord*>(nullptr));
  if (!error.empty()) {
    return MakeError(ErrorCode::kInvalidArgument, "{}: is missing or of the wrong type", error);
  }
  return record;
}

}  // namespace quern::control
