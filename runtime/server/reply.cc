#include "runtime/server/reply.h"

#include <fmt/format.h>

#include <random>

#include "runtime/http/message.h"

namespace quern::server {
using nlohmann::json;

namespace {

std::string Quoted(std::string_view text) {
  return json(text).dump(-1, ' ', false, json::error_handler_t::replace);
}

json UsageJson(const Usage& usage) {
  return {{"prompt_tokens", usage.prompt_tokens},
          {"completion_tokens", usage.completion_tokens},
          {"total_tokens", usage.prompt_tokens + usage.completion_tokens},
          {"prompt_tokens_details", {{"cached_tokens", usage.cached_tokens}}}};
}

}  // namespace

std::string_view FinishName(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return "stop";
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
                         bool with_usage)
    : kind_(kind), id_(std::move(id)), model_(std::move(model)), created_(created) {
  prefix_ = fmt::format(R"({{"id":{},"object":"{}","created":{},"model":{},)"
                        R"("system_fingerprint":"quern-{}","choices":[)",
                        Quoted(id_),
                        kind_ == ReplyKind::kChat ? "chat.completion.chunk" : "text_completion",
                        created_, Quoted(model_), QUERN_VERSION);
  suffix_ = with_usage ? R"(],"usage":null})" : "]}";
}

std::string ReplyWriter::Whole(const std::vector<FinishedChoice>& choices,
                               const Usage& usage) const {
  json list = json::array();
  for (size_t i = 0; i < choices.size(); ++i) {
    json choice = {
        {"index", i}, {"finish_reason", FinishName(choices[i].finish)}, {"logprobs", nullptr}};
    if (kind_ == ReplyKind::kChat) {
      choice["message"] = {
          {"role", "assistant"}, {"content", choices[i].text}, {"refusal", nullptr}};
    } else {
      choice["text"] = choices[i].text;
    }
    list.push_back(std::move(choice));
  }
  const json whole = {{"id", id_},
                      {"object", kind_ == ReplyKind::kChat ? "chat.completion" : "text_completion"},
                      {"created", created_},
                      {"model", model_},
                      {"system_fingerprint", "quern-" QUERN_VERSION},
                      {"choices", std::move(list)},
                      {"usage", UsageJson(usage)}};
  return whole.dump(-1, ' ', false, json::error_handler_t::replace);
}

std::string ReplyWriter::Event(size_t choice, std::string_view payload,
                               std::string_view finish) const {
  return http::SseEvent(fmt::format(R"({}{{"index":{},{},"logprobs":null,"finish_reason":{}}}{})",
                                    prefix_, choice, payload, finish, suffix_));
}

std::string ReplyWriter::FirstEvent(size_t choice) const {
  if (kind_ != ReplyKind::kChat) return {};
  return Event(choice, R"("delta":{"role":"assistant","content":"","refusal":null})", "null");
}

std::string ReplyWriter::TextEvent(size_t choice, std::string_view text) const {
  const std::string quoted = Quoted(text);
  return Event(choice,
               kind_ == ReplyKind::kChat ? fmt::format(R"("delta":{{"content":{}}})", quoted)
                                         : fmt::format(R"("text":{})", quoted),
               "null");
}

std::string ReplyWriter::FinishEvent(size_t choice, FinishReason reason) const {
  return Event(choice, kind_ == ReplyKind::kChat ? R"("delta":{})" : R"("text":"")",
               fmt::format("\"{}\"", FinishName(reason)));
}

std::string ReplyWriter::UsageEvent(const Usage& usage) const {
  return http::SseEvent(fmt::format(R"({}],"usage":{}}})", prefix_, UsageJson(usage).dump()));
}

std::string ReplyWriter::DoneEvent() { return http::SseEvent("[DONE]"); }

}  // namespace quern::server
