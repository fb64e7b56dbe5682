#pragma once

#include <functional>
#include <optional>

#include "operator/controller/store.h"

namespace quern::control {

// Whether a change is worth a reconcile.
using Predicate = std::function<bool(const Change&)>;
// Which key a change concerns; nothing where it concerns none.
using KeyMapper = std::function<std::optional<ObjectKey>(const Change&)>;

// True but for changes to status alone: an object that came, went or is to go, another generation,
// spec, labels, annotations, finalizers or owners. (A custom resource with a status subresource
// counts its generation only for spec; the rest of metadata is compared.)
bool ChangedMoreThanStatus(const Change& change);
// Anything at all, also status: for children whose readiness matters.
bool AnyChange(const Change& change);

// The object's own key.
std::optional<ObjectKey> OwnKey(const Change& change);
// The key of the controller owner, when it is of this kind and API group ("serving.quern.dev").
KeyMapper ControllerOwnerKey(std::string group, std::string kind);
// The key in the object's namespace that a label names.
KeyMapper LabelKey(std::string label);

}  // namespace quern::control
