#pragma once

#include "runtime/backend/backend.h"
#include "runtime/base/result.h"

// What the kernels take of a model, asked before its weights are loaded rather than found out by a
// launch that is refused.
namespace quern {

// kUnsupported names the number and the limit.
Status CheckSizesForCuda(const ModelSizes& sizes, int ranks);

// kUnsupported where attention takes no heads of so many elements.
Status CheckHeadsForCuda(int head_dim);

// `tokens` of a step, `width` the widest activations of a feed-forward network. kUnsupported: they
// are more elements than one launch counts.
Status CheckStepForCuda(int64_t tokens, int64_t width);

}  // namespace quern
