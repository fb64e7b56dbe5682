#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "runtime/engine/engine.h"
#include "runtime/engine/logprob_queue.h"
#include "runtime/engine/mask_worker.h"
#include "runtime/engine/text_stream.h"
#include "runtime/sampling/logit_adjuster.h"
#include "runtime/scheduler/sequence.h"

namespace quern {

// A request from Submit to its last delta. Belongs to the step loop.
struct ActiveRequest {
  ActiveRequest(GenerationRequest wanted, DeltaSink sink_, const Tokenizer& tokenizer)
      : sampling(std::move(wanted.sampling)),
        max_tokens(wanted.max_tokens),
        min_tokens(wanted.min_tokens),
        ignore_eos(wanted.ignore_eos),
        top_logprobs(wanted.top_logprobs),
        prompt_logprobs(wanted.prompt_logprobs),
        pooling(wanted.pooling),
        constraint(std::move(wanted.constraint)),
        tenant(std::move(wanted.tenant)),
        sink(std::move(sink_)),
        tokens(std::move(wanted.prompt)),
        text(tokenizer, wanted.stop, wanted.min_tokens) {
    const std::string& name = tenant ? tenant->name : sequence.tenant;
    // The length keeps a tenant from writing another one's name into its salt.
    sequence.salt = fmt::format("{}:{}{}", name.size(), name, wanted.cache_salt);
    sequence.priority = wanted.priority;
    if (tenant) {
      sequence.tenant = name;
      sequence.weight = tenant->weight;
      const int64_t sum = int64_t{tenant->priority} + wanted.priority;
      sequence.priority = static_cast<int32_t>(std::min<int64_t>(sum, INT32_MAX));
    }
    if (constraint) masks = std::make_shared<MaskJob>(constraint, name);
    // Of tokens from the prefix cache there is nothing to read.
    sequence.every_row = prompt_logprobs || pooling == Pooling::kMean;
    sequence.prompt_tokens = sequence.total_tokens = static_cast<int32_t>(tokens.size());
  }

  int32_t prompt_tokens() const { return sequence.prompt_tokens; }
  int32_t completion_tokens() const { return sequence.total_tokens - sequence.prompt_tokens; }

  RequestId id = 0;  // also its sequence's arrival
  SamplingParams sampling;
  int32_t max_tokens;
  int32_t min_tokens;
  bool ignore_eos;
  std::optional<int32_t> top_logprobs;
  std::optional<int32_t> prompt_logprobs;
  std::optional<Pooling> pooling;
  std::shared_ptr<Constraint> constraint;  // null: none
  std::shared_ptr<MaskJob> masks;          // of the constraint; null without
  uint64_t seed = 0;                       // the one asked for, or a random one
  std::shared_ptr<const Tenant> tenant;    // null: the nameless one
  DeltaSink sink;

  std::vector<TokenId> tokens;  // prompt and generated; sequence.total_tokens of them
  Sequence sequence;
  TextStream text;
  // Where the request asks for what it does, from its first token on: a table of its prompt's
  // tokens, which nobody pays for while the request waits.
  std::optional<LogitAdjuster> adjuster;
  LogprobQueue logprobs;  // stays empty unless top_logprobs
  int32_t prefilled_tokens =
      0;  // of the prompt, the most that were ever cached: recomputing counts once
  int32_t prompt_read = 0;    // its first tokens, of which PromptReader has seen what is wanted
  std::vector<float> pooled;  // their part of the embedding

  SteadyTime submitted;
  std::optional<SteadyTime> scheduled;                // in a step for the first time
  std::optional<SteadyTime> first_token, last_token;  // sampled
  bool corrupted = false;                             // the model gave logits that are no numbers
};

}  // namespace quern
