#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <vector>

#include "runtime/bench/figures.h"
#include "runtime/bench/plan.h"
#include "runtime/bench/prompts.h"
#include "runtime/bench/record.h"
#include "runtime/bench/request_body.h"
#include "runtime/bench/server_facts.h"

namespace quern::bench {

// The machine and program that measured.
struct ClientFacts {
  std::string version;
  std::string cpu;
  int processors = 0;
  std::string host;
  std::string time;  // of the run's start, UTC, ISO 8601
};

// Everything that the figures belong to.
struct RunFacts {
  std::string url;
  ServerFacts server;
  ClientFacts client;
  std::string precision, hardware, note;  // as the user gave them, which counts before `server`'s
  BodyOptions body;
  PlanOptions plan;
  std::string trace;  // the file's name; empty: none
  int64_t cut_requests = 0;
  int32_t shared_prefix = 0;
  uint64_t prompt_seed = 0;
  bool exact_prompts = false;
  int32_t concurrency = 0;    // of closed loops
  int32_t max_in_flight = 0;  // of open loops
  int64_t warm_up_requests = 0;
  Objective objective;
  double cpu_seconds = 0;  // of this program, during the run
  bool interrupted = false;
};

// For people.
std::string ReportText(const RunFacts& facts, const Figures& figures);
// One object with everything but the single requests. Times in seconds, rates by the second.
nlohmann::json ReportJson(const RunFacts& facts, const Figures& figures);
// One request, on one line.
std::string RecordJson(const RequestRecord& record);

}  // namespace quern::bench
