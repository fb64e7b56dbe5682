#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "runtime/engine/engine.h"
#include "runtime/engine/text_stream.h"
#include "runtime/scheduler/sequence.h"

namespace quern {

// A request from Submit to its last delta. Belongs to the step loop.
struct ActiveRequest {
  ActiveRequest(GenerationRequest wanted, DeltaSink sink_, const Tokenizer& tokenizer)
      : sampling(wanted.sampling),
        max_tokens(wanted.max_tokens),
        ignore_eos(wanted.ignore_eos),
        constraint(std::move(wanted.constraint)),
        sink(std::move(sink_)),
        tokens(std::move(wanted.prompt)),
        text(tokenizer, wanted.stop) {
    sequence.prompt_tokens = sequence.total_tokens = static_cast<int32_t>(tokens.size());
  }

  int32_t prompt_tokens() const { return sequence.prompt_tokens; }
  int32_t completion_tokens() const { return sequence.total_tokens - sequence.prompt_tokens; }

  RequestId id = 0;  // also its sequence's arrival
  SamplingParams sampling;
  int32_t max_tokens;
  bool ignore_eos;
  std::shared_ptr<Constraint> constraint;  // null: none
  uint64_t seed = 0;                       // the one asked for, or a random one
  DeltaSink sink;

  std::vector<TokenId> tokens;  // prompt and generated; sequence.total_tokens of them
  Sequence sequence;
  TextStream text;
  int32_t prefilled_tokens =
      0;  // of the prompt, the most that were ever cached: recomputing counts once

  SteadyTime submitted;
  std::optional<SteadyTime> scheduled;   // in a step for the first time
  std::optional<SteadyTime> last_token;  // sampled
};

}  // namespace quern
