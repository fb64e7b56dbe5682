#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace quern::control {

inline constexpr char kSpecHashAnnotation[] = "serving.quern.dev/spec-hash";

// 16 hexadecimal digits that change when the object does: 64-bit FNV-1a of its canonical JSON (keys
// sorted, no spaces). Tells "we want something else now" from "somebody changed it"; no protection
// against intent.
std::string SpecHash(const nlohmann::json& object);

// Puts SpecHash of the object, as it is without it, into its annotations.
void AddSpecHash(nlohmann::json& object);

// The annotation, or "".
std::string SpecHashOf(const nlohmann::json& object);

// Whether everything that `wanted` says also holds in `live`: objects by key, arrays element by
// element with equal lengths, and everything else by value, quantities of resources as what they
// amount to. What the API server or somebody else filled in besides does not matter, but for what
// is one value to Kubernetes, such as a selector: there a key more changes what it means.
bool Covers(const nlohmann::json& live, const nlohmann::json& wanted);

}  // namespace quern::control
