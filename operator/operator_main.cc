// Wires the operator: options -> client -> informers and queue -> lead -> reconciler and scaler.

#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <random>
#include <string_view>
#include <thread>

#include "operator/api/endpoint.h"
#include "operator/controller/event_recorder.h"
#include "operator/controller/health.h"
#include "operator/controller/leader_election.h"
#include "operator/controller/predicates.h"
#include "operator/controller/runner.h"
#include "operator/kube/config.h"
#include "operator/kube/rest_client.h"
#include "operator/metrics/operator_metrics.h"
#include "operator/metrics/status_server.h"
#include "operator/operator_options.h"
#include "operator/reconcilers/endpoint_reconciler.h"
#include "operator/reconcilers/resource_types.h"
#include "operator/reconcilers/scaler.h"
#include "operator/simulate_command.h"
#include "runtime/base/log.h"

namespace quern::control {
namespace {

using namespace std::chrono_literals;  // NOLINT: 100ms reads better

// SIGTERM and SIGINT as a stop token: blocked in every thread (so made before all others) and
// waited for by one.
class StopOnSignal {
 public:
  StopOnSignal() {
    sigemptyset(&signals_);
    sigaddset(&signals_, SIGTERM);
    sigaddset(&signals_, SIGINT);
    pthread_sigmask(SIG_BLOCK, &signals_, nullptr);
    signal(SIGPIPE, SIG_IGN);
    thread_ = std::jthread([this](std::stop_token ended) {
      const timespec wait{0, 200'000'000};
      while (!ended.stop_requested()) {
        const int caught = sigtimedwait(&signals_, nullptr, &wait);
        if (caught <= 0) continue;
        spdlog::info("stopping on {}", caught == SIGTERM ? "SIGTERM" : "SIGINT");
        source_.request_stop();
        return;
      }
    });
  }
  std::stop_token token() const { return source_.get_token(); }
  void RequestStop() { source_.request_stop(); }

 private:
  sigset_t signals_;
  std::stop_source source_;
  std::jthread thread_;
};

Result<kube::ClientConfig> FindCluster(const OperatorOptions& options) {
  if (!options.kubeconfig.empty())
    return kube::ConfigFromKubeconfig(options.kubeconfig, options.context);
  auto in_cluster = kube::ConfigInCluster();
  if (in_cluster) return in_cluster;
  const char* kubeconfig = std::getenv("KUBECONFIG");
  if (kubeconfig != nullptr && kubeconfig[0] != '\0')
    return kube::ConfigFromKubeconfig(kubeconfig, options.context);
  return MakeError(ErrorCode::kInvalidArgument,
                   "no cluster: --kubeconfig and $KUBECONFIG are empty, and this is no pod ({}); "
                   "give --kubeconfig FILE",
                   in_cluster.error().message);
}

// Unique among all candidates, also after a restart in the same pod.
std::string MakeIdentity() {
  char host[256] = "unknown";
  gethostname(host, sizeof(host) - 1);
  const char* pod = std::getenv("POD_NAME");
  std::random_device random;
  return fmt::format("{}_{:08x}", pod != nullptr && pod[0] != '\0' ? pod : host, random());
}

InformerOptions Selecting(const OperatorOptions& options, const char* labels) {
  InformerOptions informer;
  informer.ns = options.ns;
  informer.label_selector = labels;
  return informer;
}

// Declares what is watched; the stores live as long as the runner.
Stores WatchAll(Runner& runner, const OperatorOptions& options) {
  Stores stores;
  stores.endpoints =
      &runner.Watch(kEndpointType, Selecting(options, ""), OwnKey, ChangedMoreThanStatus).store();
  for (const kube::ResourceType* type : kChildTypes) {
    // A Deployment's status says how many replicas are ready; of the others only the spec matters.
    const bool status_matters = type == &kDeploymentType;
    stores.children.push_back(&runner
                                   .Watch(*type, Selecting(options, kManagedSelector),
                                          ControllerOwnerKey(kGroup, kKind),
                                          status_matters ? AnyChange : ChangedMoreThanStatus)
                                   .store());
  }
  stores.pods = &runner
                     .Watch(kPodType, Selecting(options, kManagedSelector),
                            LabelKey(kEndpointLabel), AnyChange)
                     .store();
  return stores;
}

RunnerOptions MakeRunnerOptions(const OperatorOptions& options, OperatorMetrics& metrics) {
  RunnerOptions runner;
  runner.name = "inferenceendpoint";
  runner.workers = options.workers;
  runner.resync_period = 10min;  // a safety net: every endpoint is looked at again
  runner.queue_hooks.on_add = [&metrics] { metrics.QueueAdded(); };
  runner.queue_hooks.on_retry = [&metrics] { metrics.QueueRetried(); };
  runner.queue_hooks.on_full = [&metrics] { metrics.QueueFull(); };
  runner.queue_hooks.on_start = [&metrics](Seconds waited) { metrics.QueueWaited(waited); };
  runner.on_reconcile = [&metrics](const ObjectKey&, const Result<Action>& result, Seconds took) {
    metrics.Reconciled(result ? "" : ErrorCodeName(result.error().code), took);
  };
  return runner;
}

StatusServer::Pages MetricsPages(OperatorMetrics& metrics, const Runner& runner,
                                 const LeaderElector& elector, bool leader_elect) {
  return {{"/metrics", [&metrics, &runner, &elector, leader_elect] {
             metrics.Leader(!leader_elect || elector.IsLeader());
             metrics.QueueDepth(runner.queue().depth());
             for (const InformerHealth& informer : runner.Health()) {
               metrics.InformerObjects(informer.resource, informer.objects);
             }
             return StatusPage{200, metrics.Text(), "text/plain; version=0.0.4; charset=utf-8"};
           }}};
}

StatusServer::Pages HealthPages(const Runner& runner, const LeaderElector& elector,
                                bool leader_elect) {
  const auto page = [](const HealthReport& report) {
    return StatusPage{report.ok ? 200 : 503, report.message + "\n"};
  };
  const auto live = [&runner, page] { return page(Liveness(runner.Health())); };
  const auto ready = [&runner, &elector, leader_elect, page] {
    return page(Readiness(runner.Health(), !leader_elect || elector.IsLeader(), elector.Holder()));
  };
  return {{"/health/live", live}, {"/healthz", live}, {"/health/ready", ready}, {"/readyz", ready}};
}

// Works until `stop`: the runner's workers, and the scaler once the stores are filled.
Status Lead(Runner& runner, Scaler& scaler, std::stop_token stop) {
  spdlog::info("leading");
  std::stop_source ended;
  std::stop_callback forward(stop, [&ended] { ended.request_stop(); });
  std::jthread scaling([&runner, &scaler, token = ended.get_token()] {
    while (!runner.HasSynced() && !token.stop_requested()) std::this_thread::sleep_for(50ms);
    scaler.Run(token);
  });
  Status status = runner.Run(stop);
  ended.request_stop();
  return status;
}

Status Run(const OperatorOptions& options, StopOnSignal& signals) {
  QUERN_ASSIGN(const kube::ClientConfig config, FindCluster(options));
  spdlog::info("version={} api_server={} configured_by={}", QUERN_VERSION, config.server,
               config.source);
  OperatorMetrics metrics(QUERN_VERSION);
  kube::RestClientOptions rest;
  rest.keep = ReadMetadata();
  rest.on_call = [&metrics](const kube::CallRecord& call) {
    metrics.ApiCall(call.verb, call.resource, call.code, call.duration);
  };
  QUERN_ASSIGN(const std::unique_ptr<kube::Client> client, kube::MakeRestClient(config, rest));

  EventRecorderOptions event_options;
  event_options.instance = MakeIdentity();
  event_options.on_lost = [&metrics](const char* reason) { metrics.EventDropped(reason); };
  EventRecorder events(*client, event_options);
  Runner runner(*client, MakeRunnerOptions(options, metrics));
  const Stores stores = WatchAll(runner, options);
  ScalingBoard board;
  EndpointReconciler reconciler(*client, stores, board, events, metrics, options.resources);
  runner.SetReconcile([&reconciler](const ObjectKey& key, const ReconcileContext& context) {
    return reconciler.Reconcile(key, context);
  });
  ScalerOptions scaler_options;
  scaler_options.interval = options.scrape_interval;
  scaler_options.stale_after = 5 * options.scrape_interval;
  Scaler scaler(stores, board, metrics, scaler_options,
                [&runner](const ObjectKey& key) { runner.queue().Add(key); });

  LeaderElectionOptions election;
  election.ns = options.lease_namespace;
  election.name = options.lease_name;
  election.lease_duration = options.lease_duration;
  election.renew_deadline = options.lease_duration * 2 / 3;
  election.retry_period = std::min(election.retry_period, options.lease_duration * 2 / 15);
  election.identity = event_options.instance;
  kube::RestClientOptions lease_rest = rest;
  lease_rest.call_timeout = lease_rest.idle_timeout = LeaseCallTimeout(election);
  QUERN_ASSIGN(const std::unique_ptr<kube::Client> lease_client,
               kube::MakeRestClient(config, lease_rest));
  LeaderElector elector(*lease_client, election);

  QUERN_ASSIGN(const auto metrics_server,
               StatusServer::Start(options.metrics_address,
                                   MetricsPages(metrics, runner, elector, options.leader_elect)));
  QUERN_ASSIGN(const auto health_server,
               StatusServer::Start(options.health_address,
                                   HealthPages(runner, elector, options.leader_elect)));
  if (!options.leader_elect) return Lead(runner, scaler, signals.token());

  runner.StartInformers(signals.token());  // warm stores make a quick takeover
  spdlog::info("candidate={} waiting for lease {}/{}", election.identity, election.ns,
               election.name);
  Status led;
  Status elected =
      elector.Run(signals.token(), [&](std::stop_token stop) { led = Lead(runner, scaler, stop); });
  return led.ok() ? std::move(elected) : std::move(led);
}

int Main(int argc, char** argv) {
  if (argc > 1 && std::string_view(argv[1]) == "simulate") {
    return simulation::SimulateCommand(argc - 1, argv + 1);
  }
  CommandLine command = ParseCommandLine(argc, argv);
  if (!command.run) return command.exit_code;
  if (Status status = InitLog("quern-operator", command.run->log_level, command.run->log_format);
      !status) {
    std::fprintf(stderr, "quern-operator: %s\n", status.error().message.c_str());
    return 2;
  }
  StopOnSignal signals;
  const Status status = Run(*command.run, signals);
  if (status) return 0;
  spdlog::error("{}", status.error().message);
  const ErrorCode code = status.error().code;
  return code == ErrorCode::kInvalidArgument || code == ErrorCode::kNotFound ? 2 : 1;
}

}  // namespace
}  // namespace quern::control

int main(int argc, char** argv) { return quern::control::Main(argc, argv); }
