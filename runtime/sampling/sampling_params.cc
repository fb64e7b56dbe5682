#include "runtime/sampling/sampling_params.h"

namespace quern {

// Written so that NaN, for which every comparison is false, is refused too.
Status ValidateSamplingParams(const SamplingParams& params) {
  if (!(params.temperature >= 0.0f && params.temperature <= 2.0f)) {
    return MakeError(ErrorCode::kInvalidArgument, "temperature is {}; it must be between 0 and 2",
                     params.temperature);
  }
  if (!(params.top_p > 0.0f && params.top_p <= 1.0f)) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "top_p is {}; it must be greater than 0 and at most 1", params.top_p);
  }
  if (params.top_k < 0) {
    return MakeError(ErrorCode::kInvalidArgument, "top_k is {}; it must be 0 (all tokens) or more",
                     params.top_k);
  }
  if (!(params.min_p >= 0.0f && params.min_p < 1.0f)) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "min_p is {}; it must be at least 0 and less than 1", params.min_p);
  }
  return {};
}

}  // namespace quern
