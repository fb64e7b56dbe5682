#include "operator/operator_options.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>

#include "operator/api/time.h"
#include "operator/resources/image_policy.h"

namespace quern::control {
using namespace std::chrono_literals;  // NOLINT: 5s reads better
namespace {

constexpr char kDescription[] =
    "Quern's operator: watches InferenceEndpoints, keeps their pods, Services and policies as they "
    "say, and scales them "
    "on the tokens asked of them.";

constexpr char kFooter[] = R"(
Every option can also be given in the environment: --serve-image is QUERN_SERVE_IMAGE, and so on; several values of
one option with commas between them.

Where the cluster is: --kubeconfig; without it the pod's own service account; outside a pod $KUBECONFIG.

Examples:
  quern-operator --kubeconfig ~/.kube/config --serve-image localhost/quern/serve:dev
      one operator on this machine, for all namespaces. Pods are scraped by their own addresses: from outside the
      cluster's network, endpoints run but do not scale, and say so in their condition ScalingActive.
  quern-operator --leader-elect --serve-image REGISTRY/quern/serve:0.1.0 \
      --allowed-model-volume hostPath:/var/lib/quern/models@/models
      what the Helm chart runs: of several replicas one leads; file:///models/... is read from that directory.

Ports: metrics at http://ADDRESS:8080/metrics, health at http://ADDRESS:8081/health/live and /health/ready.
Exit codes: 0 stopped by SIGTERM or SIGINT (the lease is given up), 2 a mistake in the options or the configuration,
1 anything else (the lead was lost, the API server refused).)";

// A duration between the two, into `out`; or what is wrong with it.
std::string ReadDuration(const char* option, const std::string& text, std::chrono::seconds least,
                         std::chrono::seconds most, std::chrono::milliseconds* out) {
  const auto duration = ParseDuration(text);
  if (!duration || *duration < least || *duration > most) {
    return fmt::format("{}: '{}' must be {}s to {}s", option, text, least.count(), most.count());
  }
  *out = *duration;
  return "";
}

// Reads the other texts that CLI11 has no type for; "" or what is wrong.
std::string Finish(const std::string& ns, const std::string& volume, OperatorOptions& options) {
  options.ns = ns == "all" ? "" : ns;
  if (options.resources.gpu_runtime_class == "none") options.resources.gpu_runtime_class.clear();
  if (!volume.empty()) {
    auto parsed = ParseModelVolume(volume);
    if (!parsed) return "--allowed-model-volume: " + parsed.error().message;
    options.resources.model_volume = *parsed;
  }
  for (const std::string& prefix : options.resources.allowed_images) {
    const Status checked = CheckImagePrefix(prefix);
    if (!checked) return "--allowed-image: " + checked.error().message;
  }
  if (options.resources.serve_image.empty()) {
    return "--serve-image: is missing; name the image of quern-serve that endpoints run by "
           "default, for example "
           "--serve-image localhost/quern/serve:dev";
  }
  if (options.log_format != "text" && options.log_format != "json") {
    return "--log-format: '" + options.log_format + "' must be text or json";
  }
  options.resources.log_format = options.log_format;
  options.resources.operator_namespace = options.lease_namespace;
  return "";
}

}  // namespace

CommandLine ParseCommandLine(int argc, const char* const* argv) {
  OperatorOptions options;
  std::string ns = "all", volume, interval = "2s", lease = "15s";
  CLI::App app(kDescription, "quern-operator");
  app.footer(kFooter);
  app.get_formatter()->column_width(34);
  const auto add = [&](const char* name, auto& value, const char* help, const char* env) {
    return app.add_option(name, value, help)->envname(env)->capture_default_str();
  };
  add("--kubeconfig", options.kubeconfig, "kubeconfig file of the cluster", "QUERN_KUBECONFIG");
  add("--context", options.context, "context of the kubeconfig", "QUERN_CONTEXT");
  add("--namespace", ns, "namespace to watch, or all", "QUERN_NAMESPACE");
  app.add_flag("--leader-elect", options.leader_elect,
               "work only while holding the lease; for several replicas")
      ->envname("QUERN_LEADER_ELECT");
  add("--lease-namespace", options.lease_namespace, "namespace of the lease, and of the operator",
      "QUERN_LEASE_NAMESPACE");
  add("--lease-name", options.lease_name, "name of the lease", "QUERN_LEASE_NAME");
  add("--lease-duration", lease,
      "how long a lead lasts that nobody renews; two thirds of it after the last renewal, the lead "
      "is given up",
      "QUERN_LEASE_DURATION");
  add("--metrics-address", options.metrics_address, "where to serve /metrics",
      "QUERN_METRICS_ADDRESS");
  add("--health-address", options.health_address, "where to serve /health/live and /health/ready",
      "QUERN_HEALTH_ADDRESS");
  add("--serve-image", options.resources.serve_image,
      "image of quern-serve for endpoints that name none", "QUERN_SERVE_IMAGE");
  add("--serve-image-cuda", options.resources.serve_image_cuda,
      "image of quern-serve with CUDA, for endpoints with GPUs that name none; without it they are "
      "refused",
      "QUERN_SERVE_IMAGE_CUDA");
  add("--gpu-runtime-class", options.resources.gpu_runtime_class,
      "RuntimeClass of pods with GPUs, or none: where the nodes' default runtime gives GPUs",
      "QUERN_GPU_RUNTIME_CLASS");
  add("--allowed-image", options.resources.allowed_images,
      "images that endpoints may name in spec.runtime.image, or what such begin with; can be given "
      "several times; any image unless given",
      "QUERN_ALLOWED_IMAGE")
      ->allow_extra_args(false)
      ->delimiter(',');
  add("--allowed-model-volume", volume,
      "where file:// models may come from: hostPath:/dir@/models or pvc:CLAIM@/models",
      "QUERN_ALLOWED_MODEL_VOLUME");
  add("--cluster-domain", options.resources.cluster_domain,
      "domain of Services, for the endpoints' URLs", "QUERN_CLUSTER_DOMAIN");
  add("--workers", options.workers, "endpoints reconciled at the same time", "QUERN_WORKERS")
      ->check(CLI::Range(1, 64));
  add("--scrape-interval", interval, "time between two reads of the pods' metrics",
      "QUERN_SCRAPE_INTERVAL");
  add("--log-level", options.log_level, "trace, debug, info, warn or error", "QUERN_LOG_LEVEL");
  add("--log-format", options.log_format, "text or json; pods get the same", "QUERN_LOG_FORMAT");
  CLI::App* run = app.add_subcommand("run", "run the operator (also without this word)");
  run->fallthrough();
  // Its own options are read by SimulateCommand, before these.
  const CLI::App* simulate = app.add_subcommand(
      "simulate", "replay a trace against autoscalers; simulate --help tells more");
  CLI::App* version = app.add_subcommand("version", "print the version");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    // Help is success; everything else is a mistake of the caller's.
    return {std::nullopt, app.exit(error) == 0 ? 0 : 2};
  }
  if (simulate->parsed()) {
    std::fprintf(stderr, "quern-operator: simulate must be the first word\n");
    return {std::nullopt, 2};
  }
  if (version->parsed()) {
    std::printf("quern-operator %s\n", QUERN_VERSION);
    return {};
  }
  std::string wrong =
      ReadDuration("--scrape-interval", interval, 1s, 60s, &options.scrape_interval);
  if (wrong.empty())
    wrong = ReadDuration("--lease-duration", lease, 5s, 300s, &options.lease_duration);
  if (wrong.empty()) wrong = Finish(ns, volume, options);
  if (!wrong.empty()) {
    std::fprintf(stderr, "quern-operator: %s\n(quern-operator --help tells more)\n", wrong.c_str());
    return {std::nullopt, 2};
  }
  return {std::move(options), 0};
}

}  // namespace quern::control
