#pragma once

#include <chrono>
#include <optional>
#include <string>

#include "operator/resources/options.h"

namespace quern::control {

struct OperatorOptions {
  std::string kubeconfig;  // "" = in the cluster, or $KUBECONFIG
  std::string context;     // of the kubeconfig; "" = its current one
  std::string ns;          // watched; "" = all
  bool leader_elect = false;
  std::string lease_namespace = "quern";
  std::string lease_name = "quern-operator";
  std::chrono::milliseconds lease_duration{15'000};
  std::string metrics_address = "0.0.0.0:8080";
  std::string health_address = "0.0.0.0:8081";
  int workers = 2;
  std::chrono::milliseconds scrape_interval{2000};
  std::string log_level = "info";
  std::string log_format = "text";
  ResourceOptions resources;
};

// What the command line asks for: to run with these options, or to end with this exit code (help,
// version, mistakes; what there was to say has been said).
struct CommandLine {
  std::optional<OperatorOptions> run;
  int exit_code = 0;
};

// Reads the command line and the QUERN_* environment. Exit code 2 for mistakes.
CommandLine ParseCommandLine(int argc, const char* const* argv);

}  // namespace quern::control
