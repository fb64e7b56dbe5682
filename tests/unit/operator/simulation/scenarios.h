#pragma once

#include <random>

#include "operator/simulation/simulate.h"

namespace quern::simulation {

// A small random scenario; most keep all parts of a replica busy: several chunks to a prompt, a
// full batch, a KV cache that runs out, prefixes that are shared.
inline Scenario RandomScenario(uint32_t seed, size_t requests = 60) {
  std::mt19937 random(seed);
  const auto real = [&](double low, double high) {
    return std::uniform_real_distribution<>(low, high)(random);
  };
  const auto whole = [&](int low, int high) {
    return std::uniform_int_distribution<>(low, high)(random);
  };
  Scenario out;
  ReplicaProfile& profile = out.profile;
  profile.times = {.base = real(0.001, 0.02),
                   .per_decode_sequence = real(0, 0.002),
                   .per_prefill_token = real(1e-5, 1e-3),
                   .per_attended_token = real(0, 1e-6),
                   .per_loaded_token = real(0, 1e-6)};
  profile.max_sequences = whole(1, 12);
  profile.max_batch_tokens = whole(profile.max_sequences, 256);
  profile.max_decode_slowdown = real(1, 4);
  profile.kv_tokens = whole(500, 6000);
  profile.dollars_per_hour = 1;
  double at = 0;
  const double rate = real(0.5, 20);
  for (size_t i = 0; i < requests; ++i) {
    bench::TraceRequest request;
    request.at = at;
    request.prompt_tokens = whole(1, 900);
    request.output_tokens = whole(1, 120);
    if (whole(0, 1) == 1) {
      for (int block = 0; block * bench::kTraceBlockTokens < request.prompt_tokens; ++block) {
        request.blocks.push_back(whole(0, 2) + 10 * block);
      }
    }
    out.load.push_back(request);
    at += whole(0, 4) == 0 ? 0 : std::exponential_distribution<>(rate)(random);
  }
  out.objective = {real(0.2, 3), real(0.01, 0.1)};
  out.limits.min_replicas = whole(1, 2);
  out.limits.max_replicas = out.limits.min_replicas + whole(0, 6);
  out.start_up = real(0, 30);
  out.seed = seed;
  return out;
}

}  // namespace quern::simulation
