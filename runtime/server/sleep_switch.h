#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <utility>
#include <variant>

#include "runtime/engine/engine.h"
#include "runtime/http/router.h"
#include "runtime/server/api_error.h"
#include "runtime/server/encode_pool.h"
#include "runtime/server/serving_state.h"

namespace quern::server {

// POST /sleep and POST /wake_up (vLLM's names), and GET /is_sleeping: an idle server that gives the
// memory of weights and KV cache back, and is there again without a new start. Asleep it is live
// and not ready. Both answer when it is so; they are carried out one after the other, on a thread
// of their own. The referenced state outlives this; this outlives the HTTP server's threads.
class SleepSwitch {
 public:
  // `wake`: loads the file of the model again, for EngineCore::Wake. `timeout`: how long /sleep
  // waits for requests to end.
  using Wake = std::function<Status(EngineCore& engine)>;
  SleepSwitch(ServingState& state, Wake wake, std::chrono::milliseconds timeout)
      : state_(state), wake_(std::move(wake)), timeout_(timeout) {}

  void AddRoutes(http::Router& router);
  // Whether a model is let go of or loaded right now, which this waits for when it is destroyed.
  bool busy() const { return busy_; }

 private:
  using Outcome = std::variant<const char*, ApiError>;  // "sleeping", "awake"
  Outcome Sleep();
  Outcome WakeUp();
  void Change(Outcome (SleepSwitch::*change)(), const http::ResponderPtr& responder);

  ServingState& state_;
  const Wake wake_;
  const std::chrono::milliseconds timeout_;
  std::atomic<bool> busy_{false};
  EncodePool worker_{1};  // last: its thread uses the others
};

}  // namespace quern::server
