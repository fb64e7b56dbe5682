#include "operator/metrics/scraper.h"

#include <cpprest/http_client.h>
#include <cpprest/rawptrstream.h>

#include <algorithm>
#include <atomic>
#include <future>
#include <memory>
#include <thread>

namespace quern::control {
namespace {

using Clock = std::chrono::steady_clock;

std::string Url(const std::string& address, int port) {
  const bool v6 = address.find(':') != std::string::npos;
  return v6 ? fmt::format("http://[{}]:{}/metrics", address, port)
            : fmt::format("http://{}:{}/metrics", address, port);
}

// Waits for the task until `deadline`; then cancels it and waits for its end, which is then near.
// What the task threw is thrown from here.
template <typename T>
T Await(const pplx::task<T>& task, pplx::cancellation_token_source& cancel,
        Clock::time_point deadline) {
  auto done = std::make_shared<std::promise<void>>();
  auto future = done->get_future();
  task.then([done](pplx::task<T>) { done->set_value(); });
  if (future.wait_until(deadline) == std::future_status::timeout) cancel.cancel();
  return task.get();
}

Result<std::string> ReadBody(web::http::http_response& response, const ScrapeOptions& options,
                             pplx::cancellation_token_source& cancel, Clock::time_point deadline) {
  std::string body;
  std::vector<uint8_t> chunk(32 * 1024);
  auto stream = response.body();
  while (true) {
    concurrency::streams::rawptr_buffer<uint8_t> buffer(chunk.data(), chunk.size(), std::ios::out);
    const size_t read = Await(stream.read(buffer, chunk.size()), cancel, deadline);
    if (read == 0) return body;
    if (body.size() + read > options.max_body_bytes) {
      return MakeError(ErrorCode::kResourceExhausted, "the page is longer than {} bytes",
                       options.max_body_bytes);
    }
    body.append(reinterpret_cast<const char*>(chunk.data()), read);
    if (Clock::now() >= deadline) {
      return MakeError(ErrorCode::kDeadlineExceeded, "no whole page within {} ms",
                       options.timeout.count());
    }
  }
}

}  // namespace

Result<std::string> FetchMetrics(const std::string& address, int port,
                                 const ScrapeOptions& options) {
  const std::string url = Url(address, port);
  const auto deadline = Clock::now() + options.timeout;
  pplx::cancellation_token_source cancel;
  try {
    web::http::client::http_client_config config;
    config.set_timeout(options.timeout);
    config.set_max_redirects(0);
    web::http::client::http_client client(url, config);
    web::http::http_response response =
        Await(client.request(web::http::methods::GET, cancel.get_token()), cancel, deadline);
    if (response.status_code() != 200) {
      return MakeError(ErrorCode::kUnavailable, "{}: HTTP status {}, wanted 200", url,
                       response.status_code());
    }
    auto body = ReadBody(response, options, cancel, deadline);
    if (!body) return std::move(body).error().Within(url);
    return body;
  } catch (const std::exception& e) {
    if (Clock::now() >= deadline) {
      return MakeError(ErrorCode::kDeadlineExceeded, "{}: no answer within {} ms", url,
                       options.timeout.count());
    }
    return MakeError(ErrorCode::kUnavailable, "{}: {}", url, e.what());
  }
}

namespace {

ScrapeResult ScrapeOne(const ScrapeTarget& target, const ScrapeOptions& options) {
  const auto start = Clock::now();
  const auto read = [&]() -> Result<PodReading> {
    QUERN_ASSIGN(const std::string page, FetchMetrics(target.address, target.port, options));
    QUERN_ASSIGN(const auto samples, ParsePrometheusText(page));
    return ReadPodMetrics(samples);
  };
  Result<PodReading> reading = read();
  if (!reading) reading = std::move(reading).error().Within(fmt::format("pod {}", target.name));
  return {target.uid, std::move(reading), Clock::now() - start};
}

}  // namespace

std::vector<ScrapeResult> ScrapeAll(const std::vector<ScrapeTarget>& targets,
                                    const ScrapeOptions& options, std::stop_token stop) {
  std::vector<ScrapeResult> results;
  for (const ScrapeTarget& target : targets) {
    results.push_back(
        {target.uid,
         MakeError(ErrorCode::kCancelled, "pod {}: not scraped, stopping", target.name),
         {}});
  }
  std::atomic<size_t> next{0};
  const auto work = [&] {
    for (size_t i = next++; i < targets.size() && !stop.stop_requested(); i = next++) {
      results[i] = ScrapeOne(targets[i], options);
    }
  };
  const size_t extra = std::min<size_t>(targets.size(), std::max(options.parallel, 1));
  std::vector<std::jthread> helpers;
  for (size_t i = 1; i < extra; ++i) helpers.emplace_back(work);
  work();
  return helpers.clear(), results;
}

}  // namespace quern::control
