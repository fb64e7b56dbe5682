#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "operator/controller/runner.h"

namespace quern::control {

// What a health endpoint answers. `message` is lines of "name: ok" or "name: what is wrong".
struct HealthReport {
  bool ok = true;
  std::string message;
};

struct HealthOptions {
  // A watch hears a bookmark every minute; silence for longer than this is a fault that a restart
  // may mend.
  std::chrono::seconds max_silence{600};
};

// Alive: no informer has been silent for too long.
HealthReport Liveness(const std::vector<InformerHealth>& informers,
                      const HealthOptions& options = {});
// Ready: every informer has its first list. A candidate that waits for the lead is ready too:
// `is_leader` is only told.
HealthReport Readiness(const std::vector<InformerHealth>& informers, bool is_leader,
                       const std::string& holder);

}  // namespace quern::control
