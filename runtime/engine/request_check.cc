#include "runtime/engine/request_check.h"

namespace quern {
namespace {

Status CheckStops(const std::vector<std::string>& stops) {
  if (stops.size() > kMaxStopStrings) {
    return MakeError(ErrorCode::kInvalidArgument, "there are {} stop strings; at most {} are taken",
                     stops.size(), kMaxStopStrings);
  }
  for (const std::string& stop : stops) {
    if (stop.empty()) return MakeError(ErrorCode::kInvalidArgument, "a stop string is empty");
    if (stop.size() > kMaxStopBytes) {
      return MakeError(ErrorCode::kInvalidArgument,
                       "a stop string has {} bytes; at most {} are taken", stop.size(),
                       kMaxStopBytes);
    }
    // Text is cut only where a stop string may begin: this keeps every piece valid UTF-8.
    if ((static_cast<unsigned char>(stop[0]) & 0xC0) == 0x80) {
      return MakeError(ErrorCode::kInvalidArgument,
                       "a stop string begins inside a UTF-8 character (byte 0x{:02X})",
                       static_cast<unsigned char>(stop[0]));
    }
  }
  return {};
}

}  // namespace

Status CheckRequest(const GenerationRequest& request, int32_t vocab_size, int32_t context_tokens) {
  if (request.prompt.empty()) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "the prompt has no tokens; it needs at least one");
  }
  if (request.max_tokens < 0) {
    return MakeError(ErrorCode::kInvalidArgument, "max_tokens is {}; it must be at least 0",
                     request.max_tokens);
  }
  if (request.min_tokens < 0 || request.min_tokens > request.max_tokens) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "min_tokens is {}; it must be between 0 and max_tokens, which is {}",
                     request.min_tokens, request.max_tokens);
  }
  for (const auto& wanted : {request.top_logprobs, request.prompt_logprobs}) {
    if (!wanted || (*wanted >= 0 && *wanted <= kMaxTopLogprobs)) continue;
    return MakeError(ErrorCode::kInvalidArgument, "{} is {}; it must be between 0 and {}",
                     request.top_logprobs == wanted ? "top_logprobs" : "prompt_logprobs", *wanted,
                     kMaxTopLogprobs);
  }
  const auto prompt = static_cast<int64_t>(request.prompt.size());
  const int64_t total = prompt + request.max_tokens;
  if (total > context_tokens) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "the prompt has {} tokens and max_tokens is {}: together {}, which is {} more "
                     "than the context of {} tokens",
                     prompt, request.max_tokens, total, total - context_tokens, context_tokens);
  }
  for (size_t i = 0; i < request.prompt.size(); ++i) {
    if (request.prompt[i] < 0 || request.prompt[i] >= vocab_size) {
      return MakeError(ErrorCode::kInvalidArgument,
                       "token {} of the prompt has id {}; the vocabulary has ids 0 to {}", i,
                       request.prompt[i], vocab_size - 1);
    }
  }
  if (request.priority < 0) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "the priority is {}; a request's may be 0 or more, which is later",
                     request.priority);
  }
  if (request.tenant != nullptr && !(request.tenant->weight > 0)) {
    return MakeError(ErrorCode::kInvalidArgument, "tenant '{}' has weight {}; it must be above 0",
                     request.tenant->name, request.tenant->weight);
  }
  for (const TokenBias& entry : request.sampling.logit_bias) {
    if (entry.token < 0 || entry.token >= vocab_size) {
      return MakeError(ErrorCode::kInvalidArgument,
                       "logit_bias names token {}; the vocabulary has ids 0 to {}", entry.token,
                       vocab_size - 1);
    }
  }
  QUERN_TRY(CheckStops(request.stop));
  return ValidateSamplingParams(request.sampling);
}

}  // namespace quern
