#include "operator/kube/url.h"

#include <gtest/gtest.h>

namespace quern::control::kube {
namespace {

const ResourceType kPods{"", "v1", "Pod", "pods", true};
const ResourceType kEndpoints{"serving.quern.dev", "v1alpha1", "InferenceEndpoint",
                              "inferenceendpoints", true};
const ResourceType kNodes{"", "v1", "Node", "nodes", false};

TEST(Url, PathsOfCoreAndGroupsNamespacedAndNot) {
  EXPECT_EQ(*ResourcePath(kPods, "ns", "a"), "/api/v1/namespaces/ns/pods/a");
  EXPECT_EQ(*ResourcePath(kPods, "", ""), "/api/v1/pods");
  EXPECT_EQ(*ResourcePath(kNodes, "", "n"), "/api/v1/nodes/n");
  EXPECT_EQ(*ResourcePath(kEndpoints, "ns", "a", "status"),
            "/apis/serving.quern.dev/v1alpha1/namespaces/ns/inferenceendpoints/a/status");
}

TEST(Url, NamesCannotLeaveTheirPlaceInThePath) {
  EXPECT_EQ(*ResourcePath(kPods, "ns", "../nodes?x=1#y"),
            "/api/v1/namespaces/ns/pods/..%2Fnodes%3Fx%3D1%23y");
  EXPECT_FALSE(ResourcePath(kPods, "ns", "..").ok());
  EXPECT_FALSE(ResourcePath(kPods, "", "a").ok());
}

TEST(Url, QueriesAreEncodedAndEmptyOnesLeftOut) {
  EXPECT_EQ(*ResourcePath(kPods, "ns", "", "", {{"a", "x=1,y"}, {"b", ""}, {"c", "ü"}}),
            "/api/v1/namespaces/ns/pods?a=x%3D1%2Cy&c=%C3%BC");
}

TEST(Url, ServersArePutIntoOneForm) {
  EXPECT_EQ(ParseServerUrl("https://host")->origin, "https://host:443");
  EXPECT_EQ(ParseServerUrl("http://127.0.0.1:8001/")->origin, "http://127.0.0.1:8001");
  const auto prefixed = ParseServerUrl("https://[::1]:6443/k8s/clusters/c-1/");
  ASSERT_TRUE(prefixed.ok());
  EXPECT_EQ(prefixed->origin, "https://[::1]:6443");
  EXPECT_EQ(prefixed->path, "/k8s/clusters/c-1");
  EXPECT_EQ(prefixed->host, "::1");
}

TEST(Url, WrongServersAreRefusedWithTheReason) {
  for (const char* url : {"", "host:6443", "ftp://host", "https://", "https://[::1", "https://h:0",
                          "https://h:99999", "https://h:1x", "https://user@h", "https://h/a b"}) {
    const auto parsed = ParseServerUrl(url);
    ASSERT_FALSE(parsed.ok()) << url;
    EXPECT_NE(parsed.error().message.find("https://host:6443"), std::string::npos);
  }
}

}  // namespace
}  // namespace quern::control::kube
