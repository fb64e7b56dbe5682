#include "operator/kube/kept_metadata.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace quern::control::kube {
namespace {

using nlohmann::json;

constexpr std::string_view kFields[] = {"annotations",
                                        "creationTimestamp",
                                        "deletionGracePeriodSeconds",
                                        "deletionTimestamp",
                                        "finalizers",
                                        "generation",
                                        "labels",
                                        "name",
                                        "namespace",
                                        "ownerReferences",
                                        "resourceVersion",
                                        "uid"};

// Follows the parser, which tells of every key and value with the number of containers around it,
// and says what to keep. An object's members are at depth 1, an event's object's at 2, a list's
// items' at 3: so no key within a spec is taken for one of these.
//
// A value of an object is left out by refusing its key; one that is itself refused would stay
// behind as "discarded". An array's element is refused itself.
class Filter {
 public:
  Filter(JsonShape shape, const KeptMetadata& keep)
      : keep_(keep),
        member_(shape == JsonShape::kObject  ? 1
                : shape == JsonShape::kEvent ? 2
                                             : 3) {}

  bool operator()(int depth, json::parse_event_t event, json& value) {
    using Event = json::parse_event_t;
    if (event == Event::key) return Key(depth, value.get_ref<const std::string&>());
    // A container is told of with its start, a scalar with its value.
    const bool begins =
        event == Event::value || event == Event::object_start || event == Event::array_start;
    if (event == Event::object_start && depth == member_ - 1) values_ = bytes_ = 0;  // the next one
    if (!begins || depth < member_) return true;
    return in_metadata_ && depth > member_ ? InMetadata(depth, event, value)
                                           : InOthers(depth, event, value);
  }

 private:
  bool InMetadata(int depth, json::parse_event_t event, json& value) {
    using Event = json::parse_event_t;
    const bool in_list = field_ == "finalizers" || field_ == "ownerReferences";
    if (event == Event::array_start && depth == member_ + 1) entries_ = 0;
    if (in_list && depth == member_ + 2 && ++entries_ > keep_.list_entries) return false;
    if (event == Event::value && value.is_string() &&
        value.get_ref<const std::string&>().size() > keep_.string_bytes) {
      value = "";
    }
    return true;
  }

  // Of spec, status and the like.
  bool InOthers(int depth, json::parse_event_t event, json& value) {
    const bool of_a_key = std::exchange(after_key_, false);
    if (!of_a_key && depth > member_ && !Take(0)) return false;
    if (event == json::parse_event_t::value && value.is_string()) {
      bytes_ += value.get_ref<const std::string&>().size();
      if (bytes_ > keep_.object_bytes) value = "";
    }
    return true;
  }

  // Room for one more value of this object, with a key of so many bytes?
  bool Take(size_t key_bytes) {
    bytes_ += key_bytes;
    return ++values_ <= keep_.object_values && bytes_ <= keep_.object_bytes;
  }

  bool Key(int depth, const std::string& key) {
    if (depth == member_) {
      in_metadata_ = key == "metadata";
    } else if (depth > member_ && !in_metadata_) {
      return after_key_ = Take(key.size());
    } else if (in_metadata_ && depth == member_ + 1) {
      const auto* field = std::find(std::begin(kFields), std::end(kFields), key);
      field_ = field == std::end(kFields) ? "" : *field;
      return !field_.empty();
    } else if (in_metadata_ && depth == member_ + 2) {
      if (field_ == "labels") return keep_.labels.contains(key);
      if (field_ == "annotations") return keep_.annotations.contains(key);
    }
    return true;
  }

  const KeptMetadata& keep_;
  const int member_;
  bool in_metadata_ = false;
  std::string_view field_;  // of the metadata that is being read
  size_t entries_ = 0;      // of the list that is being read
  size_t values_ = 0;       // of this object, outside of its metadata
  size_t bytes_ = 0;        // of their keys and strings
  bool after_key_ = false;  // the next value is that of a key that was kept
};

}  // namespace

json ParseKept(std::string_view text, JsonShape shape, const KeptMetadata& keep) {
  Filter filter(shape, keep);
  return json::parse(
      text,
      [&filter](int depth, json::parse_event_t event, json& value) {
        return filter(depth, event, value);
      },
      /*allow_exceptions=*/false);
}

}  // namespace quern::control::kube
