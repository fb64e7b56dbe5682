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
  int64_t kv_tokens = 0;  // of layers that see all; of the others what all sequences need
  // Of kv_bytes, that of layers with a window, where they have blocks of their own; and what they
  // are: 15 of 18 layers, 512 tokens.
  int64_t window_bytes = 0;
  int32_t window_layers = 0;
  int32_t layers = 0;
  int32_t window_tokens = 0;
  int64_t logit_bytes = 0;
  int64_t reserve_bytes = 0;  // kept for activations, connections and the allocator

  // "weights 236 MiB, KV 1.5 GiB = 98,304 tokens (6,144 blocks of 16), logits 32 MiB, reserve 256
  // MiB, context 8,192 tokens; 2.0 of 4.0 GiB (cgroup limit)"; of layers with windows what they
  // keep.
  std::string Describe(const ProcessMemory& memory) const;
};

// kInvalidArgument for options out of their range or beyond the model; kResourceExhausted when
// weights and the least useful KV cache do not fit, saying what is missing. Pure.
Result<MemoryPlan> PlanMemory(const ModelInfo& model, const EngineOptions& options,
                              const ProcessMemory& memory);

// Bytes of a KV cache of so many blocks (of layers that see all tokens).
int64_t KvMemoryFor(const ModelInfo& model, const EngineOptions& options, int64_t blocks);

// Why a sequence of max_context_tokens (0: the model's context) does not fit the KV cache that
// PlanMemory gives it, in words for the log; empty where it fits, or where the options are wrong.
std::string WhyContextDoesNotFit(const ModelInfo& model, const EngineOptions& options,
                                 const ProcessMemory& memory);

}  // namespace quern
