#include "operator/simulation/profile.h"

#include <nlohmann/json.hpp>
#include <set>

namespace quern::simulation {
namespace {

using nlohmann::json;

constexpr double kLongestTerm = 10;  // seconds
constexpr double kMost = 1e6;

// Reads the members of an object, each once, and remembers the first that is wrong.
class Members {
 public:
  Members(const json& object, std::string path) : object_(object), path_(std::move(path)) {
    if (!object_.is_object())
      error_ = path_ + (path_.empty() ? "it is no object" : " is no object");
  }

  const json* Find(const char* name) {
    known_.insert(name);
    if (!error_.empty()) return nullptr;
    const auto found = object_.find(name);
    if (found != object_.end()) return &*found;
    Wrong(name, "is missing");
    return nullptr;
  }
  void Text(const char* name, std::string& out) {
    const json* value = Find(name);
    if (value == nullptr) return;
    if (!value->is_string()) return Wrong(name, "must be a text");
    out = value->get<std::string>();
  }
  void Number(const char* name, double least, double most, double& out) {
    const json* value = Find(name);
    if (value == nullptr) return;
    if (!value->is_number() || !(value->get<double>() >= least && value->get<double>() <= most)) {
      return Wrong(name, fmt::format("must be a number, {:g} to {:g}", least, most));
    }
    out = value->get<double>();
  }
  template <typename T>
  void Whole(const char* name, int64_t least, int64_t most, T& out) {
    const json* value = Find(name);
    if (value == nullptr) return;
    if (!value->is_number_integer() || value->get<double>() < static_cast<double>(least) ||
        value->get<double>() > static_cast<double>(most)) {
      return Wrong(name, fmt::format("must be a whole number, {} to {}", least, most));
    }
    out = static_cast<T>(value->get<int64_t>());
  }
  void Wrong(const char* name, const std::string& what) {
    if (error_.empty()) error_ = fmt::format("{}{} {}", path_, name, what);
  }
  // What is wrong, members that nobody asked for included; "" if nothing is.
  std::string Finish() {
    if (!error_.empty()) return error_;
    for (const auto& [name, value] : object_.items()) {
      if (!known_.contains(name)) return fmt::format("{}{} is not known", path_, name);
    }
    return "";
  }

 private:
  const json& object_;
  std::string path_;
  std::set<std::string> known_;
  std::string error_;
};

}  // namespace

Result<ReplicaProfile> ParseProfile(std::string_view text) {
  const json object = json::parse(text, nullptr, false);
  if (object.is_discarded()) return MakeError(ErrorCode::kInvalidArgument, "it is no JSON");
  ReplicaProfile out;
  Members members(object, "");
  members.Text("name", out.name);
  members.Text("comment", out.comment);
  std::string kind;
  members.Text("kind", kind);
  if (kind != "measured" && kind != "modelled") {
    members.Wrong("kind", "must be \"measured\" or \"modelled\"");
  }
  out.measured = kind == "measured";
  members.Whole("max_sequences", 1, 4096, out.max_sequences);
  members.Whole("max_batch_tokens", out.max_sequences, 1'048'576, out.max_batch_tokens);
  members.Number("max_decode_slowdown", 1, kMost, out.max_decode_slowdown);
  members.Whole("kv_tokens", 1, 1'000'000'000'000, out.kv_tokens);
  members.Number("dollars_per_hour", 0, kMost, out.dollars_per_hour);
  const json* steps = members.Find("step_seconds");
  std::string wrong = members.Finish();
  if (!wrong.empty()) return MakeError(ErrorCode::kInvalidArgument, "{}", wrong);
  Members terms(*steps, "step_seconds.");
  terms.Number("step", 0, kLongestTerm, out.times.base);
  terms.Number("decode_sequence", 0, kLongestTerm, out.times.per_decode_sequence);
  terms.Number("prefill_token", 0, kLongestTerm, out.times.per_prefill_token);
  terms.Number("attended_token", 0, kLongestTerm, out.times.per_attended_token);
  terms.Number("loaded_token", 0, kLongestTerm, out.times.per_loaded_token);
  // A step that takes no time would let everything happen at once, for ever.
  if (!(out.times.base + out.times.per_decode_sequence >= 1e-7) ||
      !(out.times.base + out.times.per_prefill_token >= 1e-7)) {
    terms.Wrong("step", "must be such that no step takes less than 1e-7 s");
  }
  wrong = terms.Finish();
  if (!wrong.empty()) return MakeError(ErrorCode::kInvalidArgument, "{}", wrong);
  return out;
}

}  // namespace quern::simulation
