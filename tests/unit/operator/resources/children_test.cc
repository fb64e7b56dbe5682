#include "operator/resources/children.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

#include "operator/api/json.h"
#include "operator/resources/labels.h"
#include "operator/resources/spec_hash.h"

namespace quern::control {
namespace {

InferenceEndpoint Endpoint(const char* spec) {
  json object = {{"metadata", {{"name", "smol"}, {"namespace", "demo"}, {"uid", "0b5e"}}},
                 {"spec", json::parse(spec)}};
  auto endpoint = ParseEndpoint(object);
  EXPECT_TRUE(endpoint) << endpoint.error().message;
  return *endpoint;
}

InferenceEndpoint Simple() { return Endpoint(R"({"model": {"uri": "file:///models/smol.gguf"}})"); }

ResourceOptions Options() {
  ResourceOptions options;
  options.serve_image = "localhost/quern/serve:test";
  options.model_volume =
      AllowedModelVolume{AllowedModelVolume::Kind::kHostPath, "/var/lib/quern/models", "/models"};
  return options;
}

// Compares with tests/unit/operator/resources/golden/NAME.json; QUERN_UPDATE_GOLDEN=1 writes it
// anew.
void ExpectGolden(const std::string& name, const json& actual) {
  const std::string path =
      std::string(QUERN_TESTS_DIR) + "/unit/operator/resources/golden/" + name + ".json";
  if (std::getenv("QUERN_UPDATE_GOLDEN") != nullptr) std::ofstream(path) << actual.dump(2) << "\n";
  std::ifstream file(path);
  ASSERT_TRUE(file) << path
                    << " is missing; run once with QUERN_UPDATE_GOLDEN=1 and read what it wrote";
  std::stringstream text;
  text << file.rdbuf();
  EXPECT_EQ(actual.dump(2) + "\n", text.str());
}

const json& Container(const json& deployment) {
  return deployment["spec"]["template"]["spec"]["containers"][0];
}

TEST(Children, OfAMinimalEndpointAreAsRecorded) {
  ExpectGolden("minimal", MakeChildren(Simple(), {1}, Options()));
}

TEST(Children, OfAFullSpecAreAsRecorded) {
  const auto e = Endpoint(R"({
    "model": {"uri": "pvc://weights/dir/a.gguf", "servedName": "a"},
    "runtime": {"image": "i:1", "imagePullSecrets": [{"name": "s"}], "maxSequences": 8, "maxContextTokens": 2048,
                "kvCache": {"memory": "64Mi"}},
    "hardware": [{"name": "h100", "resources": {"requests": {"cpu": "4"}, "limits": {"cpu": "8", "memory": "64Gi",
                  "nvidia.com/gpu": "2"}}, "nodeSelector": {"gpu": "h100"},
                  "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}], "tensorParallel": 2}],
    "rollout": {"drainTimeout": "2m"}})");
  ExpectGolden("full", MakeChildren(e, {3}, Options()));
}

TEST(Children, AreInTheOrderOfTheirKinds) {
  const auto children = MakeChildren(Simple(), {1}, Options());
  ASSERT_EQ(children.size(), std::size(kChildKinds));
  for (size_t i = 0; i < children.size(); ++i) {
    EXPECT_EQ(children[i]["kind"], kChildKinds[i].kind);
    EXPECT_EQ(children[i]["apiVersion"], kChildKinds[i].api_version);
    EXPECT_EQ(children[i]["metadata"]["ownerReferences"][0]["uid"], "0b5e");
    EXPECT_EQ(SpecHashOf(children[i]).size(), 16u);
  }
}

TEST(Deployment, RunsUnprivileged) {
  const json deployment = MakeDeployment(Simple(), Simple().hardware[0], 1, Options());
  const json& pod = deployment["spec"]["template"]["spec"];
  EXPECT_EQ(pod["securityContext"]["runAsUser"], 65532);
  EXPECT_EQ(pod["automountServiceAccountToken"], false);
  const json& security = Container(deployment)["securityContext"];
  EXPECT_EQ(security["readOnlyRootFilesystem"], true);
  EXPECT_EQ(security["allowPrivilegeEscalation"], false);
  EXPECT_EQ(security["capabilities"]["drop"], json::array({"ALL"}));
}

TEST(Deployment, GivesMoreGraceThanTheDrainTakes) {
  for (const char* drain : {"1s", "30s", "1h"}) {
    const auto e =
        Endpoint((std::string(R"({"model": {"uri": "file:///a"}, "rollout": {"drainTimeout": ")") +
                  drain + "\"}}")
                     .c_str());
    const json deployment = MakeDeployment(e, e.hardware[0], 1, Options());
    const int64_t grace = deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"];
    const int64_t sleep = Container(deployment)["lifecycle"]["preStop"]["sleep"]["seconds"];
    EXPECT_GT(grace, e.drain_timeout.count() + sleep);
  }
}

TEST(Deployment, MountsTheAllowedVolumeOnlyForPathsBelowIt) {
  const auto volumes = [](const char* uri) {
    const auto e = Endpoint((std::string(R"({"model": {"uri": ")") + uri + "\"}}").c_str());
    return MakeDeployment(e, e.hardware[0], 1, Options())["spec"]["template"]["spec"]["volumes"]
        .dump();
  };
  EXPECT_EQ(volumes("file:///models/a.gguf"),
            R"([{"hostPath":{"path":"/var/lib/quern/models","type":"Directory"},"name":"model"}])");
  EXPECT_EQ(volumes("file:///modelsother/a.gguf"), "[]");
  EXPECT_EQ(volumes("file:///opt/a.gguf"), "[]");
}

TEST(Deployment, NeverMountsAModelWritable) {
  for (const char* uri : {"file:///models/a.gguf", "pvc://claim/a.gguf"}) {
    const auto e = Endpoint((std::string(R"({"model": {"uri": ")") + uri + "\"}}").c_str());
    const json deployment = MakeDeployment(e, e.hardware[0], 1, Options());
    for (const json& mount : Container(deployment)["volumeMounts"])
      EXPECT_EQ(mount["readOnly"], true);
    EXPECT_EQ(Container(deployment)["volumeMounts"].size(), 1u);
  }
}

TEST(Deployment, HashFollowsReplicasAndImage) {
  const auto e = Simple();
  const auto hash = [&](int64_t replicas, const char* image) {
    ResourceOptions options = Options();
    options.serve_image = image;
    return SpecHashOf(MakeDeployment(e, e.hardware[0], replicas, options));
  };
  EXPECT_EQ(hash(1, "a"), hash(1, "a"));
  EXPECT_NE(hash(1, "a"), hash(2, "a"));
  EXPECT_NE(hash(1, "a"), hash(1, "b"));
}

InferenceEndpoint WithGpus(int gpus, const json& runtime = json::object(),
                           const char* shared_memory = nullptr) {
  json spec = {
      {"model", {{"uri", "file:///a"}}},
      {"runtime", runtime},
      {"hardware",
       {{{"name", "g"},
         {"resources", {{"limits", {{"cpu", "4"}, {"memory", "8Gi"}, {"nvidia.com/gpu", gpus}}}}},
         {"tensorParallel", gpus}}}}};
  if (shared_memory != nullptr) spec["hardware"][0]["sharedMemory"] = shared_memory;
  return Endpoint(spec.dump().c_str());
}

json PodOf(const InferenceEndpoint& e, const ResourceOptions& options) {
  return MakeDeployment(e, e.hardware[0], 1, options)["spec"]["template"]["spec"];
}

TEST(GpuDeployment, HasGpusRuntimeClassSharedMemoryAndTheImageWithCuda) {
  ResourceOptions options = Options();
  options.serve_image_cuda = "localhost/quern/serve-cuda:test";
  for (const int gpus : {1, 8}) {
    const json pod = PodOf(WithGpus(gpus), options);
    const json& container = pod["containers"][0];
    EXPECT_EQ(container["resources"]["limits"]["nvidia.com/gpu"], std::to_string(gpus));
    EXPECT_EQ(container["image"], "localhost/quern/serve-cuda:test");
    EXPECT_EQ(pod["runtimeClassName"], "nvidia");
    EXPECT_EQ(
        pod["volumes"],
        json::parse(R"([{"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}}])"));
    EXPECT_EQ(container["volumeMounts"],
              json::parse(R"([{"name": "shm", "mountPath": "/dev/shm"}])"));
    EXPECT_FALSE(container.contains("env"));  // the device plugin and the image say the rest
  }
  EXPECT_EQ(PodOf(WithGpus(2, {}, "512Mi"), options)["volumes"][0]["emptyDir"]["sizeLimit"],
            "512Mi");
}

TEST(GpuDeployment, TakesTheRuntimeClassOfTheEndpointOrOfTheOperatorOrNone) {
  ResourceOptions options = Options();
  options.serve_image_cuda = "i";
  options.gpu_runtime_class = "nvidia-cdi";
  EXPECT_EQ(PodOf(WithGpus(1), options)["runtimeClassName"], "nvidia-cdi");
  EXPECT_EQ(PodOf(WithGpus(1, {{"runtimeClassName", "own"}}), options)["runtimeClassName"], "own");
  EXPECT_FALSE(
      PodOf(WithGpus(1, {{"runtimeClassName", ""}}), options).contains("runtimeClassName"));
  options.gpu_runtime_class = "";
  EXPECT_FALSE(PodOf(WithGpus(1), options).contains("runtimeClassName"));
  EXPECT_FALSE(PodOf(Simple(), Options()).contains("runtimeClassName"));
  InferenceEndpoint sandboxed = Simple();
  sandboxed.runtime.runtime_class = "kata";
  EXPECT_EQ(PodOf(sandboxed, Options())["runtimeClassName"], "kata");
}

TEST(Service, LeavesTheAdministrativePortOut) {
  const json service = MakeService(Simple());
  ASSERT_EQ(service["spec"]["ports"].size(), 1u);
  EXPECT_EQ(service["spec"]["ports"][0]["targetPort"], "http");
}

TEST(Service, SelectsThePodsOfTheDeployment) {
  const json deployment = MakeDeployment(Simple(), Simple().hardware[0], 1, Options());
  EXPECT_TRUE(Covers(deployment["spec"]["template"]["metadata"]["labels"],
                     MakeService(Simple())["spec"]["selector"]));
  EXPECT_TRUE(Covers(deployment["spec"]["template"]["metadata"]["labels"],
                     deployment["spec"]["selector"]["matchLabels"]));
  EXPECT_EQ(PodSelectorText("smol"),
            "app.kubernetes.io/name=quern-serve,serving.quern.dev/endpoint=smol");
}

TEST(EndpointUrl, NamesTheServiceAndTheDomain) {
  EXPECT_EQ(EndpointUrl(Simple(), Options()), "http://smol.demo.svc.cluster.local");
}

}  // namespace
}  // namespace quern::control
