// The controller rooms as processes of their own, for tests that pause, kill and restart things:
//   kube-tool inform NAMESPACE       prints "+name", "~name" or "-name" for each change of a
//   ConfigMap,
//                                    "synced" after the first list
//   kube-tool lead NAMESPACE NAME    prints "leading" when it holds the lease and "lost" or
//   "released" kube-tool get NAMESPACE NAME     prints "ok" or the error, once per line that it
//   reads from stdin
// Ends at SIGTERM.

#include <signal.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <iostream>
#include <thread>

#include "operator/controller/informer.h"
#include "operator/controller/leader_election.h"
#include "operator/kube/rest_client.h"
#include "runtime/base/log.h"

namespace {

using namespace quern;           // NOLINT: a main file
using namespace quern::control;  // NOLINT

const kube::ResourceType kConfigMaps{"", "v1", "ConfigMap", "configmaps", true};

void Say(const std::string& line) {
  std::puts(line.c_str());
  std::fflush(stdout);
}

int Inform(kube::Client& client, const std::string& ns, std::stop_token stop) {
  InformerOptions options;
  options.ns = ns;
  options.field_selector = "metadata.name!=kube-root-ca.crt";
  Informer informer(client, kConfigMaps, options);
  informer.AddListener([](const Change& change) {
    Say((!change.before ? "+" : !change.after ? "-" : "~") + kube::ObjectName(change.object()));
  });
  InformerState state;
  bool told = false;
  while (!stop.stop_requested()) {
    const InformerStep step = informer.Step(state, stop);
    state = step.next;
    if (informer.HasSynced() && !told) Say("synced");
    told = informer.HasSynced();
    if (!step.status) Say("! " + std::string(ErrorCodeName(step.status.error().code)));
    std::mutex mutex;
    std::condition_variable_any never;
    std::unique_lock lock(mutex);
    never.wait_for(lock, stop, step.wait, [] { return false; });
  }
  return 0;
}

int Lead(kube::Client& client, const std::string& ns, const std::string& identity,
         std::stop_token stop) {
  LeaderElectionOptions options;
  options.ns = ns;
  options.name = "lock";
  options.identity = identity;
  options.lease_duration = std::chrono::seconds(3);
  options.renew_deadline = std::chrono::seconds(2);
  options.retry_period = std::chrono::milliseconds(200);
  LeaderElector elector(client, options);
  const Status status = elector.Run(stop, [](std::stop_token lead) {
    Say("leading");
    std::mutex mutex;
    std::condition_variable_any never;
    std::unique_lock lock(mutex);
    never.wait(lock, lead, [] { return false; });
  });
  Say(status.ok() ? "released" : "lost");
  return status.ok() ? 0 : 1;
}

int Get(kube::Client& client, const std::string& ns, const std::string& name) {
  std::string line;
  while (std::getline(std::cin, line)) {
    const auto object = client.Get(kConfigMaps, ns, name);
    Say(object.ok()
            ? "ok"
            : std::string(ErrorCodeName(object.error().code)) + " " + object.error().message);
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  std::string kubeconfig, ns, name;
  CLI::App app("the controller rooms, to be tested from outside");
  app.add_option("--kubeconfig", kubeconfig)->required();
  CLI::App* inform = app.add_subcommand("inform");
  inform->add_option("namespace", ns)->required();
  CLI::App* lead = app.add_subcommand("lead");
  CLI::App* get = app.add_subcommand("get");
  for (CLI::App* command : {lead, get}) {
    command->add_option("namespace", ns)->required();
    command->add_option("name", name)->required();
  }
  app.require_subcommand(1);
  CLI11_PARSE(app, argc, argv);

  if (const Status log = InitLog("kube-tool", "info", "text"); !log)
    return 2;  // stderr: not the answers

  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);  // before any other thread starts
  const auto config = kube::ConfigFromKubeconfig(kubeconfig);
  auto client = config.ok() ? kube::MakeRestClient(*config) : config.error();
  if (!client) {
    std::fprintf(stderr, "%s\n", client.error().message.c_str());
    return 2;
  }
  std::stop_source stop;
  std::thread([&stop, signals] {
    int number = 0;
    sigwait(&signals, &number);
    stop.request_stop();
  }).detach();
  if (inform->parsed()) return Inform(**client, ns, stop.get_token());
  if (lead->parsed()) return Lead(**client, ns, name, stop.get_token());
  return Get(**client, ns, name);
}
