#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/server/api_error.h"
#include "runtime/server/request.h"
#include "runtime/server/serving_state.h"

namespace quern::server {

// From text to a model's tokens, and what a client reads where there are too many. `param`: the
// parameter that the text came from. Any thread.

// What the tokens are for, and so how many of them may be.
enum class Purpose { kGenerate, kCount };

ApiResult<std::vector<TokenId>> Encode(const std::string& text, EncodeOptions options,
                                       const std::string& param, const LoadedModel& model,
                                       Purpose purpose);
// The same of a conversation, through the model's chat template.
ApiResult<std::vector<TokenId>> EncodeChat(const Conversation& conversation,
                                           bool add_generation_prompt, const std::string& param,
                                           const LoadedModel& model, Purpose purpose);

// Of `tokens`, the prompt or input that `param` names: there are none, or one is not in the
// vocabulary.
std::optional<ApiError> CheckTokens(const std::string& param, const std::vector<TokenId>& tokens,
                                    const LoadedModel& model);
// A prompt, or prompt and answer, do not fit the context. `how_many`: "at least " where the prompt
// has not been encoded.
ApiError ContextExceeded(const std::string& param, int64_t context, int64_t prompt, int64_t wanted,
                         std::string_view how_many = "");
// More than are counted in one call, or nothing.
std::optional<ApiError> TooManyTokens(std::string_view param, int64_t tokens,
                                      const LoadedModel& model, std::string_view how_many = "");

// 404 model_not_found, naming what is served.
ApiError ModelNotFound(std::string_view asked, const LoadedModel& model);

}  // namespace quern::server
