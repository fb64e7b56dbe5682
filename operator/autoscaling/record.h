#pragma once

#include <nlohmann/json.hpp>

#include "operator/autoscaling/decide.h"
#include "runtime/base/result.h"

namespace quern::control {

// One decision with everything that it was taken from, so that it can be taken again.
struct ScalingRecord {
  ScalingPolicy policy;
  ScalingObservation seen;
  ScalingState state;  // before
  Millis now = 0;
  ScalingDecisionResult decision;
};

// Numbers are written so that they read back as the same bits.
nlohmann::json ToJson(const ScalingRecord& record);

// Errors: kInvalidArgument, naming the member that is missing or of the wrong type. Never throws.
Result<ScalingRecord> RecordFromJson(const nlohmann::json& object);

}  // namespace quern::control
