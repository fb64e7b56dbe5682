#include <fmt/format.h>

#include "runtime/server/encode.h"
#include "runtime/server/prepare.h"

namespace quern::server {
namespace {

ApiError TooLong(const std::string& param, int64_t tokens, int64_t context,
                 std::string_view how_many = "") {
  ApiError error;
  error.param = param;
  error.code = "context_length_exceeded";
  error.message = fmt::format(
      "'{}' has {}{} tokens; the model's context holds {}: shorten it, or send it in parts", param,
      how_many, tokens, context);
  return error;
}

ApiResult<std::vector<TokenId>> TokensOf(Prompt& input, const std::string& param,
                                         bool add_special_tokens, const LoadedModel& model) {
  const int64_t context = model.engine->max_context_tokens();
  std::vector<TokenId> tokens;
  if (auto* ready = std::get_if<std::vector<TokenId>>(&input)) {
    tokens = std::move(*ready);
  } else {
    const std::string& text = std::get<std::string>(input);
    // No token stands for more bytes than the vocabulary's longest.
    const int64_t at_least = static_cast<int64_t>(text.size()) / model.longest_token_bytes;
    if (at_least > context) return TooLong(param, at_least, context, "at least ");
    auto encoded =
        model.tokenizer->Encode(text, {.add_special = add_special_tokens, .parse_special = true});
    if (!encoded) return FromPrompt(encoded.error(), param);
    tokens = std::move(encoded).value();
  }
  if (std::ssize(tokens) > context) return TooLong(param, std::ssize(tokens), context);
  if (auto error = CheckTokens(param, tokens, model)) return std::move(*error);
  return tokens;
}

// The vectors of one answer are held until all of them are there.
std::optional<ApiError> AnswerTooLarge(const EmbeddingRequest& request, int64_t width) {
  constexpr int64_t kNumberBytes = 16;  // "-1.2345678e-05,"
  const int64_t each = request.base64 ? width * 16 / 3 : width * kNumberBytes;
  const int64_t most = std::max<int64_t>(1, kMaxAnswerBytes / each);
  if (std::ssize(request.inputs) <= most) return std::nullopt;
  return ApiError{400,
                  fmt::format("'input' has {} entries, whose vectors of {} numbers may take more "
                              "than the {} bytes that one answer may have: send at most {} at once"
                              "{}",
                              request.inputs.size(), width, kMaxAnswerBytes, most,
                              request.base64 ? "" : ", or ask for 'encoding_format': \"base64\""),
                  "invalid_request_error", "input", "invalid_value"};
}

}  // namespace

ApiResult<PreparedEmbeddings> PrepareEmbeddings(std::string_view body, const LoadedModel& model) {
  auto parsed = ParseEmbeddingRequest(body);
  if (auto* error = std::get_if<ApiError>(&parsed)) return std::move(*error);
  auto& request = std::get<EmbeddingRequest>(parsed);
  if (request.model != model.served_name) return ModelNotFound(request.model, model);
  const auto pooling = model.engine->pooling();
  if (!pooling) {
    return ApiError{400,
                    fmt::format("the model '{}' makes its embeddings in a way that this server has "
                                "not (its pooling_type is neither the mean nor the last token)",
                                model.served_name),
                    "invalid_request_error", "model", "unsupported_parameter"};
  }
  const int32_t width = model.engine->embedding_width();
  if (request.dimensions && *request.dimensions != width) {
    return ApiError{400,
                    fmt::format("'dimensions' is {}, but this model's vectors have {} numbers, and "
                                "it was not made to have them cut: leave 'dimensions' out",
                                *request.dimensions, width),
                    "invalid_request_error", "dimensions", "unsupported_parameter"};
  }
  if (auto error = AnswerTooLarge(request, width)) return std::move(*error);
  PreparedEmbeddings prepared{.requests = {}, .base64 = request.base64};
  for (size_t i = 0; i < request.inputs.size(); ++i) {
    const std::string param = request.is_list ? fmt::format("input[{}]", i) : "input";
    auto tokens = TokensOf(request.inputs[i], param, request.add_special_tokens, model);
    if (auto* error = std::get_if<ApiError>(&tokens)) return std::move(*error);
    GenerationRequest each;
    each.prompt = std::get<0>(std::move(tokens));
    each.max_tokens = 0;
    each.priority = request.priority;
    each.cache_salt = request.cache_salt;
    each.pooling = pooling;
    prepared.requests.push_back(std::move(each));
  }
  return prepared;
}

}  // namespace quern::server
