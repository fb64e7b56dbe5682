#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

#include "runtime/base/result.h"
#include "runtime/devices.h"
#include "runtime/engine/engine.h"
#include "runtime/metrics/runtime_metrics.h"
#include "runtime/model/model.h"

namespace CLI {
class App;
}

namespace quern {

// The command line of quern-serve, checked.
struct ServeOptions {
  std::string model;               // path of a GGUF file
  std::string served_name;         // empty: the file's name without ".gguf"
  std::string chat_template;       // path of a file with one; empty: the model's own
  std::string chat_template_name;  // of several; empty: the default one, tool_use with tools
  std::string host = "127.0.0.1";
  uint16_t port = 8000;
  std::string admin_host;  // empty: as host
  uint16_t admin_port = 9090;
  std::string tenants;  // path of the file of API keys; empty: none are asked for
  Device device;
  kernels::ActivationType activations = kernels::ActivationType::kBF16;  // on a GPU
  int threads = 0;               // of all processes together; 0: the cgroup's CPU quota
  int tensor_parallel_size = 1;  // processes that the model is split over
  int32_t max_sequences = 32;
  int32_t max_waiting = 256;
  int32_t max_batch_tokens = 0;    // 0: 512, at least max_sequences; set by parsing
  double max_decode_slowdown = 2;  // 0: no bound
  int32_t max_context_tokens = 0;  // 0: the model's
  int64_t kv_memory_bytes = 0;     // 0: from free memory
  std::optional<KvDtype> kv_dtype = KvDtype::kF16;  // nullopt: f16 where that fits, else int8
  bool prefix_cache = true;
  bool sleep_mode = false;
  int32_t max_connections = 1024;
  int64_t max_body_bytes = 4 << 20;
  std::chrono::milliseconds header_timeout{10'000};
  std::chrono::milliseconds body_timeout{60'000};
  std::chrono::milliseconds write_timeout{30'000};
  std::chrono::milliseconds drain_timeout{30'000};
  std::chrono::milliseconds stall_timeout{120'000};
  MetricsCompat metrics_compat = MetricsCompat::kNone;
  std::string log_level = "info";
  std::string log_format = "text";
};

// What main should do after the command line was read.
struct ParsedCommandLine {
  ServeOptions options;
  bool exit_now = false;  // --help or --version was printed, or an error
  int exit_code = 0;      // 2 for an error, which is on stderr in one line
};

ParsedCommandLine ParseCommandLine(int argc, char** argv);

// The options of the engine and of the model in it, for another command that runs one.
void AddEngineOptions(CLI::App& app, ServeOptions& options);
ModelOptions ModelOptionsOf(const ServeOptions& options);
EngineOptions EngineOptionsOf(const ServeOptions& options);

// 2 where the input is wrong and trying again is useless, 1 where the machine or this program is.
int ExitCode(const Error& error);

}  // namespace quern
