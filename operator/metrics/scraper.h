#pragma once

#include <chrono>
#include <functional>
#include <stop_token>
#include <string>
#include <vector>

#include "operator/metrics/collector.h"
#include "runtime/base/result.h"

namespace quern::control {

struct ScrapeOptions {
  std::chrono::milliseconds timeout{1500};  // one pod's, from connecting to the last byte
  size_t max_body_bytes = 4u << 20;
  int parallel = 8;
};

struct ScrapeTarget {
  std::string uid;      // of the pod
  std::string name;     // for messages
  std::string address;  // IPv4 or IPv6
  int port = 9090;
};

struct ScrapeResult {
  std::string uid;
  Result<PodReading> reading;
  std::chrono::duration<double> duration{0};
};

// The text at http://ADDRESS:PORT/metrics. No redirect is followed. Errors: kUnavailable (cannot
// connect, status other than 200), kDeadlineExceeded, kResourceExhausted (a body above the limit).
// Never throws. Any thread.
Result<std::string> FetchMetrics(const std::string& address, int port,
                                 const ScrapeOptions& options);

// Reads the metrics of all targets, at most `parallel` at a time; the results are in the order of
// the targets. Takes at most about targets / parallel x timeout. `stop` skips what has not begun
// (kCancelled).
std::vector<ScrapeResult> ScrapeAll(const std::vector<ScrapeTarget>& targets,
                                    const ScrapeOptions& options, std::stop_token stop);

}  // namespace quern::control
