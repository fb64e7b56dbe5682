#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "operator/api/status.h"
#include "runtime/base/result.h"

namespace quern::control {

inline constexpr char kGroup[] = "serving.quern.dev";
inline constexpr char kVersion[] = "v1alpha1";
inline constexpr char kApiVersion[] = "serving.quern.dev/v1alpha1";
inline constexpr char kKind[] = "InferenceEndpoint";
inline constexpr char kPlural[] = "inferenceendpoints";
inline constexpr char kFinalizer[] = "serving.quern.dev/cleanup";
// Endpoints with more are not looked after. Who changes the list writes all of it, and has to have
// it all for that.
inline constexpr size_t kMaxFinalizers = 64;
inline constexpr char kFieldOwner[] = "quern-operator";
inline constexpr char kEndpointLabel[] = "serving.quern.dev/endpoint";
inline constexpr char kVariantLabel[] = "serving.quern.dev/variant";
inline constexpr char kGpuResource[] = "nvidia.com/gpu";
inline constexpr int64_t kMaxGpus = 64;  // of one replica
// Of a variant with GPUs that does not say how much it needs.
inline constexpr char kDefaultSharedMemory[] = "1Gi";
inline constexpr std::chrono::seconds kMaxDrainTimeout{3600};

// Where a model lies.
struct ModelUri {
  enum class Scheme { kFile, kPvc };
  Scheme scheme = Scheme::kFile;
  std::string claim;  // kPvc: the PersistentVolumeClaim, in the endpoint's namespace
  std::string path;   // kFile: absolute; kPvc: inside the volume, without a leading '/'
};

// Reads "file:///path" or "pvc://claim/path". No '..' and no empty or '.' segments.
Result<ModelUri> ParseModelUri(const std::string& uri);

struct ModelSpec {
  std::string uri;
  ModelUri location;        // `uri`, taken apart
  std::string served_name;  // what clients put into "model"; the endpoint's name unless set
};

struct RuntimeSpec {
  std::string image;  // "" = the operator's --serve-image, or --serve-image-cuda
  // Of the pods. Empty = the operator's --gpu-runtime-class for a variant with GPUs, and none for
  // others; "" = none, whatever the variant.
  std::optional<std::string> runtime_class;
  std::vector<std::string> image_pull_secrets;
  std::optional<int64_t> max_sequences;
  std::optional<int64_t> max_context_tokens;
  std::optional<int64_t> kv_memory_bytes;  // empty = the runtime measures and chooses
};

// One kind of machine that replicas run on.
struct HardwareVariant {
  std::string name;
  std::map<std::string, std::string> requests;  // resource -> quantity, as Kubernetes writes them
  std::map<std::string, std::string> limits;
  std::map<std::string, std::string> node_selector;
  nlohmann::json tolerations =
      nlohmann::json::array();  // core/v1 Tolerations, checked by the schema
  int64_t gpus = 0;             // limits[kGpuResource]; 0 where it is not named
  std::string shared_memory;  // size of /dev/shm in memory, below limits["memory"]; "" without GPUs
  int64_t tensor_parallel = 1;

  bool operator==(const HardwareVariant&) const = default;
};

struct ScalingSpec {
  enum class Mode { kBuiltin, kExternal };
  Mode mode = Mode::kBuiltin;
  int64_t min_replicas = 1;
  int64_t max_replicas = 1;
  std::optional<double>
      target_tokens_per_second;  // per replica; set whenever max > min in builtin mode
  double target_utilization = 0.8;
  std::chrono::seconds stable_window{60};
  std::chrono::seconds panic_window{10};
  std::chrono::seconds scale_down_delay{300};
};

// The InferenceEndpoint as the API server stored it, its defaults filled in by the schema.
struct InferenceEndpoint {
  std::string name;
  std::string ns;
  std::string uid;
  std::string resource_version;
  int64_t generation = 0;
  std::vector<std::string> finalizers;  // none where there are more than kMaxFinalizers
  std::string deletion_timestamp;       // "" = not being deleted

  ModelSpec model;
  RuntimeSpec runtime;
  std::vector<HardwareVariant> hardware;  // never empty
  ScalingSpec scaling;
  std::optional<int64_t> external_replicas;  // spec.replicas, in external mode
  std::chrono::seconds drain_timeout{30};

  EndpointStatus status;

  bool deleting() const { return !deletion_timestamp.empty(); }
  std::string key() const { return ns + "/" + name; }
};

// Reads an InferenceEndpoint. What the schema would refuse is kInvalidArgument with the field's
// path, what is wrong and what would be right; fields without a value get the schema's defaults, so
// that an object stored by an older CRD still works. Unknown fields are ignored. Never throws,
// whatever the JSON.
Result<InferenceEndpoint> ParseEndpoint(const nlohmann::json& object);

// The spec as JSON, every default written out. ParseEndpoint of it gives the same spec again.
nlohmann::json SpecToJson(const InferenceEndpoint& endpoint);

// Reads only name, namespace, uid, generation, finalizers, deletionTimestamp and status: works for
// an endpoint whose spec is wrong, which still has to be reported on and deleted.
Result<InferenceEndpoint> ParseEndpointMetadata(const nlohmann::json& object);

}  // namespace quern::control
