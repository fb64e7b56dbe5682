#include "operator/reconcilers/scaling_board.h"

namespace quern::control {

void ScalingBoard::Put(const kube::ObjectKey& key, ScalingReport report) {
  std::lock_guard lock(mutex_);
  reports_[key] = std::move(report);
}

std::optional<ScalingReport> ScalingBoard::Get(const kube::ObjectKey& key,
                                               const std::string& uid) const {
  std::lock_guard lock(mutex_);
  const auto it = reports_.find(key);
  if (it == reports_.end() || it->second.uid != uid) return std::nullopt;
  return it->second;
}

void ScalingBoard::Forget(const kube::ObjectKey& key) {
  std::lock_guard lock(mutex_);
  reports_.erase(key);
}

}  // namespace quern::control
