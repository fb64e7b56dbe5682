#include "operator/api/endpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "operator/api/json.h"

namespace quern::control {
namespace {

using ::testing::HasSubstr;

json Minimal() {
  return json::parse(
      R"({"metadata": {"name": "smol", "namespace": "demo", "uid": "u1", "generation": 3},
    "spec": {"model": {"uri": "file:///models/smol.gguf"}}})");
}

// The message with which `object` is refused.
std::string Refusal(const json& object) {
  const auto endpoint = ParseEndpoint(object);
  if (endpoint) return "accepted";
  EXPECT_EQ(endpoint.error().code, ErrorCode::kInvalidArgument);
  return endpoint.error().message;
}

std::string RefusalOf(const char* pointer, json value) {
  json object = Minimal();
  object[json::json_pointer(pointer)] = std::move(value);
  return Refusal(object);
}

TEST(Endpoint, FiveLinesAreEnough) {
  const auto e = ParseEndpoint(Minimal());
  ASSERT_TRUE(e) << e.error().message;
  EXPECT_EQ(e->key(), "demo/smol");
  EXPECT_EQ(e->model.served_name, "smol");
  EXPECT_EQ(e->model.location.path, "/models/smol.gguf");
  ASSERT_EQ(e->hardware.size(), 1u);
  EXPECT_EQ(e->hardware[0].name, "cpu");
  EXPECT_EQ(e->scaling.min_replicas, 1);
  EXPECT_EQ(e->scaling.max_replicas, 1);
  EXPECT_EQ(e->scaling.scale_down_delay, std::chrono::minutes(5));
  EXPECT_EQ(e->drain_timeout, std::chrono::seconds(30));
  EXPECT_FALSE(e->deleting());
}

TEST(Endpoint, SpecRoundTripsThroughJson) {
  json object = Minimal();
  object["spec"] = json::parse(R"({
    "model": {"uri": "pvc://claim/dir/a.gguf", "servedName": "a"},
    "runtime": {"image": "i:1", "imagePullSecrets": [{"name": "s"}], "maxSequences": 8, "maxContextTokens": 2048,
                "kvCache": {"memory": "64Mi"}, "runtimeClassName": ""},
    "hardware": [{"name": "h100", "resources": {"requests": {"cpu": 4}, "limits": {"cpu": "8", "memory": "64Gi",
                  "nvidia.com/gpu": "2"}}, "nodeSelector": {"a": "b"}, "tolerations": [{"operator": "Exists"}],
                  "tensorParallel": 2, "sharedMemory": "2Gi"}],
    "scaling": {"minReplicas": 2, "maxReplicas": 5, "targetTokensPerSecond": "12.5", "targetUtilization": "0.7",
                "stableWindow": "2m", "panicWindow": "12s", "scaleDownDelay": "1h"},
    "rollout": {"drainTimeout": "45s"}})");
  const auto first = ParseEndpoint(object);
  ASSERT_TRUE(first) << first.error().message;
  EXPECT_EQ(first->model.location.scheme, ModelUri::Scheme::kPvc);
  EXPECT_EQ(first->model.location.claim, "claim");
  EXPECT_EQ(first->model.location.path, "dir/a.gguf");
  EXPECT_EQ(first->runtime.kv_memory_bytes, 64 << 20);
  EXPECT_EQ(first->hardware[0].requests.at("cpu"), "4");
  object["spec"] = SpecToJson(*first);
  const auto second = ParseEndpoint(object);
  ASSERT_TRUE(second) << second.error().message;
  EXPECT_EQ(SpecToJson(*second), object["spec"]);
  EXPECT_EQ(second->hardware, first->hardware);
  EXPECT_EQ(second->scaling.target_tokens_per_second, 12.5);
  EXPECT_EQ(second->runtime.runtime_class, "");
  EXPECT_EQ(second->hardware[0].gpus, 2);
  EXPECT_EQ(second->hardware[0].shared_memory, "2Gi");
}

TEST(Endpoint, RefusalsNameTheFieldAndTheMend) {
  EXPECT_THAT(RefusalOf("/spec/model/uri", "https://x/y.gguf"),
              HasSubstr("spec.model.uri: 'https://x/y.gguf' has a scheme"));
  EXPECT_THAT(RefusalOf("/spec/model/uri", "file:///models/../etc/passwd"), HasSubstr("'..'"));
  EXPECT_THAT(RefusalOf("/spec/model/uri", "pvc://claim"), HasSubstr("claim and a path"));
  EXPECT_THAT(RefusalOf("/spec/model/uri", "pvc://claim/../x"), HasSubstr("'..'"));
  EXPECT_THAT(RefusalOf("/spec/model/uri", "file:///a//b"), HasSubstr("empty"));
  EXPECT_THAT(RefusalOf("/spec/model/uri", 7), HasSubstr("spec.model.uri: is a JSON number"));
  EXPECT_THAT(RefusalOf("/spec/model/uri", "file:///a b"), HasSubstr("space"));
  EXPECT_THAT(
      RefusalOf("/spec/scaling", {{"minReplicas", 3}, {"maxReplicas", 2}}),
      HasSubstr("spec.scaling.minReplicas: is 3, must not be above maxReplicas, which is 2"));
  EXPECT_THAT(RefusalOf("/spec/scaling", {{"minReplicas", 0}}), HasSubstr("must be 1 to 1000"));
  EXPECT_THAT(RefusalOf("/spec/scaling", {{"maxReplicas", 2}}),
              HasSubstr("spec.scaling.targetTokensPerSecond: is missing"));
  EXPECT_THAT(RefusalOf("/spec/scaling", {{"targetUtilization", "1.5"}}), HasSubstr("0.1 to 1"));
  EXPECT_THAT(RefusalOf("/spec/scaling", {{"stableWindow", "1d"}}), HasSubstr("no duration"));
  EXPECT_THAT(RefusalOf("/spec/scaling", {{"mode", "Builtin"}}), HasSubstr("builtin or external"));
  EXPECT_THAT(RefusalOf("/spec/runtime", {{"kvCache", {{"memory", "lots"}}}}),
              HasSubstr("spec.runtime.kvCache.memory"));
  EXPECT_THAT(RefusalOf("/spec/hardware",
                        json::parse(R"([{"name": "a", "resources": {"limits": {"cpu": "1"}}}])")),
              HasSubstr("spec.hardware[0].resources.limits: must name memory"));
  EXPECT_THAT(
      RefusalOf("/spec/hardware", json::parse(R"([{"name": "a", "resources": {"limits": {"cpu": "1",
              "memory": "1Gi", "nvidia.com/gpu": 4}}}])")),
      HasSubstr("spec.hardware[0].tensorParallel: is 1, must equal"));
}

// A variant with these limits besides cpu and memory 4Gi, and these fields.
json Variant(json limits, json fields = json::object(), json requests = json::object()) {
  limits.update({{"cpu", "1"}, {"memory", "4Gi"}});
  fields.update(
      {{"name", "a"}, {"resources", {{"limits", limits}, {"requests", std::move(requests)}}}});
  return json::array({std::move(fields)});
}

TEST(Endpoint, GpusAreCountedAndGetSharedMemory) {
  json object = Minimal();
  object["spec"]["hardware"] = Variant({{"nvidia.com/gpu", 8}}, {{"tensorParallel", 8}});
  const auto e = ParseEndpoint(object);
  ASSERT_TRUE(e) << e.error().message;
  EXPECT_EQ(e->hardware[0].gpus, 8);
  EXPECT_EQ(e->hardware[0].shared_memory, "1Gi");
  EXPECT_FALSE(e->runtime.runtime_class);
  object["spec"]["hardware"] =
      Variant({{"nvidia.com/gpu", "1"}}, json::object(), {{"nvidia.com/gpu", 1}});
  ASSERT_TRUE(ParseEndpoint(object)) << ParseEndpoint(object).error().message;
  object["spec"]["hardware"] = Variant(json::object());
  EXPECT_EQ(ParseEndpoint(object)->hardware[0].gpus, 0);
  EXPECT_EQ(ParseEndpoint(object)->hardware[0].shared_memory, "");
}

TEST(Endpoint, WrongGpusAreRefusedByField) {
  for (const char* count : {"0", "1500m", "65", "1k", "-1", "many", ""}) {
    EXPECT_THAT(RefusalOf("/spec/hardware", Variant({{"nvidia.com/gpu", count}})),
                HasSubstr("spec.hardware[0].resources.limits[nvidia.com/gpu]: '" +
                          std::string(count) + "' must be a whole number from 1 to 64"));
  }
  EXPECT_THAT(RefusalOf("/spec/hardware", Variant({{"nvidia.com/gpu", 2}}, {{"tensorParallel", 2}},
                                                  {{"nvidia.com/gpu", "1"}})),
              HasSubstr("resources.requests[nvidia.com/gpu]: is '1', must equal resources.limits"));
  EXPECT_THAT(RefusalOf("/spec/hardware",
                        Variant(json::object(), json::object(), {{"nvidia.com/gpu", "1"}})),
              HasSubstr("resources.requests[nvidia.com/gpu]"));
  EXPECT_THAT(RefusalOf("/spec/hardware", Variant(json::object(), {{"sharedMemory", "1Gi"}})),
              HasSubstr("spec.hardware[0].sharedMemory: is only for variants with GPUs"));
  for (const char* size : {"4Gi", "5Gi", "0", "lots"}) {
    EXPECT_THAT(
        RefusalOf("/spec/hardware", Variant({{"nvidia.com/gpu", 1}}, {{"sharedMemory", size}})),
        HasSubstr("must be a quantity below resources.limits.memory, which is 4Gi"));
  }
  EXPECT_THAT(RefusalOf("/spec/runtime", {{"runtimeClassName", 3}}),
              HasSubstr("spec.runtime.runtimeClassName: is a JSON number"));
}

TEST(Endpoint, ExternalModeNeedsNoTokenTarget) {
  json object = Minimal();
  object["spec"]["scaling"] = {{"mode", "external"}, {"maxReplicas", 4}};
  object["spec"]["replicas"] = 3;
  const auto e = ParseEndpoint(object);
  ASSERT_TRUE(e) << e.error().message;
  EXPECT_EQ(e->external_replicas, 3);
}

TEST(Endpoint, AnyShapeOfJsonIsAnErrorAndNeverACrash) {
  for (const char* text : {"null", "[]", "3", "{}", R"({"metadata": []})",
                           R"({"metadata": {"name": "a", "namespace": "b"}})",
                           R"({"metadata": {"name": "a", "namespace": "b"}, "spec": [1]})"}) {
    EXPECT_NE(Refusal(json::parse(text)), "accepted") << text;
  }
  for (const char* field : {"model", "runtime", "hardware", "scaling", "rollout", "replicas"}) {
    for (const char* value : {"[3]", "\"x\"", "true", "{\"uri\": []}", "[[]]",
                              "[{\"name\": \"a\", \"resources\": 3}]"}) {
      json object = Minimal();
      object["spec"][field] = json::parse(value);
      (void)ParseEndpoint(object);
    }
  }
}

TEST(Endpoint, ABadSpecStillHasItsMetadata) {
  json object = Minimal();
  object["spec"] = 5;
  object["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z";
  object["metadata"]["finalizers"] = {kFinalizer};
  const auto e = ParseEndpointMetadata(object);
  ASSERT_TRUE(e);
  EXPECT_TRUE(e->deleting());
  EXPECT_EQ(e->finalizers, std::vector<std::string>{kFinalizer});
}

TEST(Endpoint, AListOfFinalizersThatMayBeCutShortIsNotGoneBy) {
  json object = Minimal();
  for (size_t i = 0; i < kMaxFinalizers; ++i)
    object["metadata"]["finalizers"].push_back("a/" + std::to_string(i));
  ASSERT_TRUE(ParseEndpoint(object));
  EXPECT_EQ(ParseEndpoint(object)->finalizers.size(), kMaxFinalizers);
  object["metadata"]["finalizers"].push_back(kFinalizer);
  ASSERT_FALSE(ParseEndpoint(object));
  EXPECT_THAT(ParseEndpoint(object).error().message, testing::HasSubstr("metadata.finalizers"));
  EXPECT_TRUE(ParseEndpointMetadata(object)->finalizers.empty());
}

TEST(EndpointStatus, RoundTripsThroughJson) {
  EndpointStatus status;
  status.observed_generation = 4;
  status.url = "http://a.b";
  status.selector = "a=b";
  status.desired_replicas = 3;
  status.replicas = 2;
  status.ready_replicas = 1;
  status.variants = {{"cpu", 2, 1}};
  status.conditions = {{"Ready", "True", "Serving", "m", 4, "2026-01-01T00:00:00Z"}};
  status.last_decision = ScalingDecision{
      "2026-01-01T00:00:00Z", 1, 2, "ScaleUp", "why", {"1", "2", "3", "4", "5", "6", 1, 2}};
  status.history = {{"2026-01-01T00:00:00Z", 1, 2, "ScaleUp", "why"}};
  status.performance =
      PerformanceStatus{"2026-01-01T00:00:00Z", "12.0", "0.5", {"0.1", "0.2"}, {"0.01", ""}, 3, 4};
  EXPECT_EQ(StatusFromJson(ToJson(status)), status);
}

TEST(EndpointStatus, OfAForeignShapeIsReadAsFarAsItGoes) {
  const auto status = StatusFromJson(
      json::parse(R"({"replicas": "x", "readyReplicas": 2, "conditions": [3, {"type": "Ready"}],
      "scaling": {"history": {}, "lastDecision": []}, "performance": 3})"));
  EXPECT_EQ(status.replicas, 0);
  EXPECT_EQ(status.ready_replicas, 2);
  EXPECT_EQ(status.conditions.size(), 1u);
  EXPECT_FALSE(status.last_decision);
}

}  // namespace
}  // namespace quern::control
