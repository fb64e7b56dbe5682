#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <stop_token>
#include <string>
#include <vector>

#include "operator/metrics/collector.h"
#include "operator/metrics/operator_metrics.h"
#include "operator/metrics/scraper.h"
#include "operator/reconcilers/observe.h"
#include "runtime/base/clock.h"

namespace quern::control {

struct ScalerOptions {
  std::chrono::milliseconds interval{2000};      // between rounds
  std::chrono::milliseconds stale_after{10000};  // a pod's metrics older than this count as missing
  ScrapeOptions scrape;
};

// Reads the metrics of all endpoints' pods in rounds, decides on replicas, puts the findings on the
// board and asks for a reconcile where they have changed; figures are taken over by the reconciles
// that come by themselves. Writes nothing to the cluster. Run's thread alone uses it.
class Scaler {
 public:
  using Scrape = std::function<std::vector<ScrapeResult>(const std::vector<ScrapeTarget>&,
                                                         const ScrapeOptions&, std::stop_token)>;

  // `enqueue` asks for a reconcile of a key. All references must outlive it.
  Scaler(Stores stores, ScalingBoard& board, OperatorMetrics& metrics, ScalerOptions options,
         std::function<void(const kube::ObjectKey&)> enqueue, const Clock& clock = RealClock(),
         Scrape scrape = ScrapeAll);

  // Rounds, until `stop`. A round that throws (a bug, no memory) is logged, and the next one comes.
  void Run(std::stop_token stop);

  // One round; for tests too.
  void Round(std::stop_token stop);

 private:
  struct Endpoint {
    std::string uid;
    ScalingPolicy policy;
    EndpointCollector collector;
    ScalingState state;
    int64_t replicas = 0;   // as last reported
    std::string active;     // status and reason of ScalingActive as last reported
    bool reported = false;  // a reconcile has been asked for
    Millis slow_asked = 0;  // when a slow pod of it was last asked
    ScalingDecision decision;
    std::map<std::string, std::string> failures;  // by pod: why its last scrape failed
  };
  struct Work;
  // A pod that was asked. One that keeps silent is asked ever less often, and one that is slow as
  // often as there is time for it, so that neither uses up the others' time.
  struct Asked {
    Millis last = 0;
    Millis not_before = 0;
    int timeouts = 0;  // in a row
    std::string why;   // of the last timeout
    double cost = 0;   // seconds that it is expected to take
  };

  Millis NowMillis() const;
  Endpoint& StateOf(const Work& work);
  std::vector<Work> Collect();
  // Which pods to ask in this round, in that order.
  struct Target {
    size_t endpoint, pod;  // in the round's work
    ScrapeTarget scrape;
  };
  std::vector<Target> ChooseTargets(const std::vector<Work>& work, Millis now);
  std::vector<Target> Fitting(const std::vector<Work>& work, std::vector<Target> due, Millis now);
  // Takes in what a pod answered.
  void Take(Work& work, size_t pod, ScrapeResult result, Millis now);
  void Decide(Work& work, Millis now);
  void Publish(Work& work, Endpoint& endpoint, ScalingReport report);

  const Stores stores_;
  ScalingBoard& board_;
  OperatorMetrics& metrics_;
  const ScalerOptions options_;
  const std::function<void(const kube::ObjectKey&)> enqueue_;
  const Clock& clock_;
  const Scrape scrape_;
  // Wall-clock time at the start, by which steady times become comparable with the pods' own.
  const Millis wall_offset_;
  std::map<kube::ObjectKey, Endpoint> endpoints_;
  std::map<std::string, Asked> asked_;  // by the pod's uid
};

// The policy of a spec. `target_tokens_per_second` is 1 where the spec has none (nothing is decided
// then).
ScalingPolicy PolicyOf(const ScalingSpec& spec);

}  // namespace quern::control
