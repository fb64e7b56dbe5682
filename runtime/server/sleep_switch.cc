#include "runtime/server/sleep_switch.h"

#include <fmt/format.h>
#include <malloc.h>
#include <spdlog/spdlog.h>

#include <exception>
#include <nlohmann/json.hpp>
#include <string>

#include "runtime/base/clock.h"
#include "runtime/engine/process_memory.h"
#include "runtime/server/units.h"

namespace quern::server {
namespace {

constexpr const char* kAsleep = "sleeping";
constexpr const char* kAwake = "awake";

http::Response JsonResponse(const nlohmann::json& body) {
  http::Response response;
  response.body = body.dump();
  return response;
}

double SecondsSince(SteadyTime start) { return Seconds(RealClock().Now() - start).count(); }

ApiError NotNow(const ServingState::View& view) {
  const bool loading = view.phase == ServingState::Phase::kLoading;
  return ApiError{503, view.reason, "server_error", "", loading ? "model_loading" : "draining", 1};
}

ApiError FromModel(const Error& error) {
  if (error.code == ErrorCode::kDeadlineExceeded || error.code == ErrorCode::kConflict) {
    return ApiError{409,
                    error.message,
                    "invalid_request_error",
                    "",
                    error.code == ErrorCode::kConflict ? "model_changed" : "busy",
                    1};
  }
  return ApiError{503, error.message, "server_error", "", "cannot_load", 1};
}

}  // namespace

void SleepSwitch::AddRoutes(http::Router& router) {
  router.Add("POST", "/sleep", "sleep", [this](http::Request, http::ResponderPtr responder) {
    Change(&SleepSwitch::Sleep, responder);
  });
  router.Add("POST", "/wake_up", "wake_up", [this](http::Request, http::ResponderPtr responder) {
    Change(&SleepSwitch::WakeUp, responder);
  });
  router.Add("GET", "/is_sleeping", "is_sleeping",
             [this](http::Request, http::ResponderPtr responder) {
               const bool sleeping = state_.Get().phase == ServingState::Phase::kSleeping;
               responder->Send(JsonResponse({{"is_sleeping", sleeping}}));
             });
}

// Who has left by the time that its turn comes is served all the same: it said what it wants.
void SleepSwitch::Change(Outcome (SleepSwitch::*change)(), const http::ResponderPtr& responder) {
  worker_.Run("", [this, change, responder] {
    busy_ = true;
    Outcome outcome = kAwake;
    try {
      outcome = (this->*change)();
    } catch (const std::exception& error) {  // for want of memory, most likely
      spdlog::error("cannot change between asleep and awake: {}", error.what());
      outcome = FromModel(MakeError(ErrorCode::kResourceExhausted, "{}", error.what()));
    }
    busy_ = false;
    responder->Post([responder, outcome = std::move(outcome)] {
      if (responder->Done()) return;
      if (const auto* error = std::get_if<ApiError>(&outcome)) {
        return responder->Send(ToResponse(*error));
      }
      responder->Send(JsonResponse({{"status", std::get<const char*>(outcome)}}));
    });
  });
}

SleepSwitch::Outcome SleepSwitch::Sleep() {
  const SteadyTime start = RealClock().Now();
  if (state_.Get().phase == ServingState::Phase::kSleeping) return kAsleep;
  if (!state_.SetSleeping()) return NotNow(state_.Get());
  const auto view = state_.Get();
  if (const Status status = view.model->engine->Sleep(timeout_); !status.ok()) {
    state_.SetAwake();
    spdlog::warn("does not go to sleep: {}", status.error().message);
    return FromModel(status.error());
  }
  malloc_trim(0);  // what the allocator keeps for itself
  spdlog::info("asleep after {:.2f} s: weights and KV cache are given back, {} are left in use",
               SecondsSince(start), ShowBytes(ReadProcessMemory().resident_bytes));
  return kAsleep;
}

SleepSwitch::Outcome SleepSwitch::WakeUp() {
  const SteadyTime start = RealClock().Now();
  const auto view = state_.Get();
  if (view.phase == ServingState::Phase::kReady) return kAwake;
  if (view.phase != ServingState::Phase::kSleeping) return NotNow(view);
  const Status status = wake_(*view.model->engine);
  if (!status.ok()) {
    spdlog::error("cannot wake up: {}", status.error().message);
    return FromModel(status.error());
  }
  state_.SetAwake();
  spdlog::info("awake after {:.2f} s", SecondsSince(start));
  return kAwake;
}

}  // namespace quern::server
