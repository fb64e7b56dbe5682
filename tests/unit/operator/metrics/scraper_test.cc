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

Error FetchError(int port, const ScrapeOptions& options) {
  const auto body = FetchMetrics("127.0.0.1", port, options);
  EXPECT_FALSE(body);
  return body ? Error{} : body.error();
}

TEST(Scraper, ReadsThePage) {
  const std::string page = "quern_requests_running 1\n";
  RawServer server("HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(page.size()) +
                   "\r\n\r\n" + page);
  const auto body = FetchMetrics("127.0.0.1", server.port(), Quick());
  ASSERT_TRUE(body) << body.error().message;
  EXPECT_EQ(*body, page);
}

TEST(Scraper, ARefusedConnectionIsUnavailable) {
  int port = 0;
  { port = RawServer("").port(); }
  const Error error = FetchError(port, Quick());
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
  EXPECT_EQ(FetchError(server.port(), Quick()).code, ErrorCode::kResourceExhausted);
}

TEST(Scraper, RedirectsAreNotFollowed) {
  RawServer server(
      "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n");
  EXPECT_THAT(FetchError(server.port(), Quick()).message, HasSubstr("status 302"));
}

TEST(Scraper, ResultsComeInTheOrderOfTheTargets) {
  RawServer server("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\na 1\n\n");
  std::vector<ScrapeTarget> targets;
  for (int i = 0; i < 20; ++i) {
    targets.push_back(
        {"u" + std::to_string(i), "p" + std::to_string(i), "127.0.0.1", server.port()});
  }
  const auto results = ScrapeAll(targets, Quick(), {});
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
  const auto results = ScrapeAll({{"u", "p", "127.0.0.1", 1}}, Quick(), stop.get_token());
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
  EXPECT_EQ(*FetchMetrics("127.0.0.1", port, Quick()), "quern_x 1\n");
  EXPECT_FALSE(StatusServer::Start(fmt::format("127.0.0.1:{}", port), {}));
}

TEST(StatusServer, RefusesAnAddressThatIsNone) {
  for (const char* bad : {"", "8080", ":8080", "a:b", "a:0", "a:99999", "a:8080x"}) {
    EXPECT_FALSE(StatusServer::Start(bad, {})) << bad;
  }
}

}  // namespace
}  // namespace quern::control
