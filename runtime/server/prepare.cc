#include "runtime/server/prepare.h"

#include <fmt/format.h>

#include <ctime>
#include <nlohmann/json.hpp>
#include <optional>

#include "runtime/server/echo.h"
#include "runtime/server/encode.h"
#include "runtime/server/fields.h"
#include "runtime/server/responses/response_request.h"
#include "runtime/server/responses/response_writer.h"

namespace quern::server {
namespace {

std::optional<ApiError> BiasOutsideVocabulary(const SamplingParams& sampling, int vocab) {
  for (const TokenBias& entry : sampling.logit_bias) {
    if (entry.token < vocab) continue;
    return ApiError{400,
                    fmt::format("'logit_bias' names token {}, outside the model's vocabulary of {} "
                                "(0 to {})",
                                entry.token, vocab, vocab - 1),
                    "invalid_request_error", MemberPath("logit_bias", std::to_string(entry.token)),
                    "invalid_value"};
  }
  return std::nullopt;
}

// Whether all of the answer is kept until its end.
bool IsHeld(const GenerationParams& params) { return !params.stream || params.stream_repeats; }

// A stream whose last events repeat the answer thrice holds all of that until its client has read
// it.
int64_t MostBytes(const GenerationParams& params) {
  return params.stream && params.stream_repeats ? kMaxAnswerBytes / 8 : kMaxAnswerBytes;
}

// The most that one token adds to an answer that is sent whole.
int64_t AnswerBytesPerToken(const GenerationParams& params, const LoadedModel& model) {
  const TokenSizes& sizes = model.token_sizes;
  if (!params.top_logprobs) return sizes.text;
  // Its own entry, which names it twice in a completion, and those of the alternatives.
  return sizes.text + (*params.top_logprobs + 2) * sizes.logprob;
}

// Whether an answer of `prepared`, whose prompts echo `echo_bytes` in all, may become larger than
// what is held of one.
std::optional<ApiError> AnswerTooLarge(const GenerationParams& params, int64_t echo_bytes,
                                       const Prepared& prepared, const LoadedModel& model) {
  int64_t tokens = 0;
  for (const auto& request : prepared.requests) {
    tokens += request.max_tokens;
    if (request.prompt_logprobs) tokens += std::ssize(request.prompt);
  }
  const int64_t most = !IsHeld(params)
                           ? echo_bytes
                           : params.n * echo_bytes + tokens * AnswerBytesPerToken(params, model);
  if (most <= MostBytes(params)) return std::nullopt;
  const char* param = params.top_logprobs ? params.logprobs_name
                      : echo_bytes > 0    ? "echo"
                                          : params.max_tokens_name;
  return ApiError{
      400,
      params.stream_repeats
          ? fmt::format(
                "the answer may have {} tokens, which with their log-probabilities may take "
                "{} bytes; at most {} are given in one answer: ask for fewer tokens ('{}') "
                "or alternatives",
                tokens, most, MostBytes(params), params.max_tokens_name)
          : fmt::format(
                "the answer may have {} tokens in its {} choices, which with all that they echo "
                "and their log-probabilities may take {} bytes; at most {} are given in one "
                "answer: ask for fewer tokens ('{}'), choices ('n', prompts) or alternatives{}",
                tokens, prepared.requests.size(), most, MostBytes(params), params.max_tokens_name,
                params.stream ? "" : ", or for a stream"),
      "invalid_request_error", param, "invalid_value"};
}

// Choice 0 has the request's own seed. The finaliser of SplitMix64 (Steele, Lea and Flood 2014)
// makes the others' far from each other and from the seeds that people choose.
uint64_t SeedOfChoice(uint64_t seed, int32_t choice) {
  uint64_t x = seed + 0x9E3779B97F4A7C15 * static_cast<uint64_t>(choice);
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EB;
  return x ^ (x >> 31);
}

// A constraint at its start, from the model's compiler, or the error about the parameter.
ApiResult<std::shared_ptr<Constraint>> Compile(const StructuredOutput& wanted,
                                               const LoadedModel& model) {
  auto compiler = model.constraints.Get(*model.tokenizer);
  if (!compiler) {
    return ApiError{400,
                    fmt::format("the model '{}' cannot keep to a format: {}", model.served_name,
                                compiler.error().message),
                    "invalid_request_error", wanted.param, "unsupported_parameter"};
  }
  auto constraint = (*compiler)->Compile(wanted.spec);
  if (!constraint) {
    return ApiError{400, constraint.error().message, "invalid_request_error", wanted.param,
                    "invalid_value"};
  }
  return std::shared_ptr<Constraint>(std::move(constraint).value());
}

// The place of a prompt: of a list its element.
std::string PromptPath(const char* param, bool is_list, size_t index) {
  return is_list ? fmt::format("{}[{}]", param, index) : param;
}

ApiResult<Prepared> Assemble(const GenerationParams& params, const char* prompt_param, bool is_list,
                             std::vector<std::vector<TokenId>> prompts, const LoadedModel& model) {
  const int64_t context = model.engine->max_context_tokens();
  const int vocab = model.tokenizer->vocab_size();
  Prepared prepared;
  prepared.answer = {.stream = params.stream, .choices_per_prompt = static_cast<size_t>(params.n)};
  if (auto error = BiasOutsideVocabulary(params.sampling, vocab)) return std::move(*error);
  std::shared_ptr<Constraint> constraint;
  if (params.structured) {
    auto compiled = Compile(*params.structured, model);
    if (auto* error = std::get_if<ApiError>(&compiled)) return std::move(*error);
    constraint = std::get<0>(std::move(compiled));
  }
  for (size_t index = 0; index < prompts.size(); ++index) {
    std::vector<TokenId>& tokens = prompts[index];
    const std::string path = PromptPath(prompt_param, is_list, index);
    if (auto error = CheckTokens(path, tokens, model)) return std::move(*error);
    const auto length = static_cast<int64_t>(tokens.size());
    int64_t wanted = params.max_tokens ? *params.max_tokens : context - length;
    // Who names no length gets no more than can be given in one answer.
    if (!params.max_tokens && IsHeld(params)) {
      wanted =
          std::min(wanted, MostBytes(params) / (AnswerBytesPerToken(params, model) * params.n));
    }
    const bool only_scored = params.max_tokens == 0;
    if (length + std::max<int64_t>(wanted, only_scored ? 0 : 1) > context) {
      return ContextExceeded(path, context, length, wanted);
    }
    if (params.min_tokens > wanted) {
      return ApiError{400,
                      fmt::format("'min_tokens' is {}, more than the {} tokens that the answer may "
                                  "have",
                                  params.min_tokens, wanted),
                      "invalid_request_error", "min_tokens", "invalid_value"};
    }
    GenerationRequest request;
    request.prompt = std::move(tokens);
    request.sampling = params.sampling;
    request.max_tokens = static_cast<int32_t>(wanted);
    request.stop = params.stop;
    request.ignore_eos = params.ignore_eos;
    request.priority = params.priority;
    request.cache_salt = params.cache_salt;
    request.min_tokens = params.min_tokens;
    request.top_logprobs = params.top_logprobs;
    if (constraint) request.constraint = constraint->Clone();
    for (int32_t i = 1; i < params.n; ++i) {
      prepared.requests.push_back(request);
      if (constraint) request.constraint = constraint->Clone();
      auto& seed = request.sampling.seed;
      if (seed) seed = SeedOfChoice(*params.sampling.seed, i);
    }
    prepared.requests.push_back(std::move(request));
  }
  if (auto error = AnswerTooLarge(params, 0, prepared, model)) return std::move(*error);
  return prepared;
}

ReplyOptions ReplyOptionsOf(const GenerationParams& params, const LoadedModel& model) {
  return {.model = model.served_name,
          .created = std::time(nullptr),
          .tokens = params.top_logprobs ? model.tokenizer.get() : nullptr};
}

// `param`: where the conversation came from. The writer is still to be made.
ApiResult<Prepared> AssembleChat(ChatRequest& request, const char* param,
                                 const LoadedModel& model) {
  if (request.params.model != model.served_name) return ModelNotFound(request.params.model, model);
  auto tokens = EncodeChat(request.conversation, request.add_generation_prompt, param, model,
                           Purpose::kGenerate);
  if (auto* error = std::get_if<ApiError>(&tokens)) return std::move(*error);
  std::vector<std::vector<TokenId>> prompts;
  prompts.push_back(std::get<0>(std::move(tokens)));
  auto& tools = request.conversation.tools;
  auto prepared = Assemble(request.params, param, false, std::move(prompts), model);
  if (auto* ready = std::get_if<Prepared>(&prepared); ready && tools) {
    ready->answer.tools = {std::move(tools->names), tools->parallel};
  }
  return prepared;
}

// What each prompt's choices begin with, and the log-probabilities of its tokens if those of the
// answer are wanted. Takes the prompts' texts.
std::optional<ApiError> AddEchoes(CompletionRequest& request, const LoadedModel& model,
                                  Prepared& prepared) {
  AnswerOptions& answer = prepared.answer;
  for (GenerationRequest& each : prepared.requests) {
    each.prompt_logprobs = request.params.top_logprobs;
  }
  int64_t bytes = 0;
  for (size_t i = 0; i < request.prompts.size(); ++i) {
    auto* text = std::get_if<std::string>(&request.prompts[i]);
    const auto& tokens = prepared.requests[i * answer.choices_per_prompt].prompt;
    answer.echo.push_back(MakeEcho(tokens, text ? std::optional(std::move(*text)) : std::nullopt,
                                   request.params.top_logprobs.has_value(), *model.tokenizer));
    bytes += QuotedBytes(answer.echo.back().text);
    // At each: token ids of two bytes in the body may stand for a hundred in the answer.
    if (auto error = AnswerTooLarge(request.params, bytes, prepared, model)) return error;
  }
  return std::nullopt;
}

ApiResult<Prepared> PrepareParsed(ChatRequest request, const LoadedModel& model) {
  auto prepared = AssembleChat(request, "messages", model);
  if (auto* ready = std::get_if<Prepared>(&prepared)) {
    ready->writer =
        MakeChatWriter(ReplyOptionsOf(request.params, model), request.params.include_usage);
  }
  return prepared;
}

ApiResult<Prepared> PrepareParsed(ResponseRequest request, const LoadedModel& model) {
  auto prepared = AssembleChat(request, "input", model);
  if (auto* ready = std::get_if<Prepared>(&prepared)) {
    ready->writer =
        MakeResponseWriter(ReplyOptionsOf(request.params, model), std::move(request.repeated));
  }
  return prepared;
}

ApiResult<Prepared> PrepareParsed(CompletionRequest request, const LoadedModel& model) {
  if (request.params.model != model.served_name) return ModelNotFound(request.params.model, model);
  const EncodeOptions options{.add_special = request.add_special_tokens, .parse_special = true};
  std::vector<std::vector<TokenId>> prompts;
  for (size_t i = 0; i < request.prompts.size(); ++i) {
    Prompt& prompt = request.prompts[i];
    if (auto* ready = std::get_if<std::vector<TokenId>>(&prompt)) {
      prompts.push_back(std::move(*ready));
      continue;
    }
    auto tokens = Encode(std::get<std::string>(prompt), options,
                         PromptPath("prompt", request.is_list, i), model, Purpose::kGenerate);
    if (auto* error = std::get_if<ApiError>(&tokens)) return std::move(*error);
    prompts.push_back(std::get<0>(std::move(tokens)));
  }
  auto prepared = Assemble(request.params, "prompt", request.is_list, std::move(prompts), model);
  auto* ready = std::get_if<Prepared>(&prepared);
  if (!ready) return prepared;
  ready->writer =
      MakeCompletionWriter(ReplyOptionsOf(request.params, model), request.params.include_usage);
  if (!request.echo) return prepared;
  if (auto error = AddEchoes(request, model, *ready)) return std::move(*error);
  return prepared;
}

template <typename T>
Preparing PrepareIf(ApiResult<T> parsed, const LoadedModel& model, Compiling compiling) {
  if (auto* error = std::get_if<ApiError>(&parsed)) return std::move(*error);
  auto& request = std::get<T>(parsed);
  if (request.params.structured && compiling == Compiling::kLater) return std::nullopt;
  return PrepareParsed(std::move(request), model);
}

}  // namespace

Preparing PrepareCompletion(std::string_view body, const LoadedModel& model, Compiling compiling) {
  return PrepareIf(ParseCompletionRequest(body), model, compiling);
}

Preparing PrepareChat(std::string_view body, const LoadedModel& model, Compiling compiling) {
  return PrepareIf(ParseChatRequest(body), model, compiling);
}

Preparing PrepareResponse(std::string_view body, const LoadedModel& model, Compiling compiling) {
  return PrepareIf(ParseResponseRequest(body), model, compiling);
}

}  // namespace quern::server
