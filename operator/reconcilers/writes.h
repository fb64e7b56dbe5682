#pragma once

#include <stop_token>
#include <string>
#include <utility>

#include "operator/kube/client.h"

namespace quern::control {

// The writes of one reconcile. None is begun once it has been asked to stop (kCancelled): another
// operator may lead by then, and a write of ours would undo what it has decided. A write that is
// under way ends in its own time.
class Writes {
 public:
  // `client` must outlive it.
  Writes(kube::Client& client, std::stop_token stop) : client_(client), stop_(std::move(stop)) {}

  Result<kube::json> Apply(const kube::ResourceType& type, const std::string& ns,
                           const kube::json& object, const kube::ApplyOptions& options) {
    QUERN_TRY(MayBegin());
    return client_.Apply(type, ns, object, options);
  }
  Result<kube::json> MergePatch(const kube::ResourceType& type, const std::string& ns,
                                const std::string& name, const kube::json& patch) {
    QUERN_TRY(MayBegin());
    return client_.MergePatch(type, ns, name, patch);
  }
  Status Delete(const kube::ResourceType& type, const std::string& ns, const std::string& name,
                const kube::DeleteOptions& options) {
    QUERN_TRY(MayBegin());
    return client_.Delete(type, ns, name, options);
  }

 private:
  Status MayBegin() const {
    if (!stop_.stop_requested()) return {};
    return MakeError(ErrorCode::kCancelled, "asked to stop before a write");
  }

  kube::Client& client_;
  const std::stop_token stop_;
};

}  // namespace quern::control
