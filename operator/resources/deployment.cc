#include <fmt/format.h>

#include <optional>

#include "operator/resources/children.h"
#include "operator/resources/image_policy.h"
#include "operator/resources/labels.h"
#include "operator/resources/spec_hash.h"

namespace quern::control {

using nlohmann::json;

namespace {

constexpr char kPvcMountPath[] = "/models/pvc";
// A Service's endpoints and kube-proxy learn of a stopping pod a moment after the pod does: until
// then it goes on accepting, or a rollout would refuse requests.
constexpr int kPreStopSeconds = 3;
// What the runtime needs, after its drain timeout, to exit.
constexpr int kExitSeconds = 12;
constexpr int kUser = 65532;

struct ModelMount {
  std::string model_path;  // the runtime's argument
  json volumes = json::array();
  json mounts = json::array();
};

void AddVolume(ModelMount& out, const char* mount_path, json source) {
  source["name"] = "model";
  out.volumes.push_back(std::move(source));
  out.mounts.push_back({{"name", "model"}, {"mountPath", mount_path}, {"readOnly", true}});
}

// Whether `path` lies below `root`.
bool IsBelow(const std::string& path, const std::string& root) {
  if (root == "/") return true;
  return path.size() > root.size() && path.compare(0, root.size(), root) == 0 &&
         path[root.size()] == '/';
}

ModelMount MountModel(const ModelUri& uri, const std::optional<AllowedModelVolume>& allowed) {
  ModelMount out;
  if (uri.scheme == ModelUri::Scheme::kPvc) {
    out.model_path = fmt::format("{}/{}", kPvcMountPath, uri.path);
    AddVolume(out, kPvcMountPath,
              {{"persistentVolumeClaim", {{"claimName", uri.claim}, {"readOnly", true}}}});
    return out;
  }
  out.model_path = uri.path;
  if (!allowed || !IsBelow(uri.path, allowed->mount_path)) return out;  // in the image
  if (allowed->kind == AllowedModelVolume::Kind::kHostPath) {
    AddVolume(out, allowed->mount_path.c_str(),
              {{"hostPath", {{"path", allowed->source}, {"type", "Directory"}}}});
  } else {
    AddVolume(out, allowed->mount_path.c_str(),
              {{"persistentVolumeClaim", {{"claimName", allowed->source}, {"readOnly", true}}}});
  }
  return out;
}

json ServeArguments(const InferenceEndpoint& e, const HardwareVariant& variant,
                    const std::string& model_path, const ResourceOptions& options) {
  json args = {model_path,
               "--host",
               "0.0.0.0",
               "--port",
               std::to_string(kPublicPort),
               "--admin-port",
               std::to_string(kAdminPort),
               "--served-name",
               e.model.served_name,
               "--drain-timeout",
               fmt::format("{}s", e.drain_timeout.count()),
               "--log-format",
               options.log_format};
  const auto add = [&](const char* name, const std::optional<int64_t>& value) {
    if (!value) return;
    args.push_back(name);
    args.push_back(std::to_string(*value));
  };
  if (variant.gpus > 0) {  // and never the CPU where the GPU cannot be used
    args.push_back("--device");
    args.push_back("cuda");
  }
  if (variant.gpus > 1) add("--tensor-parallel-size", variant.gpus);
  add("--max-sequences", e.runtime.max_sequences);
  add("--kv-memory", e.runtime.kv_memory_bytes);
  add("--max-context-tokens", e.runtime.max_context_tokens);
  return args;
}

json Probe(const char* path, int period_seconds, int failures) {
  return {{"httpGet", {{"path", path}, {"port", "admin"}, {"scheme", "HTTP"}}},
          {"periodSeconds", period_seconds},
          {"timeoutSeconds", 2},
          {"successThreshold", 1},
          {"failureThreshold", failures}};
}

json ToObject(const std::map<std::string, std::string>& map) {
  json out = json::object();
  for (const auto& [key, value] : map) out[key] = value;
  return out;
}

json MakeContainer(const InferenceEndpoint& e, const HardwareVariant& variant,
                   const ModelMount& model, const ResourceOptions& options) {
  json resources = {{"limits", ToObject(variant.limits)}};
  if (!variant.requests.empty()) resources["requests"] = ToObject(variant.requests);
  json mounts = model.mounts;
  if (variant.gpus > 0) mounts.push_back({{"name", "shm"}, {"mountPath", "/dev/shm"}});
  const auto port = [](const char* name, int number) {
    return json{{"name", name}, {"containerPort", number}, {"protocol", "TCP"}};
  };
  return {{"name", kContainerName},
          {"image", ImageFor(e, variant, options)},
          {"imagePullPolicy", "IfNotPresent"},
          {"args", ServeArguments(e, variant, model.model_path, options)},
          {"ports", {port("http", kPublicPort), port("admin", kAdminPort)}},
          {"resources", std::move(resources)},
          {"volumeMounts", std::move(mounts)},
          // Loading may take long (a cold disk); from then on liveness decides.
          {"startupProbe", Probe("/health/ready", 2, 900)},
          {"readinessProbe", Probe("/health/ready", 2, 2)},
          {"livenessProbe", Probe("/health/live", 10, 6)},
          {"lifecycle", {{"preStop", {{"sleep", {{"seconds", kPreStopSeconds}}}}}}},
          // The last lines of the log become the container's message: the runtime's own words in
          // status.
          {"terminationMessagePolicy", "FallbackToLogsOnError"},
          {"securityContext",
           {{"allowPrivilegeEscalation", false},
            {"readOnlyRootFilesystem", true},
            {"runAsNonRoot", true},
            {"capabilities", {{"drop", json::array({"ALL"})}}}}}};
}

// "" = none: the node's default handler.
std::string RuntimeClassOf(const InferenceEndpoint& e, const HardwareVariant& variant,
                           const ResourceOptions& options) {
  return e.runtime.runtime_class.value_or(variant.gpus > 0 ? options.gpu_runtime_class : "");
}

json MakePodSpec(const InferenceEndpoint& e, const HardwareVariant& variant,
                 const ResourceOptions& options) {
  const ModelMount model = MountModel(e.model.location, options.model_volume);
  json volumes = model.volumes;
  if (variant.gpus > 0) {
    // NCCL's ranks share memory; a container's own /dev/shm has 64 MiB. What is written there
    // counts against the container's memory limit.
    volumes.push_back({{"name", "shm"},
                       {"emptyDir", {{"medium", "Memory"}, {"sizeLimit", variant.shared_memory}}}});
  }
  json spec = {{"serviceAccountName", e.name},
               {"automountServiceAccountToken", false},
               {"enableServiceLinks", false},
               {"terminationGracePeriodSeconds", GracePeriod(e.drain_timeout).count()},
               {"securityContext",
                {{"runAsNonRoot", true},
                 {"runAsUser", kUser},
                 {"runAsGroup", kUser},
                 {"fsGroup", kUser},
                 {"seccompProfile", {{"type", "RuntimeDefault"}}}}},
               {"containers", json::array({MakeContainer(e, variant, model, options)})},
               {"volumes", std::move(volumes)}};
  if (const std::string runtime_class = RuntimeClassOf(e, variant, options);
      !runtime_class.empty()) {
    spec["runtimeClassName"] = runtime_class;
  }
  if (!variant.node_selector.empty()) spec["nodeSelector"] = ToObject(variant.node_selector);
  if (!variant.tolerations.empty()) spec["tolerations"] = variant.tolerations;
  for (const std::string& secret : e.runtime.image_pull_secrets) {
    spec["imagePullSecrets"].push_back({{"name", secret}});
  }
  return spec;
}

}  // namespace

std::chrono::seconds GracePeriod(std::chrono::seconds drain_timeout) {
  return drain_timeout + std::chrono::seconds(kPreStopSeconds + kExitSeconds);
}

json MakeDeployment(const InferenceEndpoint& e, const HardwareVariant& variant, int64_t replicas,
                    const ResourceOptions& options) {
  json selector = PodSelector(e);
  selector[kVariantLabel] = variant.name;
  json pod_labels = OwnedLabels(e);
  pod_labels[kVariantLabel] = variant.name;
  json metadata = OwnedMetadata(e, DeploymentName(e, variant));
  metadata["labels"][kVariantLabel] = variant.name;
  json deployment = {
      {"apiVersion", "apps/v1"},
      {"kind", "Deployment"},
      {"metadata", std::move(metadata)},
      {"spec",
       {{"replicas", replicas},
        {"revisionHistoryLimit", 3},
        {"progressDeadlineSeconds", 600},
        {"selector", {{"matchLabels", std::move(selector)}}},
        // A new replica is ready before an old one goes.
        {"strategy",
         {{"type", "RollingUpdate"}, {"rollingUpdate", {{"maxSurge", 1}, {"maxUnavailable", 0}}}}},
        {"template",
         {{"metadata",
           {{"labels", std::move(pod_labels)},
            {"annotations",
             {{"prometheus.io/scrape", "true"},
              {"prometheus.io/port", std::to_string(kAdminPort)},
              {"prometheus.io/path", "/metrics"}}}}},
          {"spec", MakePodSpec(e, variant, options)}}}}}};
  AddSpecHash(deployment);
  return deployment;
}

}  // namespace quern::control
