#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

#include "runtime/bench/client/http_client.h"
#include "runtime/bench/figures.h"
#include "runtime/bench/plan.h"
#include "runtime/bench/request_body.h"
#include "runtime/bench/url.h"

namespace quern::bench {

// The command line of quern-bench, checked.
struct BenchOptions {
  BaseUrl url;
  std::optional<BaseUrl> metrics_url;
  ClientOptions client;
  BodyOptions body;  // its model empty: the server's first
  PlanOptions plan;
  std::string trace_file;        // empty: none
  int64_t trace_limit = 0;       // 0: all of it
  int32_t concurrency = 1;       // of closed loops
  int32_t max_in_flight = 1024;  // of open loops
  int64_t warm_up_requests = 1;
  int32_t shared_prefix = 0;
  uint32_t prompt_seed = 0;  // as given, or a random one
  Objective objective;
  double max_error_rate = 0;
  std::string json_file, plot_file;  // empty: none; "-": stdout, instead of the table
  std::string precision, hardware, note;
  bool quiet = false;
};

// What main should do after the command line was read.
struct ParsedBenchLine {
  BenchOptions options;
  bool exit_now = false;  // --help or --version was printed, or an error
  int exit_code = 0;      // 2 for an error, which is on stderr in one line
};

ParsedBenchLine ParseBenchLine(int argc, char** argv);

}  // namespace quern::bench
