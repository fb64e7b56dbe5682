#include "runtime/stop_signals.h"

#include <pthread.h>
#include <signal.h>  // NOLINT(modernize-deprecated-headers): sigwait
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <thread>
#include <utility>

namespace quern {

void WatchStopSignals(std::function<void()> first) {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  std::thread([signals, first = std::move(first)] {
    int signal = 0;
    sigwait(&signals, &signal);
    spdlog::info("{}: draining", signal == SIGTERM ? "SIGTERM" : "SIGINT");
    first();
    sigwait(&signals, &signal);
    spdlog::warn("second signal: exiting at once");
    _exit(1);
  }).detach();
}

}  // namespace quern
