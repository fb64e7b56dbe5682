#include <gmock/gmock.h>
#include <stdlib.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "operator/kube/config.h"

namespace quern::control::kube {
namespace {

using ::testing::HasSubstr;

constexpr char kGood[] = R"(
apiVersion: v1
kind: Config
current-context: main
clusters:
- name: c1
  cluster: {server: "https://127.0.0.1:6443", certificate-authority-data: Y2E=, tls-server-name: api}
- name: c2
  cluster: {server: "https://other"}
users:
- name: u1
  user: {client-certificate-data: Y2VydA==, client-key-data: a2V5}
- name: u2
  user: {tokenFile: token}
contexts:
- name: main
  context: {cluster: c1, user: u1, namespace: team}
- name: second
  context: {cluster: c2, user: u2}
)";

std::string Replaced(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), to);
}

TEST(Kubeconfig, ReadsTheCurrentContext) {
  const auto config = ParseKubeconfig(kGood, "/dir", "file");
  ASSERT_TRUE(config.ok()) << config.error().message;
  EXPECT_EQ(config->server, "https://127.0.0.1:6443");
  EXPECT_EQ(config->ca_pem, "ca");
  EXPECT_EQ(config->client_certificate_pem, "cert");
  EXPECT_EQ(config->client_key_pem, "key");
  EXPECT_EQ(config->tls_server_name, "api");
  EXPECT_EQ(config->default_namespace, "team");
}

TEST(Kubeconfig, ANamedContextGoesBeforeTheCurrentOneAndPathsAreRelativeToTheFile) {
  const auto config = ParseKubeconfig(kGood, "/dir", "file", "second");
  ASSERT_TRUE(config.ok()) << config.error().message;
  EXPECT_EQ(config->server, "https://other");
  EXPECT_EQ(config->token_file, "/dir/token");
  EXPECT_EQ(config->default_namespace, "default");
}

TEST(Kubeconfig, WhatIsWrongIsNamedWithFileAndField) {
  const std::vector<std::tuple<std::string, std::string, std::string>> cases{
      {"current-context: main", "current-context: gone",
       "contexts: has no entry 'gone'; there is: main, second"},
      {"current-context: main", "", "current-context: is empty"},
      {"{cluster: c1, user: u1, namespace: team}", "{cluster: c9}", "clusters: has no entry 'c9'"},
      {"{cluster: c1, user: u1, namespace: team}", "{user: u1}",
       "contexts[main].context.cluster: is missing"},
      {"{cluster: c1, user: u1, namespace: team}", "[]",
       "contexts[main].context: is missing or no mapping"},
      {"server: \"https://127.0.0.1:6443\", ", "", "clusters[c1].cluster.server: is missing"},
      {"Y2E=", "Y2*=", "certificate-authority-data: no base64: character 2 is wrong"},
      {"Y2E=", "[1]", "certificate-authority-data: must be a string"},
      {"certificate-authority-data: Y2E=", "certificate-authority: /no/such",
       "clusters[c1].cluster.certificate-authority: /no/such: there is no such file"},
      {", client-key-data: a2V5", "", "client-certificate without client-key"},
  };
  for (const auto& [from, to, message] : cases) {
    const auto config = ParseKubeconfig(Replaced(kGood, from, to), "", "f.yaml");
    ASSERT_FALSE(config.ok()) << message;
    EXPECT_EQ(config.error().code, ErrorCode::kInvalidArgument);
    EXPECT_THAT(config.error().message, HasSubstr(message));
    EXPECT_THAT(config.error().message, HasSubstr("f.yaml"));
  }
}

TEST(Kubeconfig, WhatRunsProgramsOrTrustsAnyoneIsRefused) {
  const std::string user = "{client-certificate-data: Y2VydA==, client-key-data: a2V5}";
  for (const auto& [instead, field] : std::vector<std::pair<std::string, std::string>>{
           {"{exec: {command: aws}}", "users[u1].user.exec"},
           {"{auth-provider: {name: gcp}}", "users[u1].user.auth-provider"},
           {"{username: a, password: b}", "users[u1].user.username"},
           {"{as: somebody}", "users[u1].user.as "}}) {
    const auto config = ParseKubeconfig(Replaced(kGood, user, instead), "", "f");
    ASSERT_FALSE(config.ok());
    EXPECT_EQ(config.error().code, ErrorCode::kUnsupported);
    EXPECT_THAT(config.error().message, HasSubstr(field));
    EXPECT_THAT(config.error().message, HasSubstr("use a token"));
  }
  const auto insecure = ParseKubeconfig(
      Replaced(kGood, "tls-server-name: api", "insecure-skip-tls-verify: true"), "", "f");
  ASSERT_FALSE(insecure.ok());
  EXPECT_THAT(insecure.error().message, HasSubstr("insecure-skip-tls-verify is refused"));
}

TEST(Kubeconfig, AnyBytesGiveAnErrorAndNothingWorse) {
  for (const char* text :
       {"", "{", "- a", "a: &x *x", "contexts: 1", "%", "\xff\xfe\x00", "clusters: {a: b}"}) {
    EXPECT_FALSE(ParseKubeconfig(text, "", "f").ok()) << text;
  }
  EXPECT_FALSE(ParseKubeconfig(std::string(5000, '['), "", "f").ok());
  EXPECT_FALSE(ParseKubeconfig(std::string(2 << 20, 'a'), "", "f").ok());
}

TEST(Kubeconfig, AMissingFileIsNotFound) {
  const auto config = ConfigFromKubeconfig("/no/such/config");
  ASSERT_FALSE(config.ok());
  EXPECT_EQ(config.error().code, ErrorCode::kNotFound);
  EXPECT_THAT(config.error().message, HasSubstr("/no/such/config"));
}

TEST(Config, CertificatesThatCannotBeAreRefusedBeforeAnyCall) {
  ClientConfig config;
  config.source = "here";
  config.server = "https://h";
  EXPECT_TRUE(CheckConfig(config).ok());
  config.ca_pem = "no pem";
  EXPECT_THAT(CheckConfig(config).error().message, HasSubstr("here: certificate-authority"));
  config.ca_pem.clear();
  config.client_certificate_pem = "no pem";
  EXPECT_THAT(CheckConfig(config).error().message, HasSubstr("client-certificate"));
  config.client_certificate_pem.clear();
  config.server = "nonsense";
  EXPECT_THAT(CheckConfig(config).error().message, HasSubstr("server 'nonsense'"));
}

TEST(Config, InClusterNeedsThePodsEnvironmentAndFiles) {
  const std::string directory = ::testing::TempDir() + "/sa-" + std::to_string(getpid());
  std::filesystem::create_directories(directory);
  unsetenv("KUBERNETES_SERVICE_HOST");
  EXPECT_THAT(ConfigInCluster(directory).error().message, HasSubstr("KUBERNETES_SERVICE_HOST"));
  setenv("KUBERNETES_SERVICE_HOST", "fd00::1", 1);
  setenv("KUBERNETES_SERVICE_PORT", "443", 1);
  EXPECT_THAT(ConfigInCluster(directory).error().message, HasSubstr("ca.crt is missing"));
  std::ofstream(directory + "/ca.crt") << "no pem";
  EXPECT_THAT(ConfigInCluster(directory).error().message, HasSubstr("token is missing"));
  std::ofstream(directory + "/token") << "t";
  EXPECT_THAT(ConfigInCluster(directory).error().message, HasSubstr("no PEM certificate"));
  std::filesystem::remove_all(directory);
  unsetenv("KUBERNETES_SERVICE_HOST");
  unsetenv("KUBERNETES_SERVICE_PORT");
}

TEST(Base64, DecodesAndRefuses) {
  EXPECT_EQ(*DecodeBase64(""), "");
  EXPECT_EQ(*DecodeBase64("YQ=="), "a");
  EXPECT_EQ(*DecodeBase64("YWI="), "ab");
  EXPECT_EQ(*DecodeBase64("YW\nJj\n"), "abc");
  EXPECT_EQ(*DecodeBase64("//79"), "\xff\xfe\xfd");
  for (const char* wrong : {"Y", "YQ", "YQ=", "=YQ=", "YQ==YQ==", "Y Q-", "====", "YQ=a"}) {
    EXPECT_FALSE(DecodeBase64(wrong).ok()) << wrong;
  }
}

}  // namespace
}  // namespace quern::control::kube
