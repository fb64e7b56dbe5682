#include "runtime/server/reply.h"

#include <fmt/format.h>

#include <random>

#include "runtime/http/message.h"
#include "runtime/server/logprob_json.h"

namespace quern::server {
using nlohmann::json;

namespace {

json UsageJson(const Usage& usage) {
  return {{"prompt_tokens", usage.prompt_tokens},
          {"completion_tokens", usage.completion_tokens},
          {"total_tokens", usage.prompt_tokens + usage.completion_tokens},
          {"prompt_tokens_details", {{"cached_tokens", usage.cached_tokens}}}};
}

// The member of a message, with the comma before it; nothing where there are no calls.
std::string Calls(const std::vector<ToolCall>& calls) {
  std::string list;
  for (const ToolCall& call : calls) {
    list +=
        fmt::format(R"({}{{"id":{},"type":"function","function":{{"name":{},"arguments":{}}}}})",
                    list.empty() ? "" : ",", QuotedJson(call.id), QuotedJson(call.name),
                    QuotedJson(call.arguments));
  }
  return calls.empty() ? list : fmt::format(R"(,"tool_calls":[{}])", list);
}

}  // namespace

std::string_view FinishName(FinishReason reason, bool called) {
  switch (reason) {
    case FinishReason::kStop:
      return called ? "tool_calls" : "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kCancelled:
      return "cancelled";
    case FinishReason::kError:
      return "error";
  }
  return "error";
}

std::string NewId(std::string_view prefix) {
  // Unique, not secret: nothing is granted to who knows an id.
  thread_local std::mt19937_64 random{std::random_device{}()};
  return fmt::format("{}{:016x}{:08x}", prefix, random(), static_cast<uint32_t>(random()));
}

ReplyWriter::ReplyWriter(ReplyKind kind, std::string id, std::string model, int64_t created,
                         bool with_usage, const Tokenizer* tokens)
    : kind_(kind),
      id_(std::move(id)),
      model_(std::move(model)),
      created_(created),
      tokens_(tokens) {
  prefix_ = fmt::format(R"({{"id":{},"object":"{}","created":{},"model":{},)"
                        R"("system_fingerprint":"quern-{}","choices":[)",
                        QuotedJson(id_),
                        kind_ == ReplyKind::kChat ? "chat.completion.chunk" : "text_completion",
                        created_, QuotedJson(model_), QUERN_VERSION);
  suffix_ = with_usage ? R"(],"usage":null})" : "]}";
}

std::string ReplyWriter::Whole(const std::vector<FinishedChoice>& choices,
                               const Usage& usage) const {
  // Written as text: log-probabilities are many, and as JSON values ten times as large.
  std::string list;
  for (size_t i = 0; i < choices.size(); ++i) {
    const FinishedChoice& choice = choices[i];
    const bool called = !choice.calls.empty();
    const std::string text =
        called && choice.text.empty() ? std::string("null") : QuotedJson(choice.text);
    if (i > 0) list += ',';
    list += fmt::format(
        R"({{"index":{},{},"logprobs":{},"finish_reason":"{}"}})", i,
        kind_ == ReplyKind::kChat
            ? fmt::format(R"("message":{{"role":"assistant","content":{},"refusal":null{}}})", text,
                          Calls(choice.calls))
            : fmt::format(R"("text":{})", text),
        tokens_ ? Logprobs(choice.logprobs) : "null", FinishName(choice.finish, called));
  }
  return fmt::format(R"({{"id":{},"object":"{}","created":{},"model":{},)"
                     R"("system_fingerprint":"quern-{}","choices":[{}],"usage":{}}})",
                     QuotedJson(id_),
                     kind_ == ReplyKind::kChat ? "chat.completion" : "text_completion", created_,
                     QuotedJson(model_), QUERN_VERSION, list, UsageJson(usage).dump());
}

std::string ReplyWriter::Event(size_t choice, std::string_view payload, std::string_view finish,
                               std::string_view logprobs) const {
  return http::SseEvent(fmt::format(R"({}{{"index":{},{},"logprobs":{},"finish_reason":{}}}{})",
                                    prefix_, choice, payload, logprobs, finish, suffix_));
}

std::string ReplyWriter::Logprobs(std::span<const GeneratedLogprobs> logprobs) const {
  return kind_ == ReplyKind::kChat ? ChatLogprobs(logprobs, *tokens_)
                                   : CompletionLogprobs(logprobs, *tokens_);
}

std::string ReplyWriter::FirstEvent(size_t choice) const {
  if (kind_ != ReplyKind::kChat) return {};
  return Event(choice, R"("delta":{"role":"assistant","content":"","refusal":null})", "null");
}

std::string ReplyWriter::TextEvent(size_t choice, std::string_view text,
                                   std::span<const GeneratedLogprobs> logprobs) const {
  const std::string quoted = QuotedJson(text);
  return Event(choice,
               kind_ == ReplyKind::kChat ? fmt::format(R"("delta":{{"content":{}}})", quoted)
                                         : fmt::format(R"("text":{})", quoted),
               "null", logprobs.empty() ? "null" : Logprobs(logprobs));
}

std::string ReplyWriter::CallEvent(size_t choice, size_t index, std::string_view id,
                                   std::string_view name) const {
  return Event(choice,
               fmt::format(R"("delta":{{"tool_calls":[{{"index":{},"id":{},"type":"function",)"
                           R"("function":{{"name":{},"arguments":""}}}}]}})",
                           index, QuotedJson(id), QuotedJson(name)),
               "null");
}

std::string ReplyWriter::ArgumentsEvent(size_t choice, size_t index,
                                        std::string_view arguments) const {
  return Event(
      choice,
      fmt::format(R"("delta":{{"tool_calls":[{{"index":{},"function":{{"arguments":{}}}}}]}})",
                  index, QuotedJson(arguments)),
      "null");
}

std::string ReplyWriter::FinishEvent(size_t choice, FinishReason reason, bool called) const {
  return Event(choice, kind_ == ReplyKind::kChat ? R"("delta":{})" : R"("text":"")",
               fmt::format("\"{}\"", FinishName(reason, called)));
}

std::string ReplyWriter::UsageEvent(const Usage& usage) const {
  return http::SseEvent(fmt::format(R"({}],"usage":{}}})", prefix_, UsageJson(usage).dump()));
}

std::string ReplyWriter::DoneEvent() { return http::SseEvent("[DONE]"); }

}  // namespace quern::server
