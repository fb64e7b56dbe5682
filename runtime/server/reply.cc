#include "runtime/server/reply.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <random>

#include "runtime/http/message.h"
#include "runtime/server/logprob_json.h"

namespace quern::server {
using nlohmann::json;

namespace {

std::string UsageJson(const Usage& usage) {
  return json{{"prompt_tokens", usage.prompt_tokens},
              {"completion_tokens", usage.completion_tokens},
              {"total_tokens", usage.prompt_tokens + usage.completion_tokens},
              {"prompt_tokens_details", {{"cached_tokens", usage.cached_tokens}}}}
      .dump();
}

// OpenAI has no word for the others, which never reach a finished answer.
std::string_view FinishName(FinishReason reason, bool called) {
  switch (reason) {
    case FinishReason::kStop:
      return called ? "tool_calls" : "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kCancelled:
      return "cancelled";
    case FinishReason::kFormat:
    case FinishReason::kError:
      return "error";
  }
  return "error";
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

// An answer that is a list of choices. What does not change from event to event is written once.
class ChoicesWriter : public ReplyWriter {
 public:
  ChoicesWriter(std::string id, ReplyOptions options, bool with_usage,
                std::string_view whole_object, std::string_view chunk_object)
      : ReplyWriter(std::move(id)),
        options_(std::move(options)),
        with_usage_(with_usage),
        whole_prefix_(Prefix(whole_object)),
        prefix_(Prefix(chunk_object)),
        suffix_(with_usage ? R"(],"usage":null})" : "]}") {}

  std::string Whole(const std::vector<FinishedChoice>& choices, const Usage& usage) override {
    // Written as text: log-probabilities are many, and as JSON values ten times as large.
    std::string list;
    for (size_t i = 0; i < choices.size(); ++i) {
      const FinishedChoice& choice = choices[i];
      list += fmt::format(R"({}{{"index":{},{},"logprobs":{},"finish_reason":"{}"}})",
                          i > 0 ? "," : "", i, Content(choice),
                          options_.tokens ? Logprobs(choice.logprobs, *options_.tokens) : "null",
                          FinishName(choice.finish, !choice.calls.empty()));
    }
    return fmt::format(R"({}{}],"usage":{}}})", whole_prefix_, list, UsageJson(usage));
  }

  std::string TextEvent(size_t choice, std::string_view text,
                        std::span<const GeneratedLogprobs> logprobs) override {
    return Event(choice, Delta(QuotedJson(text)), "null",
                 logprobs.empty() ? "null" : Logprobs(logprobs, *options_.tokens));
  }
  std::string CallEvent(size_t choice, size_t index, std::string_view id,
                        std::string_view name) override {
    return Event(choice,
                 fmt::format(R"("delta":{{"tool_calls":[{{"index":{},"id":{},"type":"function",)"
                             R"("function":{{"name":{},"arguments":""}}}}]}})",
                             index, QuotedJson(id), QuotedJson(name)),
                 "null");
  }
  std::string ArgumentsEvent(size_t choice, size_t index, std::string_view arguments) override {
    return Event(
        choice,
        fmt::format(R"("delta":{{"tool_calls":[{{"index":{},"function":{{"arguments":{}}}}}]}})",
                    index, QuotedJson(arguments)),
        "null");
  }
  std::string FinishEvent(size_t choice, FinishReason reason, bool called) override {
    return Event(choice, NoDelta(), fmt::format("\"{}\"", FinishName(reason, called)));
  }
  std::string End(const Usage& usage) override {
    std::string events;
    if (with_usage_) {
      events = http::SseEvent(fmt::format(R"({}],"usage":{}}})", prefix_, UsageJson(usage)));
    }
    return events + Done();
  }
  // Clients look for an "error" member in the events.
  std::string Failed(const ApiError& error, const Usage&) override {
    return http::SseEvent(ToJson(error)) + Done();
  }

 protected:
  std::string Event(size_t choice, std::string_view payload, std::string_view finish,
                    std::string_view logprobs = "null") const {
    return http::SseEvent(fmt::format(R"({}{{"index":{},{},"logprobs":{},"finish_reason":{}}}{})",
                                      prefix_, choice, payload, logprobs, finish, suffix_));
  }

 private:
  // Members of a choice: all of it, the piece of text `quoted`, and no more of it.
  virtual std::string Content(const FinishedChoice& choice) const = 0;
  virtual std::string Delta(const std::string& quoted) const = 0;
  virtual std::string NoDelta() const = 0;
  virtual std::string Logprobs(std::span<const GeneratedLogprobs> logprobs,
                               const Tokenizer& tokens) const = 0;

  static std::string Done() { return http::SseEvent("[DONE]"); }
  std::string Prefix(std::string_view object) const {
    return fmt::format(R"({{"id":{},"object":"{}","created":{},"model":{},)"
                       R"("system_fingerprint":"quern-{}","choices":[)",
                       QuotedJson(id()), object, options_.created, QuotedJson(options_.model),
                       QUERN_VERSION);
  }

  const ReplyOptions options_;
  const bool with_usage_;
  const std::string whole_prefix_;  // up to the choices
  const std::string prefix_;        // the same of every event
  const std::string suffix_;
};

class ChatWriter final : public ChoicesWriter {
 public:
  ChatWriter(ReplyOptions options, bool with_usage)
      : ChoicesWriter(NewId("chatcmpl-"), std::move(options), with_usage, "chat.completion",
                      "chat.completion.chunk") {}

  std::string FirstEvent(size_t choice) override {
    return Event(choice, R"("delta":{"role":"assistant","content":"","refusal":null})", "null");
  }

 private:
  std::string Content(const FinishedChoice& choice) const override {
    const bool only_calls = !choice.calls.empty() && choice.text.empty();
    return fmt::format(R"("message":{{"role":"assistant","content":{},"refusal":null{}}})",
                       only_calls ? "null" : QuotedJson(choice.text), Calls(choice.calls));
  }
  std::string Delta(const std::string& quoted) const override {
    return fmt::format(R"("delta":{{"content":{}}})", quoted);
  }
  std::string NoDelta() const override { return R"("delta":{})"; }
  std::string Logprobs(std::span<const GeneratedLogprobs> logprobs,
                       const Tokenizer& tokens) const override {
    return ChatLogprobs(logprobs, tokens);
  }
};

class CompletionWriter final : public ChoicesWriter {
 public:
  CompletionWriter(ReplyOptions options, bool with_usage)
      : ChoicesWriter(NewId("cmpl-"), std::move(options), with_usage, "text_completion",
                      "text_completion") {}

 private:
  std::string Content(const FinishedChoice& choice) const override {
    return Delta(QuotedJson(choice.text));
  }
  std::string Delta(const std::string& quoted) const override {
    return fmt::format(R"("text":{})", quoted);
  }
  std::string NoDelta() const override { return R"("text":"")"; }
  std::string Logprobs(std::span<const GeneratedLogprobs> logprobs,
                       const Tokenizer& tokens) const override {
    return CompletionLogprobs(logprobs, tokens);
  }
};

}  // namespace

std::unique_ptr<ReplyWriter> MakeChatWriter(ReplyOptions options, bool with_usage) {
  return std::make_unique<ChatWriter>(std::move(options), with_usage);
}

std::unique_ptr<ReplyWriter> MakeCompletionWriter(ReplyOptions options, bool with_usage) {
  return std::make_unique<CompletionWriter>(std::move(options), with_usage);
}

std::string NewId(std::string_view prefix) {
  // Unique, not secret: nothing is granted to who knows an id.
  thread_local std::mt19937_64 random{std::random_device{}()};
  return fmt::format("{}{:016x}{:08x}", prefix, random(), static_cast<uint32_t>(random()));
}

}  // namespace quern::server
