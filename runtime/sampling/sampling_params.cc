#include "runtime/sampling/sampling_params.h"

namespace quern {
namespace {

Status CheckPenalty(const char* name, float value) {
  if (value >= -2.0f && value <= 2.0f) return {};
  return MakeError(ErrorCode::kInvalidArgument, "{} is {}; it must be between -2 and 2", name,
                   value);
}

Status CheckBiases(const std::vector<TokenBias>& biases) {
  if (biases.size() > kMaxLogitBiases) {
    return MakeError(ErrorCode::kInvalidArgument, "logit_bias has {} entries; at most {} are taken",
                     biases.size(), kMaxLogitBiases);
  }
  for (const TokenBias& entry : biases) {
    if (entry.bias >= -100.0f && entry.bias <= 100.0f) continue;
    return MakeError(ErrorCode::kInvalidArgument,
                     "logit_bias of token {} is {}; it must be between -100 and 100", entry.token,
                     entry.bias);
  }
  return {};
}

}  // namespace

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
  if (!(params.typical_p > 0.0f && params.typical_p <= 1.0f)) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "typical_p is {}; it must be greater than 0 and at most 1", params.typical_p);
  }
  if (!(params.repetition_penalty > 0.0f && params.repetition_penalty <= 10.0f)) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "repetition_penalty is {}; it must be greater than 0 and at most 10",
                     params.repetition_penalty);
  }
  QUERN_TRY(CheckPenalty("frequency_penalty", params.frequency_penalty));
  QUERN_TRY(CheckPenalty("presence_penalty", params.presence_penalty));
  return CheckBiases(params.logit_bias);
}

}  // namespace quern
