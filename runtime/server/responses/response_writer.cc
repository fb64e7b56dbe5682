#include "runtime/server/responses/response_writer.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "runtime/http/message.h"
#include "runtime/server/logprob_json.h"

namespace quern::server {
using nlohmann::json;

namespace {

std::string ResponseUsageJson(const Usage& usage) {
  return json{
      {"input_tokens", usage.prompt_tokens},
      {"input_tokens_details", {{"cached_tokens", usage.cached_tokens}, {"cache_write_tokens", 0}}},
      {"output_tokens", usage.completion_tokens},
      // None is told apart from the answer.
      {"output_tokens_details", {{"reasoning_tokens", 0}}},
      {"total_tokens", usage.prompt_tokens + usage.completion_tokens}}
      .dump();
}

// One output item: a message, or a call of a function.
struct Item {
  std::string id;
  std::string text;              // of the message, or the call's arguments
  std::string logprobs;          // of a message: JSON objects with commas between
  std::optional<ToolCall> call;  // but for its arguments
};

Item NewMessage() { return {.id = NewId("msg_"), .text = {}, .logprobs = {}, .call = {}}; }

Item NewCall(ToolCall call) {
  std::string arguments = std::exchange(call.arguments, {});
  return {
      .id = NewId("fc_"), .text = std::move(arguments), .logprobs = {}, .call = std::move(call)};
}

std::string PartJson(std::string_view text, std::string_view logprobs) {
  return fmt::format(R"({{"type":"output_text","annotations":[],"logprobs":[{}],"text":{}}})",
                     logprobs, QuotedJson(text));
}

// `content`: of a message, the JSON of its parts.
std::string ItemJson(const Item& item, std::string_view status, std::string_view content) {
  if (!item.call) {
    return fmt::format(
        R"({{"id":"{}","type":"message","status":"{}","role":"assistant","content":[{}]}})",
        item.id, status, content);
  }
  return fmt::format(
      R"({{"id":"{}","type":"function_call","status":"{}","call_id":{},"name":{},"arguments":{}}})",
      item.id, status, QuotedJson(item.call->id), QuotedJson(item.call->name),
      QuotedJson(item.text));
}

std::string ItemJson(const Item& item, std::string_view status) {
  return ItemJson(item, status, item.call ? "" : PartJson(item.text, item.logprobs));
}

// Of a response, and of the item that it ends with.
std::string_view StatusOf(FinishReason reason) {
  return reason == FinishReason::kLength ? "incomplete" : "completed";
}

void Append(std::string& list, std::string_view more) {
  if (!list.empty() && !more.empty()) list += ',';
  list += more;
}

class ResponseWriter final : public ReplyWriter {
 public:
  ResponseWriter(ReplyOptions options, std::string repeated)
      : ReplyWriter(NewId("resp_")), options_(std::move(options)), repeated_(std::move(repeated)) {}

  std::string Whole(const std::vector<FinishedChoice>& choices, const Usage& usage) override {
    const FinishedChoice& choice = choices.front();
    std::vector<Item> items;
    size_t taken = 0;
    const auto take_text = [&](size_t end) {
      if (end == taken) return;
      items.push_back(NewMessage());
      items.back().text = choice.text.substr(taken, end - taken);
      taken = end;
    };
    for (const ToolCall& call : choice.calls) {
      take_text(call.text_before);
      items.push_back(NewCall(call));
    }
    take_text(choice.text.size());
    if (items.empty()) items.push_back(NewMessage());
    if (options_.tokens) items.back().logprobs = Entries(choice.logprobs);
    std::string output;
    for (const Item& item : items) {
      Append(output,
             ItemJson(item, &item == &items.back() ? StatusOf(choice.finish) : "completed"));
    }
    return Response(StatusOf(choice.finish), output, ResponseUsageJson(usage));
  }

  std::string Begin() override {
    const std::string response = Response("in_progress", "", "null");
    const std::string created = Event("response.created", R"("response":)" + response);
    return created + Event("response.in_progress", R"("response":)" + response);
  }

  std::string TextEvent(size_t, std::string_view text,
                        std::span<const GeneratedLogprobs> logprobs) override {
    std::string events;
    if (open_ && open_->call) events = Close("completed");
    if (!open_) events += Open(NewMessage());
    open_->text += text;
    const std::string entries = logprobs.empty() ? "" : Entries(logprobs);
    Append(open_->logprobs, entries);
    return events + Event("response.output_text.delta",
                          fmt::format(R"({},"content_index":0,"delta":{},"logprobs":[{}])", Place(),
                                      QuotedJson(text), entries));
  }

  std::string CallEvent(size_t, size_t, std::string_view id, std::string_view name) override {
    std::string events = open_ ? Close("completed") : "";
    return events + Open(NewCall({.id = std::string(id), .name = std::string(name)}));
  }

  std::string ArgumentsEvent(size_t, size_t, std::string_view arguments) override {
    open_->text += arguments;
    return Event("response.function_call_arguments.delta",
                 fmt::format(R"({},"delta":{})", Place(), QuotedJson(arguments)));
  }

  std::string FinishEvent(size_t, FinishReason reason, bool) override {
    status_ = StatusOf(reason);
    std::string events;
    if (!open_) events = Open(NewMessage());  // an empty answer
    return events + Close(status_);
  }

  std::string End(const Usage& usage) override {
    return Event(fmt::format("response.{}", status_),
                 R"("response":)" + Response(status_, closed_, ResponseUsageJson(usage)));
  }

  // What is the client's doing is no failure of the response.
  std::string Failed(const ApiError& error, const Usage& usage) override {
    if (error.status < 500) {
      return Event("error", fmt::format(R"("code":{},"message":{},"param":null)",
                                        QuotedJson(error.code), QuotedJson(error.message)));
    }
    std::string output = std::move(closed_);
    if (open_) Append(output, ItemJson(*open_, "incomplete"));
    return Event("response.failed",
                 R"("response":)" + Response("failed", output, ResponseUsageJson(usage), &error));
  }

 private:
  // Counts: the order of calls is that of the events, so none stand in one expression.
  std::string Event(std::string_view type, std::string_view members) {
    return fmt::format("event: {}\n", type) +
           http::SseEvent(fmt::format(R"({{"type":"{}","sequence_number":{},{}}})", type,
                                      sequence_number_++, members));
  }

  // Members that say which item an event is about.
  std::string Place() const {
    return fmt::format(R"("item_id":"{}","output_index":{})", open_->id, output_index_);
  }
  std::string ItemEvent(std::string_view type, std::string_view item) {
    return Event(type, fmt::format(R"("output_index":{},"item":{})", output_index_, item));
  }
  std::string PartEvent(std::string_view type, std::string_view part) {
    return Event(type, fmt::format(R"({},"content_index":0,"part":{})", Place(), part));
  }

  std::string Open(Item item) {
    open_ = std::move(item);
    std::string events =
        ItemEvent("response.output_item.added", ItemJson(*open_, "in_progress", ""));
    if (!open_->call) events += PartEvent("response.content_part.added", PartJson("", ""));
    return events;
  }

  std::string Close(std::string_view status) {
    std::string events;
    if (open_->call) {
      events = Event("response.function_call_arguments.done",
                     fmt::format(R"({},"name":{},"arguments":{})", Place(),
                                 QuotedJson(open_->call->name), QuotedJson(open_->text)));
    } else {
      events = Event("response.output_text.done",
                     fmt::format(R"({},"content_index":0,"text":{},"logprobs":[{}])", Place(),
                                 QuotedJson(open_->text), open_->logprobs));
      events += PartEvent("response.content_part.done", PartJson(open_->text, open_->logprobs));
    }
    const std::string item = ItemJson(*open_, status);
    events += ItemEvent("response.output_item.done", item);
    Append(closed_, item);
    ++output_index_;
    open_.reset();
    return events;
  }

  // Without the brackets.
  std::string Entries(std::span<const GeneratedLogprobs> logprobs) const {
    const std::string array = TokenLogprobs(logprobs, *options_.tokens);
    return array.substr(1, array.size() - 2);
  }

  std::string Response(std::string_view status, std::string_view output, std::string_view usage,
                       const ApiError* error = nullptr) const {
    return fmt::format(
        R"({{"id":"{}","object":"response","created_at":{},"status":"{}","background":false,)"
        R"("error":{},"incomplete_details":{},{},"output":[{}],"usage":{}}})",
        id(), options_.created, status,
        error ? fmt::format(R"({{"code":"server_error","message":{}}})", QuotedJson(error->message))
              : "null",
        status == "incomplete" ? R"({"reason":"max_output_tokens"})" : "null", repeated_, output,
        usage);
  }

  const ReplyOptions options_;
  const std::string repeated_;
  int64_t sequence_number_ = 0;
  size_t output_index_ = 0;   // of the item that is open, or the next one
  std::optional<Item> open_;  // begun and not done
  std::string closed_;        // JSON of those that are done, with commas between
  std::string_view status_ = "completed";
};

}  // namespace

std::unique_ptr<ReplyWriter> MakeResponseWriter(ReplyOptions options, std::string repeated) {
  return std::make_unique<ResponseWriter>(std::move(options), std::move(repeated));
}

}  // namespace quern::server
