#include "operator/reconcilers/diagnose.h"

#include <fmt/format.h>

#include <algorithm>

#include "operator/api/conditions.h"
#include "operator/api/json.h"
#include "operator/api/time.h"
#include "operator/resources/children.h"

namespace quern::control {
namespace {

constexpr size_t kMaxWords = 1000;
constexpr int kBadInputExitCode = 2;  // quern-serve: the model or an option is wrong

// Gravest first: what a person must mend before what may pass by itself.
constexpr const char* kReasonsByGravity[] = {
    "ModelNotLoaded", "ImagePullFailed", "PodsRefused",  "ContainerNotStarted",
    "OutOfMemory",    "RuntimeCrashed",  "Unschedulable"};

size_t Gravity(const std::string& reason) {
  const auto* end = std::end(kReasonsByGravity);
  return static_cast<size_t>(std::find(std::begin(kReasonsByGravity), end, reason) -
                             std::begin(kReasonsByGravity));
}

const json* ConditionOf(const json& object, const char* type) {
  for (const json& condition : ArrayAt(object, {"status", "conditions"})) {
    if (StringAt(condition, {"type"}) == type) return &condition;
  }
  return nullptr;
}

const json* ServeContainer(const json& pod) {
  for (const json& status : ArrayAt(pod, {"status", "containerStatuses"})) {
    if (StringAt(status, {"name"}) == kContainerName) return &status;
  }
  return nullptr;
}

// The container runtime could not start it. NVIDIA's refuses a driver that is older than the image
// says.
Problem NotStarted(const std::string& pod, const std::string& reason, const std::string& words) {
  std::string message = fmt::format("pod {}: {}: {}", pod, reason, words);
  if (words.find("unsatisfied condition: cuda") != std::string::npos ||
      words.find("unsatisfied condition: driver") != std::string::npos) {
    message += "; the node's NVIDIA driver is too old: quern-serve with CUDA needs 580 or later";
  }
  return {"ContainerNotStarted", std::move(message)};
}

std::optional<Problem> DiagnoseWaiting(const std::string& pod, const json& container) {
  const std::string reason = StringAt(container, {"state", "waiting", "reason"});
  const std::string message = StringAt(container, {"state", "waiting", "message"});
  if (reason == "ErrImagePull" || reason == "ImagePullBackOff" || reason == "InvalidImageName" ||
      reason == "ErrImageNeverPull" || reason == "RegistryUnavailable") {
    const std::string image = StringAt(container, {"image"});
    return Problem{"ImagePullFailed",
                   fmt::format("pod {}: image {}: {}: {}", pod, image, reason, message)};
  }
  if (reason == "CreateContainerConfigError" || reason == "CreateContainerError" ||
      reason == "RunContainerError") {
    return NotStarted(pod, reason, message);
  }
  return std::nullopt;
}

std::optional<Problem> DiagnoseEnded(const std::string& pod, const json& container) {
  const json* ended = Find(container, {"state", "terminated"});
  if (ended == nullptr) ended = Find(container, {"lastState", "terminated"});
  if (ended == nullptr) return std::nullopt;
  const int64_t code = IntAt(*ended, {"exitCode"}).value_or(0);
  const std::string reason = StringAt(*ended, {"reason"});
  if (code == 0) return std::nullopt;
  const std::string words = LastWords(StringAt(*ended, {"message"}));
  if (reason == "StartError" || reason == "ContainerCannotRun")
    return NotStarted(pod, reason, words);
  const int64_t restarts = IntAt(container, {"restartCount"}).value_or(0);
  const std::string said = words.empty() ? std::string("it said nothing") : words;
  if (reason == "OOMKilled") {
    return Problem{
        "OutOfMemory",
        fmt::format("pod {}: quern-serve was killed for memory (restarts: {}); raise "
                    "spec.hardware[].resources.limits.memory or set spec.runtime.kvCache.memory",
                    pod, restarts)};
  }
  if (code == kBadInputExitCode) {
    return Problem{"ModelNotLoaded", fmt::format("pod {}: quern-serve: {}", pod, said)};
  }
  return Problem{"RuntimeCrashed",
                 fmt::format("pod {}: quern-serve ended with exit code {} (restarts: {}): {}", pod,
                             code, restarts, said)};
}

}  // namespace

std::string LastWords(const std::string& message) {
  std::string line;
  for (size_t end = message.size(); end > 0;) {
    const size_t newline = message.rfind('\n', end - 1);
    const size_t begin = newline == std::string::npos ? 0 : newline + 1;
    line = message.substr(begin, end - begin);
    line.erase(0, line.find_first_not_of(" \t\r"));
    line.erase(line.find_last_not_of(" \t\r") + 1);
    if (!line.empty() || begin == 0) break;
    end = begin - 1;
  }
  if (const json logged = json::parse(line, nullptr, false);
      logged.is_object()) {  // --log-format json
    if (const std::string said = StringAt(logged, {"message"}); !said.empty()) line = said;
  }
  // "2026-01-02T03:04:05.678Z error quern-serve: ...": the event has a time of its own, and names
  // the program.
  const size_t space = line.find(' ');
  if (space != std::string::npos && ParseTime(line.substr(0, space))) line.erase(0, space + 1);
  for (const std::string_view prefix : {"error ", "critical ", "quern-serve: ", "error: "}) {
    if (line.rfind(prefix, 0) == 0) line.erase(0, prefix.size());
  }
  if (line.size() > kMaxWords) {
    size_t end = kMaxWords;
    while (end > 0 && (static_cast<unsigned char>(line[end]) & 0xC0) == 0x80) --end;
    line.resize(end);
  }
  return line;
}

std::optional<Problem> DiagnosePod(const json& pod) {
  if (Find(pod, {"metadata", "deletionTimestamp"}) != nullptr) return std::nullopt;
  const std::string name = StringAt(pod, {"metadata", "name"});
  if (const json* scheduled = ConditionOf(pod, "PodScheduled");
      scheduled != nullptr && StringAt(*scheduled, {"status"}) == "False") {
    return Problem{"Unschedulable",
                   fmt::format("pod {}: {}", name, StringAt(*scheduled, {"message"}))};
  }
  const json* container = ServeContainer(pod);
  if (container == nullptr || BoolAt(*container, {"ready"})) return std::nullopt;
  if (auto waiting = DiagnoseWaiting(name, *container)) return waiting;
  return DiagnoseEnded(name, *container);
}

std::vector<Problem> Diagnose(const SharedObjects& pods, const SharedObjects& deployments) {
  std::vector<Problem> out;
  for (const json& deployment : deployments) {
    const json* failure = ConditionOf(deployment, "ReplicaFailure");
    if (failure == nullptr || StringAt(*failure, {"status"}) != "True") continue;
    out.push_back(
        {"PodsRefused", fmt::format("Deployment {}: {}", StringAt(deployment, {"metadata", "name"}),
                                    StringAt(*failure, {"message"}))});
  }
  for (const json& pod : pods) {
    if (auto problem = DiagnosePod(pod)) out.push_back(std::move(*problem));
  }
  std::stable_sort(out.begin(), out.end(), [](const Problem& a, const Problem& b) {
    return Gravity(a.reason) < Gravity(b.reason);
  });
  if (out.size() > kMaxProblems) out.resize(kMaxProblems);
  return out;
}

}  // namespace quern::control
