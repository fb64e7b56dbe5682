#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/result.h"
#include "runtime/scheduler/step_time.h"

namespace quern::simulation {

// A kind of replica: how long its steps take, and its limits.
struct ReplicaProfile {
  std::string name;
  bool measured = false;  // else modelled
  std::string comment;    // how the coefficients came about
  StepTimeCoefficients times;
  // As quern-serve's options of these names.
  int32_t max_sequences = 32;
  int32_t max_batch_tokens = 512;
  double max_decode_slowdown = 2;
  int64_t kv_tokens = 1;  // how many tokens the KV cache holds
  double dollars_per_hour = 0;
};

// Reads a profile: {"name", "kind": "measured" or "modelled", "comment", "step_seconds": {"step",
// "decode_sequence", "prefill_token", "attended_token", "loaded_token"} (the terms of
// quern_step_time_fit_seconds), "max_sequences", "max_batch_tokens", "max_decode_slowdown",
// "kv_tokens", "dollars_per_hour"}. All are needed, and no others may be there. kInvalidArgument
// names the member that is wrong. Never throws.
Result<ReplicaProfile> ParseProfile(std::string_view json);

// Those that the program carries with it, by name.
struct BuiltinProfile {
  const char* name;
  const char* json;
};
const std::vector<BuiltinProfile>& BuiltinProfiles();

}  // namespace quern::simulation
