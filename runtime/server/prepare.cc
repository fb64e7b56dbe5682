#include "runtime/server/prepare.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <optional>

#include "runtime/server/echo.h"
#include "runtime/server/tool_prompt.h"

namespace quern::server {
using nlohmann::json;

namespace {

// What a client reads when its prompt, or prompt and answer, do not fit.
// `how_many`: "at least " where the prompt has not been encoded.
ApiError ContextExceeded(const std::string& param, int64_t context, int64_t prompt, int64_t wanted,
                         std::string_view how_many = "") {
  ApiError error;
  error.param = param;
  error.code = "context_length_exceeded";
  error.message =
      prompt >= context
          ? fmt::format(
                "the prompt has {}{} tokens; the model's context holds {}, of which the answer "
                "needs at least one: shorten the prompt",
                how_many, prompt, context)
          : fmt::format(
                "the prompt's {} tokens and the {} asked for make {}, more than the context of "
                "{}; ask for at most {} or shorten the prompt",
                prompt, wanted, prompt + wanted, context, context - prompt);
  return error;
}

// /tokenize and /detokenize take texts that are too long for the model, so that their length can be
// asked for, but not any length: an answer may be a hundred times as large as its question.
constexpr int64_t kTextContexts = 4;

// `how_many`: "at least " where the text has not been encoded.
std::optional<ApiError> TooManyTokens(std::string_view param, int64_t tokens,
                                      const LoadedModel& model, std::string_view how_many = "") {
  const int64_t limit = model.engine->max_context_tokens() * kTextContexts;
  if (tokens <= limit) return std::nullopt;
  ApiError error;
  error.param = param;
  error.code = "context_length_exceeded";
  error.message = fmt::format(
      "'{}' makes {}{} tokens; at most {} are taken in one call, {} times the model's context: "
      "send it in parts",
      param, how_many, tokens, limit, kTextContexts);
  return error;
}

// What the tokens are for, and so how many of them may be.
enum class Purpose { kGenerate, kCount };

ApiResult<std::vector<TokenId>> Encode(const std::string& text, EncodeOptions options,
                                       const std::string& param, const LoadedModel& model,
                                       Purpose purpose) {
  // No token stands for more bytes than the vocabulary's longest: a prompt that is certain to be
  // too long is refused before the work of encoding it.
  const int64_t context = model.engine->max_context_tokens();
  const int64_t at_least = static_cast<int64_t>(text.size()) / model.longest_token_bytes;
  if (purpose == Purpose::kCount) {
    if (auto error = TooManyTokens(param, at_least, model, "at least ")) return std::move(*error);
  } else if (at_least > context) {
    return ContextExceeded(param, context, at_least, 1, "at least ");
  }
  auto tokens = model.tokenizer->Encode(text, options);
  if (!tokens) return FromPrompt(tokens.error(), param);
  return std::move(tokens).value();
}

ApiResult<std::vector<TokenId>> EncodeChat(const Conversation& conversation,
                                           bool add_generation_prompt, const LoadedModel& model,
                                           Purpose purpose) {
  if (!model.chat_template) {
    ApiError error;
    error.param = "messages";
    error.code = "no_chat_template";
    error.message =
        fmt::format("the model '{}' cannot chat: {}. Use /v1/completions with a 'prompt'",
                    model.served_name, model.no_chat_reason);
    return error;
  }
  const nlohmann::ordered_json tools =
      conversation.tools ? conversation.tools->tools : nlohmann::ordered_json();
  const bool as_text =
      (conversation.tools || conversation.has_calls) && !model.chat_template->knows_tool_calls();
  auto text =
      as_text ? model.chat_template->Render(WriteToolsAsText(conversation.messages, tools), nullptr,
                                            add_generation_prompt)
              : model.chat_template->Render(conversation.messages, tools, add_generation_prompt);
  if (!text) {
    return FromPrompt(std::move(text).error().Within("the model's chat template"), "messages");
  }
  // The template writes the special tokens itself, BOS included.
  return Encode(*text, EncodeOptions{.add_special = false, .parse_special = true}, "messages",
                model, purpose);
}

std::optional<ApiError> BiasOutsideVocabulary(const SamplingParams& sampling, int vocab) {
  for (const TokenBias& entry : sampling.logit_bias) {
    if (entry.token < vocab) continue;
    return ApiError{400,
                    fmt::format("'logit_bias' names token {}, outside the model's vocabulary of {} "
                                "(0 to {})",
                                entry.token, vocab, vocab - 1),
                    "invalid_request_error", fmt::format("logit_bias.{}", entry.token),
                    "invalid_value"};
  }
  return std::nullopt;
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
  const int64_t most = params.stream
                           ? echo_bytes
                           : params.n * echo_bytes + tokens * AnswerBytesPerToken(params, model);
  if (most <= kMaxAnswerBytes) return std::nullopt;
  const char* param = params.top_logprobs ? "logprobs" : echo_bytes > 0 ? "echo" : "max_tokens";
  return ApiError{
      400,
      fmt::format("the answer may have {} tokens in its {} choices, which with all that they echo "
                  "and their log-probabilities may take {} bytes; at most {} are given in one "
                  "answer: ask for fewer tokens ('max_tokens'), choices ('n', prompts) or "
                  "alternatives{}",
                  tokens, prepared.requests.size(), most, kMaxAnswerBytes,
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

ApiResult<Prepared> Assemble(const GenerationParams& params, const char* prompt_param,
                             std::vector<std::vector<TokenId>> prompts, const LoadedModel& model) {
  const int64_t context = model.engine->max_context_tokens();
  const int vocab = model.tokenizer->vocab_size();
  Prepared prepared;
  prepared.answer = {.stream = params.stream,
                     .include_usage = params.include_usage,
                     .logprobs = params.top_logprobs.has_value(),
                     .choices_per_prompt = static_cast<size_t>(params.n)};
  if (auto error = BiasOutsideVocabulary(params.sampling, vocab)) return std::move(*error);
  std::shared_ptr<Constraint> constraint;
  if (params.structured) {
    auto compiled = Compile(*params.structured, model);
    if (auto* error = std::get_if<ApiError>(&compiled)) return std::move(*error);
    constraint = std::get<0>(std::move(compiled));
  }
  for (auto& tokens : prompts) {
    if (tokens.empty()) {
      return ApiError{
          400, fmt::format("'{}' is empty: the model needs at least one token", prompt_param),
          "invalid_request_error", prompt_param, "invalid_value"};
    }
    for (const TokenId token : tokens) {
      if (token < vocab) continue;
      return ApiError{400,
                      fmt::format("token id {} is outside the model's vocabulary of {} (0 to {})",
                                  token, vocab, vocab - 1),
                      "invalid_request_error", prompt_param, "invalid_value"};
    }
    const auto length = static_cast<int64_t>(tokens.size());
    int64_t wanted = params.max_tokens ? *params.max_tokens : context - length;
    // Who names no length gets no more than can be given in one answer.
    if (!params.max_tokens && !params.stream) {
      wanted = std::min(wanted, kMaxAnswerBytes / (AnswerBytesPerToken(params, model) * params.n));
    }
    if (length + std::max<int64_t>(wanted, 1) > context) {
      return ContextExceeded(prompt_param, context, length, wanted);
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

ApiResult<Prepared> PrepareChat(ChatRequest request, const LoadedModel& model) {
  if (request.params.model != model.served_name) return ModelNotFound(request.params.model, model);
  auto tokens =
      EncodeChat(request.conversation, request.add_generation_prompt, model, Purpose::kGenerate);
  if (auto* error = std::get_if<ApiError>(&tokens)) return std::move(*error);
  std::vector<std::vector<TokenId>> prompts;
  prompts.push_back(std::get<0>(std::move(tokens)));
  auto& tools = request.conversation.tools;
  auto prepared = Assemble(request.params, "messages", std::move(prompts), model);
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

ApiResult<Prepared> PrepareCompletion(CompletionRequest request, const LoadedModel& model) {
  if (request.params.model != model.served_name) return ModelNotFound(request.params.model, model);
  const EncodeOptions options{.add_special = request.add_special_tokens, .parse_special = true};
  std::vector<std::vector<TokenId>> prompts;
  for (Prompt& prompt : request.prompts) {
    if (auto* ready = std::get_if<std::vector<TokenId>>(&prompt)) {
      prompts.push_back(std::move(*ready));
      continue;
    }
    auto tokens =
        Encode(std::get<std::string>(prompt), options, "prompt", model, Purpose::kGenerate);
    if (auto* error = std::get_if<ApiError>(&tokens)) return std::move(*error);
    prompts.push_back(std::get<0>(std::move(tokens)));
  }
  auto prepared = Assemble(request.params, "prompt", std::move(prompts), model);
  auto* ready = std::get_if<Prepared>(&prepared);
  if (!ready || !request.echo) return prepared;
  if (auto error = AddEchoes(request, model, *ready)) return std::move(*error);
  return prepared;
}

// Nothing: it asks for a format, which may not be compiled here.
template <typename T>
std::optional<ApiResult<Prepared>> ParseAndPrepare(
    std::string_view body, ApiResult<T> (*parse)(std::string_view body),
    ApiResult<Prepared> (*prepare)(T request, const LoadedModel& model), const LoadedModel& model,
    bool may_compile) {
  auto parsed = parse(body);
  if (auto* error = std::get_if<ApiError>(&parsed)) return std::move(*error);
  auto& request = std::get<T>(parsed);
  if (request.params.structured && !may_compile) return std::nullopt;
  return prepare(std::move(request), model);
}

std::optional<ApiResult<Prepared>> Prepare(ReplyKind kind, std::string_view body,
                                           const LoadedModel& model, bool may_compile) {
  if (kind == ReplyKind::kChat) {
    return ParseAndPrepare(body, ParseChatRequest, PrepareChat, model, may_compile);
  }
  return ParseAndPrepare(body, ParseCompletionRequest, PrepareCompletion, model, may_compile);
}

}  // namespace

ApiError ModelNotFound(std::string_view asked, const LoadedModel& model) {
  return ApiError{404,
                  fmt::format("the model '{}' does not exist here; this server has '{}'",
                              asked.substr(0, 200), model.served_name),
                  "invalid_request_error", "model", "model_not_found"};
}

ApiResult<Prepared> Prepare(ReplyKind kind, std::string_view body, const LoadedModel& model) {
  return *Prepare(kind, body, model, /*may_compile=*/true);
}

std::optional<ApiResult<Prepared>> PrepareAtOnce(ReplyKind kind, std::string_view body,
                                                 const LoadedModel& model) {
  return Prepare(kind, body, model, /*may_compile=*/false);
}

ApiResult<std::string> Tokenize(std::string_view body, const LoadedModel& model) {
  auto parsed = ParseTokenizeRequest(body);
  if (auto* error = std::get_if<ApiError>(&parsed)) return std::move(*error);
  const auto& request = std::get<TokenizeRequest>(parsed);
  if (!request.model.empty() && request.model != model.served_name) {
    return ModelNotFound(request.model, model);
  }
  const auto* text = std::get_if<std::string>(&request.input);
  auto encoded =
      text ? Encode(*text, {.add_special = request.add_special_tokens, .parse_special = true},
                    "prompt", model, Purpose::kCount)
           : EncodeChat(std::get<Conversation>(request.input), request.add_generation_prompt, model,
                        Purpose::kCount);
  if (auto* error = std::get_if<ApiError>(&encoded)) return std::move(*error);
  const auto& tokens = std::get<std::vector<TokenId>>(encoded);
  if (auto error = TooManyTokens(text ? "prompt" : "messages", std::ssize(tokens), model)) {
    return std::move(*error);
  }
  json reply = {{"count", tokens.size()},
                {"max_model_len", model.engine->max_context_tokens()},
                {"tokens", tokens},
                {"token_strs", nullptr}};
  if (request.return_token_strs) {
    json strings = json::array();
    for (const TokenId token : tokens) {
      strings.push_back(model.tokenizer->TokenBytes(token, /*render_special=*/true));
    }
    reply["token_strs"] = std::move(strings);
  }
  return reply.dump(-1, ' ', false, json::error_handler_t::replace);
}

ApiResult<std::string> Detokenize(std::string_view body, const LoadedModel& model) {
  auto parsed = ParseDetokenizeRequest(body);
  if (auto* error = std::get_if<ApiError>(&parsed)) return std::move(*error);
  const auto& request = std::get<DetokenizeRequest>(parsed);
  if (!request.model.empty() && request.model != model.served_name) {
    return ModelNotFound(request.model, model);
  }
  if (auto error = TooManyTokens("tokens", std::ssize(request.tokens), model)) {
    return std::move(*error);
  }
  const int vocab = model.tokenizer->vocab_size();
  for (size_t i = 0; i < request.tokens.size(); ++i) {
    if (request.tokens[i] < vocab) continue;
    const std::string param = fmt::format("tokens[{}]", i);
    return ApiError{400,
                    fmt::format("'{}' is {}, outside the model's vocabulary of {} (0 to {})", param,
                                request.tokens[i], vocab, vocab - 1),
                    "invalid_request_error", param, "invalid_value"};
  }
  const json reply = {{"prompt", model.tokenizer->Decode(request.tokens, /*render_special=*/true)}};
  return reply.dump(-1, ' ', false, json::error_handler_t::replace);
}

}  // namespace quern::server
