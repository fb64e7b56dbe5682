#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace quern::bench {

// What the server told of itself. Empty or 0: nothing.
struct ServerFacts {
  std::string model;  // that is asked for
  std::string owned_by;
  int64_t max_model_len = 0;
  int64_t parameters = 0;
  std::string quantization;                                   // of most of the weights
  std::vector<std::pair<std::string, int64_t>> size_by_type;  // of the weights, most bytes first
  std::string kv_cache_dtype;
  std::string hardware;     // its processor, and how it is used
  std::string version;      // of GET /version
  std::string header;       // Server
  std::string fingerprint;  // system_fingerprint of its answers
  std::string tokens_by;    // how prompts were measured: "/tokenize", "usage", or "" for not at all
  // Processor time that it took during the run, and the metric that says so: of the process that
  // serves the metrics, which need not be all of the server. Absent: not told.
  std::optional<double> cpu_seconds;
  std::string cpu_metric;

  // "Q4_1 (with Q8_0, F32), KV f16"; "" where nothing is told of it.
  std::string Precision() const;
};

// From the body of GET /v1/models what it says of `facts.model`, or of the first one where that is
// empty: vLLM's max_model_len, and of llama.cpp's `meta` n_params, quantization or ftype, with
// quern-serve's size_by_type and kv_cache_dtype. What is missing or of another form stays as it is.
void ReadModels(std::string_view body, ServerFacts& facts);

// What /metrics of a server say of its process at one time.
struct ProcessFacts {
  std::string cpu_metric;  // which one says cpu_seconds; empty: none does
  double cpu_seconds = 0;
  std::string hardware;  // quern-serve's quern_compute_info
};

// Of Prometheus' text format 0.0.4: quern_process_cpu_seconds_total, else the
// process_cpu_seconds_total of Prometheus' client libraries. Lines that are none are passed over.
ProcessFacts ReadProcessFacts(std::string_view exposition);

}  // namespace quern::bench
