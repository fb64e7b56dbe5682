#pragma once

#include <map>
#include <mutex>
#include <optional>
#include <string>

#include "operator/api/status.h"
#include "operator/kube/object.h"

namespace quern::control {

// What the scaler last found out about an endpoint. It informs; the reconciler alone writes.
struct ScalingReport {
  std::string uid;                          // of the endpoint it was found out about
  std::optional<ScalingDecision> decision;  // none when replicas are fixed or set from outside
  Condition active;                         // ScalingActive
  PerformanceStatus performance;
};

// Reports by endpoint. Thread-safe.
class ScalingBoard {
 public:
  void Put(const kube::ObjectKey& key, ScalingReport report);
  // Empty also when the report is about an earlier endpoint of that name.
  std::optional<ScalingReport> Get(const kube::ObjectKey& key, const std::string& uid) const;
  void Forget(const kube::ObjectKey& key);

 private:
  mutable std::mutex mutex_;
  std::map<kube::ObjectKey, ScalingReport> reports_;
};

}  // namespace quern::control
