#pragma once

#include <cstdint>
#include <string>

#include "runtime/base/result.h"
#include "runtime/engine/engine.h"
#include "runtime/engine/process_memory.h"

namespace quern {

// Where the engine's memory will go, decided before anything is allocated.
struct MemoryPlan {
  KvLayout layout;
  int32_t context_tokens = 0;  // longest sequence: prompt and completion
  int64_t weight_bytes = 0;
  int64_t kv_bytes = 0;
  int64_t kv_tokens = 0;
  int64_t logit_bytes = 0;
  int64_t reserve_bytes = 0;  // kept for activations, connections and the allocator

  // "weights 236 MiB, KV 1.5 GiB = 98,304 tokens, logits 32 MiB, reserve 256 MiB: 2.0 of 4.0 GiB
  // (cgroup limit)"
  std::string Describe(const ProcessMemory& memory) const;
};

// kInvalidArgument for options out of their range or beyond the model; kResourceExhausted when
// weights and the least useful KV cache do not fit, saying what is missing. Pure.
Result<MemoryPlan> PlanMemory(const ModelInfo& model, const EngineOptions& options,
                              const ProcessMemory& memory);

// Why a sequence of max_context_tokens (0: the model's context) does not fit the KV cache that
// PlanMemory gives it, in words for the log; empty where it fits, or where the options are wrong.
std::string WhyContextDoesNotFit(const ModelInfo& model, const EngineOptions& options,
                                 const ProcessMemory& memory);

}  // namespace quern
