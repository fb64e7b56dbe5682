#include "runtime/http/router.h"

#include <gtest/gtest.h>

namespace quern::http {
namespace {

class RouterTest : public testing::Test {
 protected:
  RouterTest() {
    const Handler nothing = [](Request, ResponderPtr) {};
    router.Add("GET", "/v1/models", "models", nothing);
    router.Add("GET", "/v1/models/{id...}", "model", nothing);
    router.Add("POST", "/v1/completions", "completions", nothing);
  }
  static std::string Allow(const Router::Match& match) {
    const std::string* allow = FindHeader(match.response.headers, "Allow");
    return allow ? *allow : "";
  }
  Router router;
};

TEST_F(RouterTest, FindsARouteByMethodAndWholePath) {
  EXPECT_NE(router.Find("GET", "/v1/models").handler, nullptr);
  EXPECT_EQ(router.Find("GET", "/v1/models").name, "models");
  EXPECT_EQ(router.Find("GET", "/v1/model").handler, nullptr);
  EXPECT_EQ(router.Find("GET", "/v1/modelsx").handler, nullptr);
}

TEST_F(RouterTest, RestOfThePathMayHoldSlashesAndEscapes) {
  EXPECT_EQ(router.Find("GET", "/v1/models/org/name").path_parameter, "org/name");
  EXPECT_EQ(router.Find("GET", "/v1/models/org%2Fname").path_parameter, "org/name");
  EXPECT_EQ(router.Find("GET", "/v1/models/").handler, nullptr);
  const auto bad = router.Find("GET", "/v1/models/a%2");
  EXPECT_EQ(bad.handler, nullptr);
  EXPECT_EQ(bad.response.status, 400);
}

TEST_F(RouterTest, UnknownPathIs404AndCountsUnderOneName) {
  const auto match = router.Find("GET", "/wp-admin");
  EXPECT_EQ(match.response.status, 404);
  EXPECT_EQ(match.name, "none");
  EXPECT_NE(match.response.body.find("there is no '/wp-admin' here"), std::string::npos);
}

TEST_F(RouterTest, UnknownPathNamesThoseThatThereAreTheNearestFirst) {
  router.Add("POST", "/v1/models", "models", [](Request, ResponderPtr) {});  // named once
  router.AddElsewhere("/metrics", "is on another port");
  const auto message = [this](std::string_view path) {
    return router.Find("GET", path).response.body;
  };
  EXPECT_EQ(message("/completion"),
            R"({"error":{"message":"there is no '/completion' here; the paths of this port, the )"
            R"(nearest first: /v1/completions, /v1/models, /v1/models/{id...}","code":404}})");
  EXPECT_NE(message("/v1/model").find("first: /v1/models, "), std::string::npos);
  EXPECT_NE(message("/v1/completions/").find("first: /v1/completions, "), std::string::npos);
  EXPECT_NE(message("/api/v1/completions").find("first: /v1/completions, "), std::string::npos);
  EXPECT_NE(message("/metrics").find("'/metrics' is on another port; the paths"),
            std::string::npos);
}

TEST_F(RouterTest, WrongMethodIs405AndSaysWhatIsAllowed) {
  const auto match = router.Find("DELETE", "/v1/completions");
  EXPECT_EQ(match.response.status, 405);
  EXPECT_EQ(Allow(match), "OPTIONS, POST");
  EXPECT_EQ(Allow(router.Find("POST", "/v1/models")), "GET, HEAD, OPTIONS");
}

TEST_F(RouterTest, HeadUsesTheGetHandlerAndOptionsIsAnsweredHere) {
  EXPECT_NE(router.Find("HEAD", "/v1/models").handler, nullptr);
  EXPECT_EQ(router.Find("HEAD", "/v1/completions").response.status, 405);
  const auto options = router.Find("OPTIONS", "/v1/completions");
  EXPECT_EQ(options.response.status, 204);
  EXPECT_EQ(Allow(options), "OPTIONS, POST");
}

TEST_F(RouterTest, ErrorsQuoteThePathAsValidJson) {
  const auto match = router.Find("GET", std::string("/\"\\\x01\xff") + std::string(500, 'a'));
  EXPECT_EQ(match.response.status, 404);
  EXPECT_LT(match.response.body.size(), 400u);
  EXPECT_NE(match.response.body.find(R"(/\"\\??)"), std::string::npos);
}

TEST(Router, FallbackTakesWhatNoRouteHas) {
  Router router;
  router.Add("GET", "/health", "health", [](const Request&, const ResponderPtr&) {});
  router.SetFallback("rest", [](const Request&, const ResponderPtr&) {});
  for (const auto& [method, path] :
       {std::pair{"POST", "/v1/chat/completions"}, {"BREW", "/%zz"}, {"OPTIONS", "/x"}}) {
    const Router::Match match = router.Find(method, path);
    EXPECT_NE(match.handler, nullptr) << path;
    EXPECT_EQ(match.name, "rest");
  }
  EXPECT_EQ(router.Find("GET", "/health").name, "health");
  EXPECT_EQ(router.Find("POST", "/health").response.status, 405);  // its path has a route
}

}  // namespace
}  // namespace quern::http
