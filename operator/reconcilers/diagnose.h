#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "operator/reconcilers/shared_objects.h"

namespace quern::control {

// Why an endpoint's pods do not do what they should. Ordered: the first listed is shown first.
struct Problem {
  std::string reason;   // CamelCase, stable
  std::string message;  // with the pod's name, and the words of whoever complained

  bool operator==(const Problem&) const = default;
};

// What is wrong with a pod, in the words of the scheduler, the kubelet or the runtime; nothing for
// one that is ready, being deleted, or still on its way. Pure; reads any shape of pod.
std::optional<Problem> DiagnosePod(const nlohmann::json& pod);

// Problems of all pods, the gravest first, at most kMaxProblems, and of the Deployments themselves
// (pods that may not even be created: quota, admission). Old pods of a rollout that still serve do
// not hide those of the new ones.
inline constexpr size_t kMaxProblems = 5;
std::vector<Problem> Diagnose(const SharedObjects& pods, const SharedObjects& deployments);

// The last line of a container's termination message that says something, without the log's time
// stamp; cut at 1,000 bytes.
std::string LastWords(const std::string& termination_message);

}  // namespace quern::control
