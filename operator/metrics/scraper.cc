#include "operator/metrics/scraper.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <thread>

namespace quern::control {
namespace {

namespace beast = boost::beast;
namespace http = boost::beast::http;
using boost::asio::ip::tcp;
using Clock = std::chrono::steady_clock;
using ErrorCodeOf = boost::system::error_code;

constexpr uint32_t kMaxHeaderBytes = 16 << 10;
// What is read but not yet parsed. Beast sets no limit of its own to a chunk's extensions and to
// trailers: they end here.
constexpr size_t kMaxBufferedBytes = 64 << 10;

std::string Url(const std::string& address, int port) {
  const bool v6 = address.find(':') != std::string::npos;
  return v6 ? fmt::format("http://[{}]:{}/metrics", address, port)
            : fmt::format("http://{}:{}/metrics", address, port);
}

// One GET on a connection of its own. The pod is not trusted: whatever it sends, time and memory
// are bounded, and with this object the connection goes.
class Fetch {
 public:
  explicit Fetch(const ScrapeOptions& options)
      : options_(options), stream_(io_), buffer_(kMaxBufferedBytes) {
    parser_.header_limit(kMaxHeaderBytes);
    parser_.body_limit(options.max_body_bytes);
  }

  // May throw what the standard library and Asio throw.
  Result<std::string> Run(const tcp::endpoint& pod, const std::string& host) {
    stream_.expires_after(options_.timeout);  // for all of it together
    request_ = {http::verb::get, "/metrics", 11};
    request_.set(http::field::host, host);
    request_.set(http::field::user_agent, "quern-operator");
    request_.set(http::field::connection, "close");
    stream_.async_connect(pod, [this](ErrorCodeOf error) {
      if (error) return Done(error);
      http::async_write(stream_, request_, [this](ErrorCodeOf error, size_t) {
        if (error) return Done(error);
        http::async_read_header(stream_, buffer_, parser_, [this](ErrorCodeOf error, size_t) {
          if (error || parser_.get().result_int() != 200) return Done(error);
          http::async_read(stream_, buffer_, parser_,
                           [this](ErrorCodeOf error, size_t) { Done(error); });
        });
      });
    });
    io_.run();
    return Finish();
  }

 private:
  // Ends the timer too, so that nothing is left to run.
  void Done(ErrorCodeOf error) {
    error_ = error;
    stream_.close();
  }

  Result<std::string> Finish() {
    if (error_ == beast::error::timeout) {
      return MakeError(ErrorCode::kDeadlineExceeded, "no whole page within {} ms",
                       options_.timeout.count());
    }
    if (error_ == http::error::body_limit) {
      return MakeError(ErrorCode::kResourceExhausted, "the page is longer than {} bytes",
                       options_.max_body_bytes);
    }
    if (error_ == http::error::header_limit || error_ == http::error::buffer_overflow) {
      return MakeError(ErrorCode::kResourceExhausted,
                       "the fields around the page are longer than {} bytes",
                       error_ == http::error::header_limit ? kMaxHeaderBytes : kMaxBufferedBytes);
    }
    if (error_) return MakeError(ErrorCode::kUnavailable, "{}", error_.message());
    if (parser_.get().result_int() != 200) {
      return MakeError(ErrorCode::kUnavailable, "HTTP status {}, wanted 200",
                       parser_.get().result_int());
    }
    return std::move(parser_.get().body());
  }

  const ScrapeOptions options_;
  boost::asio::io_context io_{1};
  beast::tcp_stream stream_;
  beast::flat_buffer buffer_;
  http::request<http::empty_body> request_;
  http::response_parser<http::string_body> parser_;
  ErrorCodeOf error_;
};

}  // namespace

Result<std::string> FetchMetrics(const std::string& address, int port,
                                 const ScrapeOptions& options) {
  const std::string url = Url(address, port);
  try {
    ErrorCodeOf wrong;
    const auto ip = boost::asio::ip::make_address(address, wrong);
    if (wrong || port < 1 || port > 65535)
      return MakeError(ErrorCode::kUnavailable, "{}: no address of a pod", url);
    auto page = Fetch(options).Run({ip, static_cast<uint16_t>(port)},
                                   url.substr(7, url.size() - 7 - 8));  // between http:// and path
    if (!page) return std::move(page).error().Within(url);
    return page;
  } catch (const std::exception& e) {  // no memory, no file descriptor
    return MakeError(ErrorCode::kUnavailable, "{}: {}", url, e.what());
  }
}

namespace {

// Never throws: it runs on threads of which an exception would end the process.
void ScrapeOne(const ScrapeTarget& target, const ScrapeOptions& options, ScrapeResult& result) {
  const auto start = Clock::now();
  try {
    result.reading = [&]() -> Result<PodReading> {
      QUERN_ASSIGN(const std::string page, FetchMetrics(target.address, target.port, options));
      return ReadPodMetrics(page);
    }();
    if (!result.reading)
      result.reading = std::move(result.reading).error().Within(fmt::format("pod {}", target.name));
  } catch (const std::exception&) {
    result.reading = Error{ErrorCode::kInternal, "out of memory"};  // short: allocates nothing
  }
  result.duration = Clock::now() - start;
}

}  // namespace

std::vector<ScrapeResult> ScrapeAll(const std::vector<ScrapeTarget>& targets,
                                    const ScrapeOptions& options, std::stop_token stop) {
  const auto until = Clock::now() + options.round;
  std::vector<ScrapeResult> results;
  for (const ScrapeTarget& target : targets) {
    results.push_back({target.uid,
                       MakeError(ErrorCode::kCancelled,
                                 "pod {}: its turn did not come within {} ms, as others were slow",
                                 target.name, options.round.count()),
                       {}});
  }
  std::atomic<size_t> next{0};
  const auto work = [&] {
    for (size_t i = next++; i < targets.size() && !stop.stop_requested(); i = next++) {
      if (Clock::now() >= until) return;
      ScrapeOne(targets[i], options, results[i]);
    }
  };
  const size_t extra = std::min<size_t>(targets.size(), std::max(options.parallel, 1));
  std::vector<std::jthread> helpers;
  try {
    for (size_t i = 1; i < extra; ++i) helpers.emplace_back(work);
  } catch (const std::exception& e) {  // no more threads: those that there are do
    spdlog::warn("scraping with {} threads of {}: {}", helpers.size() + 1, extra, e.what());
  }
  work();
  return helpers.clear(), results;
}

}  // namespace quern::control
