#include "operator/metrics/scraper.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "operator/metrics/status_server.h"

namespace quern::control {
namespace {

using ::testing::HasSubstr;

// Accepts connections on loopback, says `answer` to each and then keeps them open until the end.
class RawServer {
 public:
  explicit RawServer(std::string answer)
      : answer_(std::move(answer)), fd_(socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(bind(fd_, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    socklen_t size = sizeof(address);
    getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
    EXPECT_EQ(listen(fd_, 16), 0);
    thread_ = std::jthread([this] { Serve(); });
  }
  ~RawServer() {
    shutdown(fd_, SHUT_RDWR);
    thread_.join();
    for (int client : clients_) close(client);
    close(fd_);
  }
  int port() const { return port_; }

 private:
  void Serve() {
    while (true) {
      const int client = accept(fd_, nullptr, nullptr);
      if (client < 0) return;
      clients_.push_back(client);
      size_t sent = 0;
      while (sent < answer_.size()) {
        const ssize_t n = send(client, answer_.data() + sent, answer_.size() - sent, MSG_NOSIGNAL);
        if (n <= 0) break;
        sent += static_cast<size_t>(n);
      }
    }
  }
  std::string answer_;
  int fd_;
  int port_ = 0;
  std::vector<int> clients_;
  std::jthread thread_;
};

ScrapeOptions Quick() {
  ScrapeOptions options;
  options.timeout = std::chrono::milliseconds(300);
  options.max_body_bytes = 100'000;
  return options;
}

// For what must come to an end by itself, on the slowest machine.
ScrapeOptions Patient() {
  ScrapeOptions options = Quick();
  options.timeout = std::chrono::seconds(60);
  return options;
}

Error FetchError(int port, const ScrapeOptions& options) {
  const auto body = FetchMetrics("127.0.0.1", port, options);
  EXPECT_FALSE(body);
  return body ? Error{} : body.error();
}

TEST(Scraper, ReadsThePage) {
  const std::string page = "quern_requests_running 1\n";
  RawServer server("HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(page.size()) +
                   "\r\n\r\n" + page);
  const auto body = FetchMetrics("127.0.0.1", server.port(), Patient());
  ASSERT_TRUE(body) << body.error().message;
  EXPECT_EQ(*body, page);
}

TEST(Scraper, ARefusedConnectionIsUnavailable) {
  int port = 0;
  { port = RawServer("").port(); }
  const Error error = FetchError(port, Patient());
  EXPECT_EQ(error.code, ErrorCode::kUnavailable);
  EXPECT_THAT(error.message, HasSubstr("http://127.0.0.1:"));
}

TEST(Scraper, AServerThatSaysNothingRunsIntoTheTimeout) {
  RawServer server("");
  EXPECT_EQ(FetchError(server.port(), Quick()).code, ErrorCode::kDeadlineExceeded);
}

TEST(Scraper, ABodyThatStallsRunsIntoTheTimeout) {
  RawServer server("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nquern_");
  EXPECT_EQ(FetchError(server.port(), Quick()).code, ErrorCode::kDeadlineExceeded);
}

TEST(Scraper, ABodyAboveTheLimitIsRefused) {
  RawServer server("HTTP/1.1 200 OK\r\nContent-Length: 900000\r\n\r\n" + std::string(900'000, 'a'));
  EXPECT_EQ(FetchError(server.port(), Patient()).code, ErrorCode::kResourceExhausted);
}

TEST(Scraper, ChunksHeadersExtensionsAndTrailersAreBounded) {
  const std::string ok = "HTTP/1.1 200 OK\r\n";
  const std::string chunked = ok + "Transfer-Encoding: chunked\r\n\r\n";
  const std::string much(1'000'000, 'a');
  for (const std::string& answer :
       {ok + "X: " + much, much, chunked + "5;" + much, chunked + "F4240\r\n" + much,
        chunked + "4\r\na 1\n\r\n0\r\nX: " + much}) {
    RawServer server(answer);
    const Error error = FetchError(server.port(), Patient());
    EXPECT_NE(error.code, ErrorCode::kDeadlineExceeded) << answer.substr(0, 60);
    EXPECT_THAT(error.message, HasSubstr("/metrics: ")) << answer.substr(0, 60);
  }
}

TEST(Scraper, ReadsChunksAndBodiesThatEndWithTheConnection) {
  RawServer server(
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4;x=y\r\na 1\n\r\n0\r\n\r\n");
  const auto body = FetchMetrics("127.0.0.1", server.port(), Patient());
  ASSERT_TRUE(body) << body.error().message;
  EXPECT_EQ(*body, "a 1\n");
}

TEST(Scraper, ARoundEndsAndLeavesOutWhoseTurnDidNotCome) {
  RawServer silent("");
  ScrapeOptions options = Quick();
  options.parallel = 1;
  options.round = std::chrono::milliseconds(1);
  const ScrapeTarget target{"u", "p", "127.0.0.1", silent.port()};
  const auto results = ScrapeAll({target, target, target}, options, {});
  EXPECT_EQ(results[1].reading.error().code, ErrorCode::kCancelled);
  EXPECT_THAT(results[2].reading.error().message, HasSubstr("turn did not come"));
}

TEST(Scraper, RedirectsAreNotFollowed) {
  RawServer server(
      "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n");
  EXPECT_THAT(FetchError(server.port(), Patient()).message, HasSubstr("status 302"));
}

TEST(Scraper, ResultsComeInTheOrderOfTheTargets) {
  RawServer server("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\na 1\n\n");
  std::vector<ScrapeTarget> targets;
  for (int i = 0; i < 20; ++i) {
    targets.push_back(
        {"u" + std::to_string(i), "p" + std::to_string(i), "127.0.0.1", server.port()});
  }
  const auto results = ScrapeAll(targets, Patient(), {});
  ASSERT_EQ(results.size(), 20u);
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(results[i].uid, targets[i].uid);
    ASSERT_FALSE(results[i].reading);
    EXPECT_THAT(results[i].reading.error().message,
                HasSubstr("pod p" + std::to_string(i) + ": the page has no series"));
  }
}

TEST(Scraper, StopsWhenAsked) {
  std::stop_source stop;
  stop.request_stop();
  const auto results = ScrapeAll({{"u", "p", "127.0.0.1", 1}}, Patient(), stop.get_token());
  EXPECT_EQ(results[0].reading.error().code, ErrorCode::kCancelled);
}

TEST(StatusServer, ServesItsPagesAndNothingElse) {
  // A port that was free a moment ago.
  int port = 0;
  { port = RawServer("").port(); }
  auto server = StatusServer::Start(fmt::format("127.0.0.1:{}", port),
                                    {{"/metrics", [] {
                                        return StatusPage{200, "quern_x 1\n"};
                                      }}});
  ASSERT_TRUE(server) << server.error().message;
  EXPECT_EQ(*FetchMetrics("127.0.0.1", port, Patient()), "quern_x 1\n");
  EXPECT_FALSE(StatusServer::Start(fmt::format("127.0.0.1:{}", port), {}));
}

// A connection that sends `bytes` and waits.
int Connect(int port, const std::string& bytes) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<uint16_t>(port));
  EXPECT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  EXPECT_EQ(send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL), static_cast<ssize_t>(bytes.size()));
  return fd;
}

// What comes until the other side ends the connection.
std::string ReadAll(int fd) {
  std::string out;
  char chunk[4096];
  for (ssize_t n; (n = recv(fd, chunk, sizeof(chunk), 0)) > 0;) {
    out.append(chunk, static_cast<size_t>(n));
  }
  close(fd);
  return out;
}

class StatusServerTest : public ::testing::Test {
 protected:
  StatusServerTest() {
    const StatusServer::Pages pages = {
        {"/health/live",
         [] {
           return StatusPage{503, "no\n"};
         }},
        {"/throws", []() -> StatusPage { throw std::runtime_error("x"); }}};
    // Between finding a free port and listening on it, another program's test may take it.
    for (int attempts = 0; attempts < 20 && server_ == nullptr; ++attempts) {
      port_ = RawServer("").port();
      auto server = StatusServer::Start(fmt::format("127.0.0.1:{}", port_), pages);
      if (server) {
        server_ = std::move(server).value();
      } else {
        EXPECT_EQ(server.error().code, ErrorCode::kUnavailable) << server.error().message;
      }
    }
    EXPECT_NE(server_, nullptr);
  }
  std::string Ask(const std::string& bytes) { return ReadAll(Connect(port_, bytes)); }
  int port_ = 0;
  std::unique_ptr<StatusServer> server_;
};

TEST_F(StatusServerTest, AnswersEveryRequestOnceAndCloses) {
  EXPECT_THAT(Ask("GET /health/live?x=y HTTP/1.1\r\nHost: a\r\n\r\n"),
              ::testing::AllOf(HasSubstr("HTTP/1.1 503"), HasSubstr("\r\n\r\nno\n")));
  EXPECT_THAT(Ask("GET /nothing HTTP/1.1\r\n\r\n"), HasSubstr("HTTP/1.1 404"));
  EXPECT_THAT(Ask("POST /health/live HTTP/1.1\r\nContent-Length: 9999999999\r\n\r\n"),
              HasSubstr("HTTP/1.1 4"));
  EXPECT_THAT(Ask("GET /throws HTTP/1.1\r\n\r\n"), HasSubstr("HTTP/1.1 500"));
  EXPECT_THAT(Ask("nonsense\r\n\r\n"), HasSubstr("HTTP/1.1 400"));
  EXPECT_THAT(Ask("GET / HTTP/1.1\r\nX: " + std::string(9000, 'a')), HasSubstr("HTTP/1.1 431"));
}

TEST_F(StatusServerTest, ConnectionsHeldOpenDoNotKeepAProbeOut) {
  std::vector<int> held;
  for (int i = 0; i < 100; ++i) held.push_back(Connect(port_, "GET /health"));
  EXPECT_THAT(Ask("GET /health/live HTTP/1.1\r\n\r\n"), HasSubstr("HTTP/1.1 503"));
  for (int i = 0; i < 60; ++i) EXPECT_EQ(ReadAll(held[i]), "");  // the oldest had to go
  for (int i = 60; i < 100; ++i) close(held[i]);
}

TEST_F(StatusServerTest, EndsWithConnectionsOpen) {
  const int held = Connect(port_, "GET /health");
  EXPECT_THAT(Ask("GET /health/live HTTP/1.1\r\n\r\n"), HasSubstr("HTTP/1.1 503"));
  server_.reset();
  EXPECT_EQ(ReadAll(held), "");
}

TEST(StatusServer, RefusesAnAddressThatIsNone) {
  for (const char* bad : {"", "8080", ":8080", "a:b", "a:0", "a:99999", "a:8080x"}) {
    EXPECT_FALSE(StatusServer::Start(bad, {})) << bad;
  }
}

}  // namespace
}  // namespace quern::control
