#include "operator/kube/rest_client.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <future>

#include "operator/kube/object.h"
#include "tests/unit/operator/kube/rest_client_fixture.h"

namespace quern::control::kube::testing {
namespace {

using ::testing::HasSubstr;

TEST_F(RestClientTest, GetsAnObjectOverVerifiedTls) {
  Serve([](const ServedRequest&, ServedConnection& connection) {
    connection.Answer(200, ConfigMap("a", "7").dump());
  });
  auto object = client().Get(kConfigMaps, "ns", "a");
  ASSERT_TRUE(object.ok()) << object.error().message;
  EXPECT_EQ(ObjectResourceVersion(*object), "7");
  EXPECT_EQ(server_->requests()[0].target, "/api/v1/namespaces/ns/configmaps/a");
}

TEST_F(RestClientTest, ConnectionsAreKeptAndUsedAgain) {
  Serve([](const ServedRequest&, ServedConnection& connection) { connection.Answer(200, "{}"); });
  // A connection goes back to the pool a moment after its call has returned, so the very next call
  // may still open another one; not so all of many.
  int calls = 0;
  do {
    ASSERT_TRUE(client().Get(kConfigMaps, "ns", "a").ok());
    ++calls;
  } while (server_->connections() == calls && calls < 200);
  EXPECT_LT(server_->connections(), calls);
}

TEST_F(RestClientTest, RefusesAServerWhoseCertificateAnotherAuthoritySigned) {
  Serve([](const ServedRequest&, ServedConnection& connection) { connection.Answer(200, "{}"); });
  config_.ca_pem = MakeTestCertificates().ca;
  auto object = client().Get(kConfigMaps, "ns", "a");
  ASSERT_FALSE(object.ok());
  EXPECT_EQ(object.error().code, ErrorCode::kUnavailable);
  EXPECT_THAT(object.error().message, HasSubstr("certificate authority"));
  EXPECT_TRUE(server_->requests().empty());
}

TEST_F(RestClientTest, RefusesACertificateForAnotherNameUnlessTlsServerNameSaysSo) {
  UseServerName(certificates_, "kubernetes.example");
  Serve([](const ServedRequest&, ServedConnection& connection) { connection.Answer(200, "{}"); });
  EXPECT_FALSE(client().Get(kConfigMaps, "ns", "a").ok());
  config_.tls_server_name = "kubernetes.example";
  client_.reset();
  auto object = client().Get(kConfigMaps, "ns", "a");
  EXPECT_TRUE(object.ok()) << object.error().message;
}

TEST_F(RestClientTest, PresentsItsClientCertificate) {
  config_.client_certificate_pem = certificates_.client_certificate;
  config_.client_key_pem = certificates_.client_key;
  Serve([](const ServedRequest&, ServedConnection& connection) { connection.Answer(200, "{}"); },
        /*ask_client_certificate=*/true);
  auto object = client().Get(kConfigMaps, "ns", "a");
  ASSERT_TRUE(object.ok()) << object.error().message;
  EXPECT_EQ(server_->requests()[0].client_name, "test-client");
}

TEST_F(RestClientTest, ReadsARotatedTokenAfter401) {
  const std::string path = ::testing::TempDir() + "/token-" + std::to_string(getpid());
  std::ofstream(path) << "old\n";
  config_.token_file = path;
  Serve([&](const ServedRequest& request, ServedConnection& connection) {
    if (request.headers.at("authorization") == "Bearer new") {
      connection.Answer(200, "{}");
      return;
    }
    // Rotated so that neither mtime nor inode tell: only the refusal does.
    const auto mtime = std::filesystem::last_write_time(path);
    std::ofstream(path, std::ios::trunc) << "new\n";
    std::filesystem::last_write_time(path, mtime);
    connection.Answer(401, StatusBody(401, "Unauthorized", "Unauthorized"));
  });
  auto object = client().Get(kConfigMaps, "ns", "a");
  EXPECT_TRUE(object.ok()) << object.error().message;
  EXPECT_EQ(server_->requests().size(), 2u);
  std::remove(path.c_str());
}

TEST_F(RestClientTest, ATokenThatStaysRefusedIsTriedOnceOnly) {
  config_.token = "wrong";
  Serve([](const ServedRequest&, ServedConnection& connection) {
    connection.Answer(401, StatusBody(401, "Unauthorized", "Unauthorized"));
  });
  auto object = client().Get(kConfigMaps, "ns", "a");
  ASSERT_FALSE(object.ok());
  EXPECT_EQ(object.error().code, ErrorCode::kPermissionDenied);
  EXPECT_EQ(server_->requests().size(), 1u);
}

TEST_F(RestClientTest, WaitsAsLongAsRetryAfterSaysAndTriesAgain) {
  std::atomic<int> calls{0};
  Serve([&](const ServedRequest&, ServedConnection& connection) {
    if (calls.fetch_add(1) == 0) {
      connection.Answer(429, StatusBody(429, "TooManyRequests", "slow down"), "Retry-After: 1\r\n");
    } else {
      connection.Answer(200, "{}");
    }
  });
  const auto begin = std::chrono::steady_clock::now();
  ASSERT_TRUE(client().Get(kConfigMaps, "ns", "a").ok());
  EXPECT_GE(std::chrono::steady_clock::now() - begin, std::chrono::seconds(1));
  EXPECT_EQ(calls.load(), 2);
}

TEST_F(RestClientTest, GivesUpWhenRetryAfterIsTooLongOrTooOften) {
  options_.max_retries = 2;
  Serve([&](const ServedRequest& request, ServedConnection& connection) {
    const bool often = request.target.find("often") != std::string::npos;
    connection.Answer(429, StatusBody(429, "TooManyRequests", "slow down"),
                      often ? "Retry-After: 0\r\n" : "Retry-After: 3600\r\n");
  });
  auto refused = client().Get(kConfigMaps, "ns", "long");
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::kResourceExhausted);
  EXPECT_EQ(server_->requests().size(), 1u);
  EXPECT_FALSE(client().Get(kConfigMaps, "ns", "often").ok());
  EXPECT_EQ(server_->requests().size(), 1u + 3u);
}

TEST_F(RestClientTest, AConnectionResetIsAnErrorAndTheNextCallGoesThrough) {
  std::atomic<int> calls{0};
  Serve([&](const ServedRequest&, ServedConnection& connection) {
    if (calls.fetch_add(1) == 0) {
      connection.Reset();
    } else {
      connection.Answer(200, "{}");
    }
  });
  auto reset = client().Get(kConfigMaps, "ns", "a");
  ASSERT_FALSE(reset.ok());
  EXPECT_EQ(reset.error().code, ErrorCode::kUnavailable);
  EXPECT_THAT(reset.error().message, HasSubstr("get configmaps ns/a"));
  EXPECT_TRUE(client().Get(kConfigMaps, "ns", "a").ok());
}

TEST_F(RestClientTest, AKeptConnectionThatTheServerClosedMeanwhileIsReplaced) {
  Serve([](const ServedRequest&, ServedConnection& connection) {
    connection.Answer(200, "{}");
    connection.Close();
  });
  for (int i = 0; i < 3; ++i) {
    auto object = client().Get(kConfigMaps, "ns", "a");
    ASSERT_TRUE(object.ok()) << object.error().message;
  }
  EXPECT_EQ(server_->connections(), 3);
}

TEST_F(RestClientTest, ABodyCutShortIsAnError) {
  Serve([](const ServedRequest& request, ServedConnection& connection) {
    if (request.target.ends_with("chunked")) {
      connection.BeginChunked();
      connection.Write("64\r\n{\"kind\":");
    } else {
      connection.Write("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"kind\":");
    }
    connection.Close();
  });
  for (const char* name : {"chunked", "counted"}) {
    auto object = client().Get(kConfigMaps, "ns", name);
    ASSERT_FALSE(object.ok());
    EXPECT_EQ(object.error().code, ErrorCode::kUnavailable) << object.error().message;
  }
}

TEST_F(RestClientTest, AServerThatSaysNothingMeetsTheIdleLimit) {
  options_.idle_timeout = std::chrono::milliseconds(200);
  Serve([](const ServedRequest&, ServedConnection& connection) { connection.Stall(); });
  auto object = client().Get(kConfigMaps, "ns", "a");
  ASSERT_FALSE(object.ok());
  EXPECT_EQ(object.error().code, ErrorCode::kDeadlineExceeded);
  EXPECT_THAT(object.error().message, HasSubstr("200 ms"));
}

TEST_F(RestClientTest, AServerThatDribblesMeetsTheLimitOfTheWholeCall) {
  options_.call_timeout = std::chrono::milliseconds(300);
  Serve([](const ServedRequest&, ServedConnection& connection) {
    connection.BeginChunked();
    while (connection.open()) connection.Chunk(std::string(1000, ' '));
  });
  auto object = client().Get(kConfigMaps, "ns", "a");
  ASSERT_FALSE(object.ok());
  EXPECT_TRUE(object.error().code == ErrorCode::kDeadlineExceeded ||
              object.error().code == ErrorCode::kResourceExhausted)
      << object.error().message;
}

TEST_F(RestClientTest, ABodyBeyondTheLimitIsRefused) {
  options_.max_body_bytes = 1000;
  Serve([](const ServedRequest&, ServedConnection& connection) {
    connection.Answer(200, "{\"a\":\"" + std::string(2'000'000, 'x') + "\"}");
  });
  // Each call is cancelled in the midst of its body, some while the socket is just being read.
  for (int i = 0; i < 8; ++i) {
    auto object = client().Get(kConfigMaps, "ns", "a");
    ASSERT_FALSE(object.ok());
    EXPECT_EQ(object.error().code, ErrorCode::kResourceExhausted);
  }
}

TEST_F(RestClientTest, NobodyListeningIsUnavailable) {
  // Bound, so that nobody else gets the port meanwhile, and not listening.
  const int held = socket(AF_INET, SOCK_STREAM, 0);
  ASSERT_GE(held, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof(address);
  ASSERT_EQ(bind(held, reinterpret_cast<sockaddr*>(&address), length), 0);
  ASSERT_EQ(getsockname(held, reinterpret_cast<sockaddr*>(&address), &length), 0);
  config_.server = "https://127.0.0.1:" + std::to_string(ntohs(address.sin_port));
  auto object = client().Get(kConfigMaps, "ns", "a");
  close(held);
  ASSERT_FALSE(object.ok());
  EXPECT_EQ(object.error().code, ErrorCode::kUnavailable) << object.error().message;
}

TEST_F(RestClientTest, AnswersThatAreNoJsonObjectAreDataLoss) {
  Serve(
      [](const ServedRequest&, ServedConnection& connection) { connection.Answer(200, "<html>"); });
  auto object = client().Get(kConfigMaps, "ns", "a");
  ASSERT_FALSE(object.ok());
  EXPECT_EQ(object.error().code, ErrorCode::kDataLoss);
}

TEST_F(RestClientTest, ARedirectIsNotFollowedWithTheToken) {
  config_.token = "secret";
  Serve([](const ServedRequest&, ServedConnection& connection) {
    connection.Answer(302, "", "Location: /elsewhere\r\n");
  });
  EXPECT_FALSE(client().Get(kConfigMaps, "ns", "a").ok());
  EXPECT_EQ(server_->requests().size(), 1u);
}

TEST_F(RestClientTest, WritesCarryTheRightVerbTypeAndBody) {
  Serve([](const ServedRequest&, ServedConnection& connection) { connection.Answer(200, "{}"); });
  const json object{{"metadata", {{"name", "web"}}}, {"spec", {{"replicas", 2}}}};
  ASSERT_TRUE(client().Create(kDeployments, "ns", object).ok());
  ASSERT_TRUE(client().Update(kDeployments, "ns", object).ok());
  ASSERT_TRUE(
      client()
          .Apply(kDeployments, "ns", object, {.field_manager = "owner", .subresource = "status"})
          .ok());
  ASSERT_TRUE(client().MergePatch(kDeployments, "ns", "web", {{"a", 1}}, "scale").ok());
  ASSERT_TRUE(client().Delete(kDeployments, "ns", "web", {"Foreground", "uid-1"}).ok());
  const auto requests = server_->requests();
  ASSERT_EQ(requests.size(), 5u);
  const std::string base = "/apis/apps/v1/namespaces/ns/deployments";
  EXPECT_EQ(requests[0].method + requests[0].target, "POST" + base);
  EXPECT_EQ(json::parse(requests[0].body)["kind"], "Deployment");
  EXPECT_EQ(json::parse(requests[0].body)["apiVersion"], "apps/v1");
  EXPECT_EQ(requests[1].method + requests[1].target, "PUT" + base + "/web");
  EXPECT_EQ(requests[2].method + requests[2].target,
            "PATCH" + base + "/web/status?fieldManager=owner&force=true");
  EXPECT_EQ(requests[2].headers.at("content-type"), "application/apply-patch+yaml");
  EXPECT_EQ(requests[3].method + requests[3].target, "PATCH" + base + "/web/scale");
  EXPECT_EQ(requests[3].headers.at("content-type"), "application/merge-patch+json");
  EXPECT_EQ(requests[4].method, "DELETE");
  EXPECT_EQ(json::parse(requests[4].body)["preconditions"]["uid"], "uid-1");
  EXPECT_EQ(json::parse(requests[4].body)["propagationPolicy"], "Foreground");
}

TEST_F(RestClientTest, ACallWithoutANameNeverReachesTheCollection) {
  Serve([](const ServedRequest&, ServedConnection& connection) { connection.Answer(200, "{}"); });
  EXPECT_FALSE(client().Delete(kDeployments, "ns", "").ok());
  EXPECT_FALSE(client().Get(kDeployments, "", "web").ok());
  EXPECT_FALSE(client().Update(kDeployments, "ns", json::object()).ok());
  EXPECT_FALSE(client().Create(kDeployments, "", {{"metadata", {{"name", "a"}}}}).ok());
  EXPECT_TRUE(server_->requests().empty());
}

TEST_F(RestClientTest, ListsAllPages) {
  Serve([](const ServedRequest& request, ServedConnection& connection) {
    const bool first = request.target.find("continue=") == std::string::npos;
    json page{{"kind", "ConfigMapList"}, {"metadata", {{"resourceVersion", "9"}}}};
    page["items"] = {{{"metadata", {{"name", first ? "a" : "b"}}}}};
    if (first) page["metadata"]["continue"] = "next page";
    connection.Answer(200, page.dump());
  });
  auto list = client().List(kConfigMaps, "", {.label_selector = "a=b,c in (d)", .limit = 1});
  ASSERT_TRUE(list.ok()) << list.error().message;
  ASSERT_EQ(list->items.size(), 2u);
  EXPECT_EQ(ObjectKind(list->items[1]), "ConfigMap");
  EXPECT_EQ(list->resource_version, "9");
  EXPECT_EQ(server_->requests()[0].target,
            "/api/v1/configmaps?labelSelector=a%3Db%2Cc%20in%20%28d%29&limit=1");
  EXPECT_THAT(server_->requests()[1].target, HasSubstr("continue=next%20page"));
}

TEST_F(RestClientTest, APageThatIsTooLongIsAskedForAgainWithFewerObjects) {
  options_.max_body_bytes = 10'000;
  static constexpr int kObjects = 7;
  Serve([](const ServedRequest& request, ServedConnection& connection) {
    const auto number = [&](const char* name, int otherwise) {
      const size_t at = request.target.find(name);
      return at == std::string::npos ? otherwise
                                     : std::stoi(request.target.substr(at + strlen(name)));
    };
    const int first = number("continue=", 0);
    const int end = std::min(first + number("limit=", 1000), kObjects);
    json page{{"metadata", {{"resourceVersion", "9"}}}, {"items", json::array()}};
    for (int i = first; i < end; ++i) {
      page["items"].push_back(
          {{"metadata", {{"name", std::to_string(i)}, {"x", std::string(4'000, 'x')}}}});
    }
    if (end < kObjects) page["metadata"]["continue"] = std::to_string(end);
    connection.Answer(200, page.dump());
  });
  for (const int limit : {0, 8}) {
    auto list = client().List(kConfigMaps, "ns", {.limit = limit, .transform = [](json& item) {
                                                    item["metadata"].erase("x");
                                                  }});
    ASSERT_TRUE(list.ok()) << list.error().message;
    ASSERT_EQ(list->items.size(), static_cast<size_t>(kObjects));
    for (int i = 0; i < kObjects; ++i) {
      EXPECT_EQ(ObjectName(list->items[i]), std::to_string(i));
      EXPECT_FALSE(list->items[i]["metadata"].contains("x"));
    }
  }
}

TEST_F(RestClientTest, APageHasALimitOfItsOwnThatOneObjectAloneNeedNotMeet) {
  options_.max_page_bytes = 1000;
  Serve([](const ServedRequest&, ServedConnection& connection) {
    json page{{"metadata", {{"resourceVersion", "9"}}},
              {"items", json::array({ConfigMap("a", "1")})}};
    page["items"][0]["data"]["x"] = std::string(2000, 'x');
    connection.Answer(200, page.dump());
  });
  auto list = client().List(kConfigMaps, "ns", {.limit = 4});
  ASSERT_TRUE(list.ok()) << list.error().message;
  EXPECT_EQ(server_->requests().size(), 3u);  // 4, 2, 1
}

TEST_F(RestClientTest, OfMetadataOnlyWhatIsAskedForIsKeptButInAGet) {
  options_.keep.emplace().labels = {"ours"};
  Serve([](const ServedRequest& request, ServedConnection& connection) {
    json object = ConfigMap("a", "7");
    object["metadata"]["labels"] = {{"ours", "1"}, {"theirs", "2"}};
    const bool list = request.target.find("limit=") != std::string::npos;
    const json page{{"metadata", {{"resourceVersion", "9"}}}, {"items", json::array({object})}};
    connection.Answer(200, (list ? page : object).dump());
  });
  const auto labels = [](const json& object) { return object["metadata"]["labels"].size(); };
  EXPECT_EQ(labels(client().List(kConfigMaps, "ns", {}).value().items.at(0)), 1u);
  EXPECT_EQ(labels(client().MergePatch(kConfigMaps, "ns", "a", json::object()).value()), 1u);
  EXPECT_EQ(labels(client().Get(kConfigMaps, "ns", "a").value()), 2u);
}

TEST_F(RestClientTest, OneObjectThatIsTooLongIsAnError) {
  options_.max_body_bytes = 1000;
  Serve([](const ServedRequest&, ServedConnection& connection) {
    connection.Answer(200, std::string(2000, ' '));
  });
  auto list = client().List(kConfigMaps, "ns", {.limit = 4});
  ASSERT_FALSE(list.ok());
  EXPECT_EQ(list.error().code, ErrorCode::kResourceExhausted);
  EXPECT_EQ(server_->requests().size(), 3u);  // 4, 2, 1
}

TEST_F(RestClientTest, AnApplyThatMustCreateAsksForAResourceVersionThatNothingHas) {
  Serve([](const ServedRequest&, ServedConnection& connection) { connection.Answer(200, "{}"); });
  const json object{{"metadata", {{"name", "a"}}}};
  for (const bool must_create : {true, false}) {
    ApplyOptions options;
    options.field_manager = "test";
    options.must_create = must_create;
    ASSERT_TRUE(client().Apply(kConfigMaps, "ns", object, options).ok());
  }
  const auto requests = server_->requests();
  ASSERT_EQ(requests.size(), 2u);
  EXPECT_EQ(json::parse(requests[0].body)["metadata"]["resourceVersion"], "1");
  EXPECT_FALSE(json::parse(requests[1].body)["metadata"].contains("resourceVersion"));
}

TEST_F(RestClientTest, AListWhosePagesExpireStartsOverAndEndsWithOnePiece) {
  std::atomic<int> expiries{0};
  Serve([&](const ServedRequest& request, ServedConnection& connection) {
    const bool paged = request.target.find("limit=") != std::string::npos;
    if (request.target.find("continue=") != std::string::npos) {
      ++expiries;
      connection.Answer(410, StatusBody(410, "Expired", "The provided continue parameter is old"));
      return;
    }
    json page{{"metadata", {{"resourceVersion", "9"}}}};
    page["items"] = {{{"metadata", {{"name", "a"}}}}};
    if (paged) page["metadata"]["continue"] = "more";
    connection.Answer(200, page.dump());
  });
  auto list = client().List(kConfigMaps, "ns", {.limit = 1});
  ASSERT_TRUE(list.ok()) << list.error().message;
  EXPECT_EQ(list->items.size(), 1u);
  EXPECT_EQ(expiries.load(), 3);
}

TEST_F(RestClientTest, CallsFromManyThreadsRunAtOnce) {
  std::atomic<int> within{0};
  Serve([&](const ServedRequest&, ServedConnection& connection) {
    ++within;
    // All must be here together, or this waits for ever and the test times out.
    while (within.load() < 4) std::this_thread::yield();
    connection.Answer(200, "{}");
  });
  client();
  std::vector<std::future<bool>> calls;
  for (int i = 0; i < 4; ++i) {
    calls.push_back(
        std::async(std::launch::async, [&] { return client_->Get(kConfigMaps, "ns", "a").ok(); }));
  }
  for (auto& call : calls) EXPECT_TRUE(call.get());
}

TEST_F(RestClientTest, TellsOfEveryCall) {
  std::vector<CallRecord> records;
  options_.on_call = [&](const CallRecord& record) { records.push_back(record); };
  Serve([](const ServedRequest&, ServedConnection& connection) {
    connection.Answer(404, StatusBody(404, "NotFound", "configmaps \"a\" not found"));
  });
  auto object = client().Get(kConfigMaps, "ns", "a");
  ASSERT_FALSE(object.ok());
  EXPECT_EQ(object.error().code, ErrorCode::kNotFound);
  ASSERT_EQ(records.size(), 1u);
  EXPECT_EQ(records[0].verb, "get");
  EXPECT_EQ(records[0].resource, "configmaps");
  EXPECT_EQ(records[0].code, 404);
}

}  // namespace
}  // namespace quern::control::kube::testing
