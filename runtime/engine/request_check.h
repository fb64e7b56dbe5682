#pragma once

#include "runtime/base/result.h"
#include "runtime/engine/engine.h"

namespace quern {

// Bounds of `stop`: a matcher looks at every byte of text once for each of them.
inline constexpr size_t kMaxStopStrings = 64;
inline constexpr size_t kMaxStopBytes = 4096;  // each

// Whether a request can run on a model with this vocabulary and context. kInvalidArgument names the
// field, its value and what would be right.
Status CheckRequest(const GenerationRequest& request, int32_t vocab_size, int32_t context_tokens);

}  // namespace quern
