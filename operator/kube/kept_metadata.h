#pragma once

#include <cstddef>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <string_view>

namespace quern::control::kube {

// What a client keeps of objects, and of their own metadata above all. Kubernetes limits the size
// of a single label but not how many there are, nor owners and finalizers: whoever may create one
// object could fill its megabyte with them, and each label costs ten times its bytes once it is
// JSON in memory. What is not kept is left out while it is parsed, so it never takes any. Of
// `metadata` itself managedFields, generateName and whatever else no reader in this program asks
// for are never kept.
struct KeptMetadata {
  std::set<std::string, std::less<>> labels;
  std::set<std::string, std::less<>> annotations;
  size_t list_entries = 65;    // of ownerReferences and of finalizers, the first
  size_t string_bytes = 1024;  // longer strings become ""
  // Of the rest of an object: what comes beyond is left out. Anybody may put our label on an object
  // with a megabyte of empty rules, which take some thirty times that as JSON; ours are far below
  // these limits, and one of ours that somebody filled up is put right like any other change.
  size_t object_values = 5000;
  size_t object_bytes = 256 * 1024;  // of strings and keys
};

// Where in a text the objects stand.
enum class JsonShape {
  kObject,  // the text is one
  kEvent,   // a watch's line: in `object`
  kList,    // in `items`
};

// The text as JSON without what `keep` does not keep; discarded (is_discarded()) where it is none.
// Never throws, but for memory.
nlohmann::json ParseKept(std::string_view text, JsonShape shape, const KeptMetadata& keep);

}  // namespace quern::control::kube
