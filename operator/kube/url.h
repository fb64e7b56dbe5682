#pragma once

#include <string>
#include <utility>
#include <vector>

#include "operator/kube/client.h"

namespace quern::control::kube {

// Percent-encodes all but RFC 3986's unreserved characters.
std::string PercentEncode(const std::string& text);

struct ServerUrl {
  std::string origin;  // "https://host:port"
  std::string path;    // "" or "/prefix", without a slash at the end
  std::string host;    // without brackets
  bool https = true;
};
// Error: kInvalidArgument, for what is no http or https URL with a host.
Result<ServerUrl> ParseServerUrl(const std::string& url);

using Query = std::vector<std::pair<std::string, std::string>>;  // not yet encoded

// "/apis/apps/v1/namespaces/default/deployments/web/status?a=b": `name` "" for the collection.
// `ns` "" for a cluster-scoped type, or for a collection over all namespaces. Errors:
// kInvalidArgument for a namespaced type's object without a namespace.
Result<std::string> ResourcePath(const ResourceType& type, const std::string& ns,
                                 const std::string& name, const std::string& subresource = "",
                                 const Query& query = {});

}  // namespace quern::control::kube
