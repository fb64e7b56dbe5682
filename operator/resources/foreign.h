#pragma once

#include <nlohmann/json.hpp>

namespace quern::control {

// Server-side apply puts the fields that it sends right, but takes away nothing that another
// manager added beside them. Most of that is theirs to add (a priority class, an annotation of
// `kubectl rollout restart`). What changes what runs in a pod, or who may reach it, is not: further
// entries of the lists that the operator writes (containers, mounts, ports), and a few fields that
// it leaves out on purpose (command, env, host namespaces, a policy's egress).

// `live` without such additions, for an object of the operator's that should be `wanted`. Equal to
// `live` where there are none.
nlohmann::json WithoutForeign(const nlohmann::json& live, const nlohmann::json& wanted);

// The JSON merge patch (RFC 7386) that makes `to` of `from`; an empty object where they are equal.
nlohmann::json MergePatchBetween(const nlohmann::json& from, const nlohmann::json& to);

}  // namespace quern::control
