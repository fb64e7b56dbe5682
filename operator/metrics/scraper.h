#pragma once

#include <chrono>
#include <stop_token>
#include <string>
#include <vector>

#include "operator/metrics/collector.h"
#include "runtime/base/result.h"

namespace quern::control {

struct ScrapeOptions {
  std::chrono::milliseconds timeout{1500};  // one pod's, from connecting to the last byte
  size_t max_body_bytes = 512 << 10;        // quern-serve's page has some 30 KiB
  int parallel = 16;
  std::chrono::milliseconds round{5000};  // of all pods: what has not begun by then is left out
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

// The text at http://ADDRESS:PORT/metrics; ADDRESS is an IP address. No redirect is followed.
// Errors: kUnavailable (no address, cannot connect, no HTTP, status other than 200),
// kDeadlineExceeded, kResourceExhausted (a body, header or trailer above its limit). Holds at most
// max_body_bytes and 100 KiB. Never throws. Any thread.
Result<std::string> FetchMetrics(const std::string& address, int port,
                                 const ScrapeOptions& options);

// Reads the metrics of all targets, at most `parallel` at a time and the first first; the results
// are in the order of the targets. Takes at most `round` + `timeout`. What had not begun by then,
// or when `stop` was asked for, is kCancelled. A scrape that runs out of memory or file descriptors
// fails alone; threads that cannot be had are done without.
std::vector<ScrapeResult> ScrapeAll(const std::vector<ScrapeTarget>& targets,
                                    const ScrapeOptions& options, std::stop_token stop);

}  // namespace quern::control
