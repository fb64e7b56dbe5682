// The client against a real API server, named by the kubeconfig in QUERN_TEST_KUBECONFIG. Run by
// test_kube.py, one process a test.

#include <gmock/gmock.h>

#include <cstdlib>
#include <future>

#include "operator/controller/event_recorder.h"
#include "operator/controller/runner.h"
#include "operator/kube/object.h"
#include "operator/kube/rest_client.h"

namespace quern::control {
namespace {

using kube::WatchEvent;
using ::testing::HasSubstr;

const kube::ResourceType kNamespaces{"", "v1", "Namespace", "namespaces", false};
const kube::ResourceType kConfigMaps{"", "v1", "ConfigMap", "configmaps", true};
const kube::ResourceType kDeployments{"apps", "v1", "Deployment", "deployments", true};
const kube::ResourceType kServiceAccounts{"", "v1", "ServiceAccount", "serviceaccounts", true};
const kube::ResourceType kEvents{"events.k8s.io", "v1", "Event", "events", true};

json ConfigMap(const std::string& name, const std::string& value) {
  return {{"metadata", {{"name", name}, {"labels", {{"set", "test"}}}}},
          {"data", {{"key", value}}}};
}

json Deployment(const std::string& name, int replicas) {
  return json::parse(fmt::format(R"({{"metadata": {{"name": "{}"}}, "spec": {{"replicas": {},
    "selector": {{"matchLabels": {{"app": "x"}}}},
    "template": {{"metadata": {{"labels": {{"app": "x"}}}},
                 "spec": {{"containers": [{{"name": "c", "image": "i"}}]}}}}}}}})",
                                 name, replicas));
}

class KubeApi : public ::testing::Test {
 protected:
  void SetUp() override {
    const char* path = std::getenv("QUERN_TEST_KUBECONFIG");
    ASSERT_NE(path, nullptr) << "QUERN_TEST_KUBECONFIG must name a kubeconfig";
    auto config = kube::ConfigFromKubeconfig(path);
    ASSERT_TRUE(config.ok()) << config.error().message;
    config_ = *config;
    client_ = MakeClient(config_);
    std::string name = ::testing::UnitTest::GetInstance()->current_test_info()->name();
    std::transform(name.begin(), name.end(), name.begin(),
                   [](unsigned char c) { return tolower(c); });
    ns_ = name.substr(0, 63);
    auto made = client_->Create(kNamespaces, "", {{"metadata", {{"name", ns_}}}});
    ASSERT_TRUE(made.ok()) << made.error().message;
  }
  static std::unique_ptr<kube::Client> MakeClient(const kube::ClientConfig& config) {
    auto client = kube::MakeRestClient(config);
    EXPECT_TRUE(client.ok());
    return std::move(client).value();
  }
  // The value, or the test fails with the message.
  template <typename T>
  T Must(Result<T> result) {
    EXPECT_TRUE(result.ok()) << (result.ok() ? "" : result.error().message);
    return result.ok() ? std::move(result).value() : T();
  }

  kube::ClientConfig config_;
  std::unique_ptr<kube::Client> client_;
  std::string ns_;
};

TEST_F(KubeApi, CreateGetUpdateConflictAndDelete) {
  const json made = Must(client_->Create(kConfigMaps, ns_, ConfigMap("a", "1")));
  EXPECT_EQ(client_->Create(kConfigMaps, ns_, ConfigMap("a", "1")).error().code,
            ErrorCode::kAlreadyExists);
  json first = Must(client_->Get(kConfigMaps, ns_, "a"));
  EXPECT_EQ(first["data"]["key"], "1");
  json second = first;
  first["data"]["key"] = "2";
  Must(client_->Update(kConfigMaps, ns_, first));
  second["data"]["key"] = "3";
  EXPECT_EQ(client_->Update(kConfigMaps, ns_, second).error().code, ErrorCode::kConflict);
  EXPECT_EQ(client_->Delete(kConfigMaps, ns_, "a", {.uid = "another"}).error().code,
            ErrorCode::kConflict);
  EXPECT_TRUE(client_->Delete(kConfigMaps, ns_, "a", {.uid = kube::ObjectUid(made)}).ok());
  EXPECT_EQ(client_->Get(kConfigMaps, ns_, "a").error().code, ErrorCode::kNotFound);
  EXPECT_EQ(client_->Delete(kConfigMaps, ns_, "a").error().code, ErrorCode::kNotFound);
}

TEST_F(KubeApi, ServerSideApplyOwnsItsFieldsAndTakesThemBack) {
  const kube::ApplyOptions mine{.field_manager = "quern-operator"};
  Must(client_->Apply(kDeployments, ns_, Deployment("web", 1), mine));
  // Somebody edits our field by hand, and adds one of their own.
  Must(
      client_->MergePatch(kDeployments, ns_, "web",
                          {{"spec", {{"replicas", 5}}}, {"metadata", {{"labels", {{"x", "y"}}}}}}));
  const json again = Must(client_->Apply(kDeployments, ns_, Deployment("web", 1), mine));
  EXPECT_EQ(again["spec"]["replicas"], 1);
  EXPECT_EQ(again["metadata"]["labels"]["x"], "y");
  const auto conflict = client_->Apply(kDeployments, ns_, Deployment("web", 7),
                                       {.field_manager = "other", .force = false});
  ASSERT_FALSE(conflict.ok());
  EXPECT_EQ(conflict.error().code, ErrorCode::kConflict);
  EXPECT_THAT(conflict.error().message, HasSubstr("replicas"));
}

TEST_F(KubeApi, StatusIsPatchedApartFromSpec) {
  Must(client_->Create(kDeployments, ns_, Deployment("web", 1)));
  const json patched = Must(
      client_->MergePatch(kDeployments, ns_, "web",
                          {{"status", {{"replicas", 3}}}, {"spec", {{"replicas", 9}}}}, "status"));
  EXPECT_EQ(patched["status"]["replicas"], 3);
  EXPECT_EQ(patched["spec"]["replicas"], 1);
  EXPECT_EQ(kube::ObjectGeneration(patched), 1);
}

TEST_F(KubeApi, AWrongObjectIsRefusedWithTheFieldNamed) {
  const auto refused =
      client_->Apply(kDeployments, ns_, Deployment("web", -1), {.field_manager = "quern-operator"});
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::kInvalidArgument);
  EXPECT_THAT(refused.error().message, HasSubstr("spec.replicas"));
  EXPECT_THAT(refused.error().message, HasSubstr("apply deployments " + ns_ + "/web"));
}

TEST_F(KubeApi, ListsInPagesWithSelectors) {
  for (int i = 0; i < 7; ++i) {
    Must(client_->Create(kConfigMaps, ns_, ConfigMap("m" + std::to_string(i), "1")));
  }
  const auto list =
      Must(client_->List(kConfigMaps, ns_, {.label_selector = "set in (test,x)", .limit = 3}));
  EXPECT_EQ(list.items.size(), 7u);
  EXPECT_EQ(kube::ObjectKind(list.items[6]), "ConfigMap");
  EXPECT_FALSE(list.resource_version.empty());
  EXPECT_EQ(
      Must(client_->List(kConfigMaps, ns_, {.field_selector = "metadata.name=m3"})).items.size(),
      1u);
  EXPECT_TRUE(Must(client_->List(kConfigMaps, ns_, {.label_selector = "set=none"})).items.empty());
  EXPECT_EQ(client_->List(kConfigMaps, ns_, {.label_selector = "!!"}).error().code,
            ErrorCode::kInvalidArgument);
}

TEST_F(KubeApi, AWatchTellsWhatHappensAndEndsWhenStopped) {
  const auto list = Must(client_->List(kConfigMaps, ns_, {.label_selector = "set=test"}));
  std::stop_source stop;
  std::string seen;
  auto watch = std::async(std::launch::async, [&] {
    return client_->Watch(
        kConfigMaps, ns_, {.label_selector = "set=test", .resource_version = list.resource_version},
        [&](const WatchEvent& event) {
          if (event.type == WatchEvent::Type::kBookmark) return true;
          seen += std::to_string(static_cast<int>(event.type)) + kube::ObjectName(event.object);
          if (event.type == WatchEvent::Type::kDeleted) stop.request_stop();
          return true;
        },
        stop.get_token());
  });
  Must(client_->Create(kConfigMaps, ns_, ConfigMap("a", "1")));
  Must(client_->MergePatch(kConfigMaps, ns_, "a", {{"data", {{"key", "ünïcode ✓"}}}}));
  EXPECT_TRUE(client_->Delete(kConfigMaps, ns_, "a").ok());
  ASSERT_EQ(watch.wait_for(std::chrono::seconds(60)), std::future_status::ready);
  EXPECT_TRUE(watch.get().ok());
  EXPECT_EQ(seen, "0a1a2a");
}

TEST_F(KubeApi, TheServerEndsAWatchAtItsTimeAndSendsABookmarkBefore) {
  bool bookmark = false;
  const Status status = client_->Watch(kConfigMaps, ns_, {.timeout = std::chrono::seconds(5)},
                                       [&](const WatchEvent& event) {
                                         bookmark =
                                             bookmark || event.type == WatchEvent::Type::kBookmark;
                                         return true;
                                       },
                                       {});
  EXPECT_TRUE(status.ok()) << status.error().message;
  EXPECT_TRUE(bookmark);
}

TEST_F(KubeApi, WithoutCredentialsOrRightsItIsPermissionDenied) {
  kube::ClientConfig nobody = config_;
  nobody.client_certificate_pem.clear();
  nobody.client_key_pem.clear();
  EXPECT_EQ(MakeClient(nobody)->Get(kConfigMaps, ns_, "a").error().code,
            ErrorCode::kPermissionDenied);
  nobody.token = "nonsense";
  const auto refused = MakeClient(nobody)->Get(kConfigMaps, ns_, "a");
  EXPECT_EQ(refused.error().code, ErrorCode::kPermissionDenied);
  EXPECT_THAT(refused.error().message, HasSubstr("Unauthorized"));
}

TEST_F(KubeApi, AnUnknownTypeIsNotFound) {
  EXPECT_EQ(client_->List({"no.such", "v1", "X", "xs", true}, ns_, {}).error().code,
            ErrorCode::kNotFound);
}

TEST_F(KubeApi, EventsAreAcceptedAndCounted) {
  const json object = Must(client_->Create(kConfigMaps, ns_, ConfigMap("a", "1")));
  {
    EventRecorder recorder(*client_, {.instance = "test"});
    for (int i = 0; i < 3; ++i) recorder.Warning(object, "ModelMissing", "Reconcile", "no file");
    ASSERT_TRUE(recorder.Flush(std::chrono::seconds(60)));
    EXPECT_EQ(recorder.failed(), 0u);
  }
  const auto events = Must(client_->List(kEvents, ns_, {}));
  ASSERT_EQ(events.items.size(), 1u);
  EXPECT_EQ(events.items[0]["series"]["count"], 3);
  EXPECT_EQ(events.items[0]["regarding"]["name"], "a");
}

// The whole house: a controller that gives every ConfigMap labelled set=test a copy, owned by it,
// and puts a copy that is deleted or edited by hand right again.
TEST_F(KubeApi, AControllerKeepsChildrenRight) {
  Runner runner(*client_, {.name = "copier"});
  InformerOptions options;
  options.ns = ns_;
  options.label_selector = "set=test";
  Informer& parents = runner.Watch(kConfigMaps, options);
  options.label_selector = "set=copy";
  runner.Watch(kConfigMaps, options, ControllerOwnerKey("", "ConfigMap"), AnyChange);
  runner.SetReconcile([&](const ObjectKey& key, const ReconcileContext&) -> Result<Action> {
    const ObjectPtr parent = parents.store().Get(key);
    if (!parent) return Action::Await();
    const json copy{{"metadata",
                     {{"name", key.name + "-copy"},
                      {"labels", {{"set", "copy"}}},
                      {"ownerReferences",
                       {{{"apiVersion", "v1"},
                         {"kind", "ConfigMap"},
                         {"name", key.name},
                         {"uid", kube::ObjectUid(*parent)},
                         {"controller", true}}}}}},
                    {"data", (*parent)["data"]}};
    QUERN_ASSIGN(const json applied,
                 client_->Apply(kConfigMaps, ns_, copy, {.field_manager = "copier"}));
    return Action::Await();
  });
  std::stop_source stop;
  auto run = std::async(std::launch::async, [&] { return runner.Run(stop.get_token()); });
  const auto copy_is = [&](const std::string& value) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (std::chrono::steady_clock::now() < deadline) {
      const auto copy = client_->Get(kConfigMaps, ns_, "a-copy");
      if (copy.ok() && kube::StringAt(*copy, "/data/key") == value) return true;
    }
    return false;
  };
  Must(client_->Create(kConfigMaps, ns_, ConfigMap("a", "1")));
  EXPECT_TRUE(copy_is("1"));
  Must(client_->MergePatch(kConfigMaps, ns_, "a", {{"data", {{"key", "2"}}}}));
  EXPECT_TRUE(copy_is("2"));
  Must(client_->MergePatch(kConfigMaps, ns_, "a-copy", {{"data", {{"key", "edited"}}}}));
  EXPECT_TRUE(copy_is("2"));
  EXPECT_TRUE(client_->Delete(kConfigMaps, ns_, "a-copy").ok());
  EXPECT_TRUE(copy_is("2"));
  stop.request_stop();
  EXPECT_TRUE(run.get().ok());
}

}  // namespace
}  // namespace quern::control

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
