#pragma once

#include <string>

#include "operator/kube/object.h"
#include "runtime/base/result.h"

namespace quern::control::kube {

// The error that an HTTP status and a meta/v1 Status stand for; see Client for the codes. `what` is
// "get deployments default/web". The message is the Status' own, or the start of the body where
// that is none.
Error ErrorFromHttp(int http_status, const std::string& body, const std::string& what);
// The same from a Status object, as it comes within a watch.
Error ErrorFromStatus(const json& status, const std::string& what);

}  // namespace quern::control::kube
