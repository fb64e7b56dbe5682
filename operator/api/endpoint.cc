#include "operator/api/endpoint.h"

#include <algorithm>
#include <cmath>

#include "operator/api/json.h"
#include "operator/api/quantity.h"

namespace quern::control {
namespace {

Error Bad(std::string_view field, std::string_view what) {
  return MakeError(ErrorCode::kInvalidArgument, "{}: {}", field, what);
}

// What a value of another type is called in a message.
Error WrongType(std::string_view field, const json& value, std::string_view wanted) {
  return MakeError(ErrorCode::kInvalidArgument, "{}: is a JSON {}, must be {}", field,
                   value.type_name(), wanted);
}

// The member, or nullptr when it is missing or null.
const json* Member(const json& object, const char* key) {
  if (!object.is_object()) return nullptr;
  const auto it = object.find(key);
  return it == object.end() || it->is_null() ? nullptr : &*it;
}

Status ReadString(const json& object, const char* key, std::string_view field, std::string& out) {
  const json* value = Member(object, key);
  if (value == nullptr) return {};
  if (!value->is_string()) return WrongType(field, *value, "a string");
  out = value->get<std::string>();
  return {};
}

Status ReadInt(const json& object, const char* key, std::string_view field, int64_t low,
               int64_t high, std::optional<int64_t>& out) {
  const json* value = Member(object, key);
  if (value == nullptr) return {};
  const auto number = IntAt(object, {key});
  if (!number) return WrongType(field, *value, "a whole number");
  if (*number < low || *number > high) {
    return Bad(field, fmt::format("is {}, must be {} to {}", *number, low, high));
  }
  out = number;
  return {};
}

Status ReadDuration(const json& object, const char* key, std::string_view field, int64_t low,
                    int64_t high, std::chrono::seconds& out) {
  std::string text;
  QUERN_TRY(ReadString(object, key, field, text));
  if (text.empty()) return {};
  const auto duration = ParseDuration(text);
  if (!duration) return Bad(field, fmt::format("'{}' is no duration; write 90s, 5m or 1h", text));
  if (duration->count() < low || duration->count() > high) {
    return Bad(field, fmt::format("is {}, must be {} s to {} s", text, low, high));
  }
  out = *duration;
  return {};
}

// {"name": "value"} of strings; numbers (an int-or-string quantity) become strings.
Status ReadStringMap(const json& object, const char* key, std::string_view field,
                     std::map<std::string, std::string>& out) {
  const json* value = Member(object, key);
  if (value == nullptr) return {};
  if (!value->is_object()) return WrongType(field, *value, "an object of strings");
  for (const auto& [name, entry] : value->items()) {
    if (entry.is_string()) {
      out[name] = entry.get<std::string>();
    } else if (entry.is_number_integer()) {
      out[name] = entry.dump();
    } else {
      return WrongType(fmt::format("{}[{}]", field, name), entry, "a string");
    }
  }
  return {};
}

Status ReadModel(const json& spec, const std::string& endpoint_name, ModelSpec& out) {
  const json* model = Member(spec, "model");
  if (model == nullptr || !model->is_object()) {
    return Bad("spec.model", "is missing; it must be an object with uri");
  }
  QUERN_TRY(ReadString(*model, "uri", "spec.model.uri", out.uri));
  QUERN_ASSIGN(out.location, ParseModelUri(out.uri));
  QUERN_TRY(ReadString(*model, "servedName", "spec.model.servedName", out.served_name));
  if (out.served_name.empty()) out.served_name = endpoint_name;
  return {};
}

Status ReadRuntime(const json& spec, RuntimeSpec& out) {
  const json* runtime = Member(spec, "runtime");
  if (runtime == nullptr) return {};
  if (!runtime->is_object()) return WrongType("spec.runtime", *runtime, "an object");
  QUERN_TRY(ReadString(*runtime, "image", "spec.runtime.image", out.image));
  if (Member(*runtime, "runtimeClassName") != nullptr) {
    QUERN_TRY(ReadString(*runtime, "runtimeClassName", "spec.runtime.runtimeClassName",
                         out.runtime_class.emplace()));
  }
  QUERN_TRY(
      ReadInt(*runtime, "maxSequences", "spec.runtime.maxSequences", 1, 4096, out.max_sequences));
  QUERN_TRY(ReadInt(*runtime, "maxContextTokens", "spec.runtime.maxContextTokens", 16, 1 << 24,
                    out.max_context_tokens));
  for (const json& secret : ArrayAt(*runtime, {"imagePullSecrets"})) {
    const std::string name = StringAt(secret, {"name"});
    if (name.empty()) return Bad("spec.runtime.imagePullSecrets[]", "needs a name");
    out.image_pull_secrets.push_back(name);
  }
  std::string memory = "auto";
  if (const json* kv = Member(*runtime, "kvCache")) {
    QUERN_TRY(ReadString(*kv, "memory", "spec.runtime.kvCache.memory", memory));
  }
  if (memory != "auto") {
    out.kv_memory_bytes = ParseBytes(memory);
    if (!out.kv_memory_bytes || *out.kv_memory_bytes == 0) {
      return Bad("spec.runtime.kvCache.memory",
                 fmt::format("'{}' is neither auto nor a quantity such as 512Mi", memory));
    }
  }
  return {};
}

// What a variant says of GPUs, once its resources are read.
Status ReadGpus(const json& object, const std::string& field, HardwareVariant& v) {
  const auto limit = v.limits.find(kGpuResource);
  if (limit != v.limits.end()) {
    const double asked = ParseQuantity(limit->second).value_or(-1);
    if (asked < 1 || asked > kMaxGpus || asked != std::floor(asked)) {
      return Bad(fmt::format("{}.resources.limits[{}]", field, kGpuResource),
                 fmt::format("'{}' must be a whole number from 1 to {}; leave it out for a variant "
                             "without GPUs",
                             limit->second, kMaxGpus));
    }
    v.gpus = static_cast<int64_t>(asked);
  }
  const auto request = v.requests.find(kGpuResource);
  if (request != v.requests.end() && ParseQuantity(request->second).value_or(-1) != v.gpus) {
    return Bad(fmt::format("{}.resources.requests[{}]", field, kGpuResource),
               fmt::format("is '{}', must equal resources.limits; leave it out, limits are enough",
                           request->second));
  }
  std::optional<int64_t> parallel;
  QUERN_TRY(ReadInt(object, "tensorParallel", field + ".tensorParallel", 1, kMaxGpus, parallel));
  v.tensor_parallel = parallel.value_or(1);
  if (v.tensor_parallel != std::max<int64_t>(v.gpus, 1)) {
    return Bad(field + ".tensorParallel",
               fmt::format("is {}, must equal the GPUs in resources.limits[{}]", v.tensor_parallel,
                           kGpuResource));
  }
  QUERN_TRY(ReadString(object, "sharedMemory", field + ".sharedMemory", v.shared_memory));
  if (v.gpus == 0) {
    if (v.shared_memory.empty()) return {};
    return Bad(field + ".sharedMemory",
               fmt::format("is only for variants with GPUs; leave it out, or set "
                           "resources.limits[{}]",
                           kGpuResource));
  }
  if (v.shared_memory.empty()) v.shared_memory = kDefaultSharedMemory;
  const double shared = ParseQuantity(v.shared_memory).value_or(0);
  const std::string& memory = v.limits.at("memory");
  if (shared <= 0 || shared >= ParseQuantity(memory).value_or(0)) {
    return Bad(field + ".sharedMemory",
               fmt::format("is '{}', must be a quantity below resources.limits.memory, which is {} "
                           "and counts it",
                           v.shared_memory, memory));
  }
  return {};
}

Result<HardwareVariant> ReadVariant(const json& object, const std::string& field) {
  HardwareVariant v;
  QUERN_TRY(ReadString(object, "name", field + ".name", v.name));
  if (v.name.empty()) return Bad(field + ".name", "is missing");
  const json resources =
      object.is_object() ? object.value("resources", json::object()) : json::object();
  QUERN_TRY(ReadStringMap(resources, "requests", field + ".resources.requests", v.requests));
  QUERN_TRY(ReadStringMap(resources, "limits", field + ".resources.limits", v.limits));
  for (const char* needed : {"cpu", "memory"}) {
    const auto it = v.limits.find(needed);
    if (it == v.limits.end()) {
      return Bad(field + ".resources.limits", fmt::format("must name {}", needed));
    }
    if (!ParseQuantity(it->second)) {
      return Bad(fmt::format("{}.resources.limits[{}]", field, needed),
                 fmt::format("'{}' is no quantity; write 500m or 2Gi", it->second));
    }
  }
  QUERN_TRY(ReadStringMap(object, "nodeSelector", field + ".nodeSelector", v.node_selector));
  v.tolerations = ArrayAt(object, {"tolerations"});
  QUERN_TRY(ReadGpus(object, field, v));
  return v;
}

// The schema's default: one CPU variant.
HardwareVariant DefaultVariant() {
  HardwareVariant v;
  v.name = "cpu";
  v.requests = {{"cpu", "500m"}, {"memory", "1Gi"}};
  v.limits = {{"cpu", "1"}, {"memory", "2Gi"}};
  return v;
}

Status ReadHardware(const json& spec, std::vector<HardwareVariant>& out) {
  const json& hardware = ArrayAt(spec, {"hardware"});
  if (hardware.size() > 1) {
    return Bad("spec.hardware", "lists several variants; this version runs one, so keep one");
  }
  for (size_t i = 0; i < hardware.size(); ++i) {
    QUERN_ASSIGN(HardwareVariant variant,
                 ReadVariant(hardware[i], fmt::format("spec.hardware[{}]", i)));
    out.push_back(std::move(variant));
  }
  if (out.empty()) out.push_back(DefaultVariant());
  return {};
}

// A number, or a decimal string: 40 or "12.5".
Status ReadDecimal(const json& object, const char* key, const std::string& field, double low,
                   double high, std::optional<double>& out) {
  const json* value = Member(object, key);
  if (value == nullptr) return {};
  if (!value->is_string() && !value->is_number_integer())
    return WrongType(field, *value, "a decimal string");
  const std::string text = value->is_string() ? value->get<std::string>() : value->dump();
  const auto number = ParseDecimal(text);
  if (!number || *number < low || *number > high) {
    return Bad(field, fmt::format("'{}' must be a decimal from {} to {}", text, low, high));
  }
  out = number;
  return {};
}

Status ReadScaling(const json& spec, InferenceEndpoint& endpoint) {
  ScalingSpec& out = endpoint.scaling;
  static const json none = json::object();
  const json* member = Member(spec, "scaling");
  if (member != nullptr && !member->is_object())
    return WrongType("spec.scaling", *member, "an object");
  const json& scaling = member != nullptr ? *member : none;
  std::string mode = "builtin";
  QUERN_TRY(ReadString(scaling, "mode", "spec.scaling.mode", mode));
  if (mode != "builtin" && mode != "external") {
    return Bad("spec.scaling.mode", fmt::format("is '{}', must be builtin or external", mode));
  }
  out.mode = mode == "external" ? ScalingSpec::Mode::kExternal : ScalingSpec::Mode::kBuiltin;
  std::optional<int64_t> low, high;
  QUERN_TRY(ReadInt(scaling, "minReplicas", "spec.scaling.minReplicas", 1, 1000, low));
  QUERN_TRY(ReadInt(scaling, "maxReplicas", "spec.scaling.maxReplicas", 1, 1000, high));
  out.min_replicas = low.value_or(1);
  out.max_replicas = high.value_or(1);
  if (out.min_replicas > out.max_replicas) {
    return Bad("spec.scaling.minReplicas",
               fmt::format("is {}, must not be above maxReplicas, which is {}", out.min_replicas,
                           out.max_replicas));
  }
  QUERN_TRY(ReadDecimal(scaling, "targetTokensPerSecond", "spec.scaling.targetTokensPerSecond",
                        0.001, 1e9, out.target_tokens_per_second));
  std::optional<double> utilization;
  QUERN_TRY(ReadDecimal(scaling, "targetUtilization", "spec.scaling.targetUtilization", 0.1, 1,
                        utilization));
  out.target_utilization = utilization.value_or(0.8);
  QUERN_TRY(ReadDuration(scaling, "stableWindow", "spec.scaling.stableWindow", 10, 3600,
                         out.stable_window));
  QUERN_TRY(
      ReadDuration(scaling, "panicWindow", "spec.scaling.panicWindow", 5, 600, out.panic_window));
  QUERN_TRY(ReadDuration(scaling, "scaleDownDelay", "spec.scaling.scaleDownDelay", 0, 3600,
                         out.scale_down_delay));
  if (out.panic_window > out.stable_window) {
    return Bad("spec.scaling.panicWindow", "must not be longer than stableWindow");
  }
  if (out.mode == ScalingSpec::Mode::kBuiltin && out.max_replicas > out.min_replicas &&
      !out.target_tokens_per_second) {
    return Bad("spec.scaling.targetTokensPerSecond",
               "is missing; maxReplicas above minReplicas needs it: the tokens per second that one "
               "replica serves well");
  }
  QUERN_TRY(ReadInt(spec, "replicas", "spec.replicas", 0, 1000, endpoint.external_replicas));
  return {};
}

json MapToJson(const std::map<std::string, std::string>& map) {
  json out = json::object();
  for (const auto& [key, value] : map) out[key] = value;
  return out;
}

// The shortest decimal that reads back as the same number.
std::string Decimal(double value) { return fmt::format("{}", value); }

}  // namespace

Result<ModelUri> ParseModelUri(const std::string& uri) {
  const auto bad = [&](std::string_view what) {
    return Bad(
        "spec.model.uri",
        fmt::format("'{}' {}; write file:///models/NAME.gguf or pvc://CLAIM/NAME.gguf", uri, what));
  };
  if (uri.empty())
    return Bad("spec.model.uri",
               "is missing; write file:///models/NAME.gguf or pvc://CLAIM/NAME.gguf");
  ModelUri out;
  std::string path;
  if (uri.rfind("file:///", 0) == 0) {
    out.path = uri.substr(7);
    path = out.path.substr(1);
  } else if (uri.rfind("pvc://", 0) == 0) {
    const size_t slash = uri.find('/', 6);
    if (slash == std::string::npos || slash == 6)
      return bad("does not name a claim and a path in it");
    out.scheme = ModelUri::Scheme::kPvc;
    out.claim = uri.substr(6, slash - 6);
    path = out.path = uri.substr(slash + 1);
  } else {
    return bad("has a scheme that this version cannot load");
  }
  for (size_t at = 0; at <= path.size();) {
    const size_t end = std::min(path.find('/', at), path.size());
    const std::string_view segment(path.data() + at, end - at);
    if (segment == "..") return bad("leaves its root with '..'");
    if (segment.empty() || segment == ".") return bad("has an empty or '.' segment in its path");
    at = end + 1;
  }
  for (char c : uri) {
    if (static_cast<unsigned char>(c) <= 0x20 || c == 0x7F)
      return bad("has a space or control character in it");
  }
  return out;
}

Result<InferenceEndpoint> ParseEndpointMetadata(const nlohmann::json& object) {
  InferenceEndpoint out;
  out.name = StringAt(object, {"metadata", "name"});
  out.ns = StringAt(object, {"metadata", "namespace"});
  if (out.name.empty() || out.ns.empty()) {
    return Bad("metadata", "name and namespace must both be there");
  }
  out.uid = StringAt(object, {"metadata", "uid"});
  out.resource_version = StringAt(object, {"metadata", "resourceVersion"});
  out.generation = IntAt(object, {"metadata", "generation"}).value_or(0);
  out.deletion_timestamp = StringAt(object, {"metadata", "deletionTimestamp"});
  const json& finalizers = ArrayAt(object, {"metadata", "finalizers"});
  for (const json& finalizer : finalizers) {
    if (finalizers.size() > kMaxFinalizers) break;
    if (finalizer.is_string()) out.finalizers.push_back(finalizer.get<std::string>());
  }
  if (const json* status = Find(object, {"status"})) out.status = StatusFromJson(*status);
  return out;
}

Result<InferenceEndpoint> ParseEndpoint(const nlohmann::json& object) {
  QUERN_ASSIGN(InferenceEndpoint out, ParseEndpointMetadata(object));
  if (ArrayAt(object, {"metadata", "finalizers"}).size() > kMaxFinalizers) {
    return Bad("metadata.finalizers",
               fmt::format("has more than {} entries; remove some", kMaxFinalizers));
  }
  const json* spec = Find(object, {"spec"});
  if (spec == nullptr || !spec->is_object()) return Bad("spec", "is missing");
  QUERN_TRY(ReadModel(*spec, out.name, out.model));
  QUERN_TRY(ReadRuntime(*spec, out.runtime));
  QUERN_TRY(ReadHardware(*spec, out.hardware));
  QUERN_TRY(ReadScaling(*spec, out));
  if (const json* rollout = Member(*spec, "rollout")) {
    QUERN_TRY(ReadDuration(*rollout, "drainTimeout", "spec.rollout.drainTimeout", 1,
                           kMaxDrainTimeout.count(), out.drain_timeout));
  }
  return out;
}

nlohmann::json SpecToJson(const InferenceEndpoint& e) {
  json runtime = {
      {"kvCache",
       {{"memory", e.runtime.kv_memory_bytes ? std::to_string(*e.runtime.kv_memory_bytes)
                                             : std::string("auto")}}}};
  if (!e.runtime.image.empty()) runtime["image"] = e.runtime.image;
  if (e.runtime.runtime_class) runtime["runtimeClassName"] = *e.runtime.runtime_class;
  if (e.runtime.max_sequences) runtime["maxSequences"] = *e.runtime.max_sequences;
  if (e.runtime.max_context_tokens) runtime["maxContextTokens"] = *e.runtime.max_context_tokens;
  for (const std::string& name : e.runtime.image_pull_secrets) {
    runtime["imagePullSecrets"].push_back({{"name", name}});
  }
  json hardware = json::array();
  for (const HardwareVariant& v : e.hardware) {
    hardware.push_back(
        {{"name", v.name},
         {"resources", {{"requests", MapToJson(v.requests)}, {"limits", MapToJson(v.limits)}}},
         {"nodeSelector", MapToJson(v.node_selector)},
         {"tolerations", v.tolerations},
         {"tensorParallel", v.tensor_parallel}});
    if (!v.shared_memory.empty()) hardware.back()["sharedMemory"] = v.shared_memory;
  }
  json scaling = {{"mode", e.scaling.mode == ScalingSpec::Mode::kExternal ? "external" : "builtin"},
                  {"minReplicas", e.scaling.min_replicas},
                  {"maxReplicas", e.scaling.max_replicas},
                  {"targetUtilization", Decimal(e.scaling.target_utilization)},
                  {"stableWindow", fmt::format("{}s", e.scaling.stable_window.count())},
                  {"panicWindow", fmt::format("{}s", e.scaling.panic_window.count())},
                  {"scaleDownDelay", fmt::format("{}s", e.scaling.scale_down_delay.count())}};
  if (e.scaling.target_tokens_per_second) {
    scaling["targetTokensPerSecond"] = Decimal(*e.scaling.target_tokens_per_second);
  }
  json spec = {{"model", {{"uri", e.model.uri}, {"servedName", e.model.served_name}}},
               {"runtime", std::move(runtime)},
               {"hardware", std::move(hardware)},
               {"scaling", std::move(scaling)},
               {"rollout", {{"drainTimeout", fmt::format("{}s", e.drain_timeout.count())}}}};
  if (e.external_replicas) spec["replicas"] = *e.external_replicas;
  return spec;
}

}  // namespace quern::control
