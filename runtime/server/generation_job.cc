#include "runtime/server/generation_job.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <exception>
#include <iterator>
#include <utility>

namespace quern::server {

namespace {

// About as much as is written at once; the rest follows when it has gone out. Text that gathered
// while a client did not read is thereby sent in pieces that its stream's buffer can hold.
constexpr size_t kWriteBytes = 32 * 1024;

// Log-probabilities of so many tokens go into one event, at most: with 20 alternatives each some 30
// KB. Where more have gathered, the text goes ahead of them.
constexpr size_t kEventLogprobs = 16;

// At most kWriteBytes from the front of `text`, ending between two UTF-8 characters.
std::string_view Piece(std::string_view text) {
  if (text.size() <= kWriteBytes) return text;
  size_t end = kWriteBytes;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
  return text.substr(0, end == 0 ? kWriteBytes : end);
}

// All of a text: its content; its calls go into `calls`.
std::string TakeCalls(std::string_view text, ToolCallStream& stream, std::vector<ToolCall>& calls) {
  std::vector<ToolCallEvent> events;
  stream.Push(text, events);
  stream.Finish(events);
  std::string content;
  for (ToolCallEvent& event : events) {
    switch (event.kind) {
      case ToolCallEvent::Kind::kContent:
        content += event.text;
        break;
      case ToolCallEvent::Kind::kCall:
        calls.push_back({.id = NewId("call_"),
                         .name = std::move(event.text),
                         .arguments = "",
                         .text_before = content.size()});
        break;
      case ToolCallEvent::Kind::kArguments:
        calls.back().arguments += event.text;
        break;
    }
  }
  return content;
}

}  // namespace

GenerationJob::GenerationJob(EngineCore& engine, http::ResponderPtr responder,
                             std::unique_ptr<ReplyWriter> writer, AnswerOptions options,
                             OnFinish on_finish, OnBehind on_behind)
    : engine_(engine),
      responder_(std::move(responder)),
      writer_(std::move(writer)),
      options_(std::move(options)),
      on_finish_(std::move(on_finish)),
      on_behind_(std::move(on_behind)) {}

Status GenerationJob::Start(std::vector<GenerationRequest> requests) {
  choices_.resize(requests.size());
  if (options_.tools) {
    for (Choice& choice : choices_) {
      choice.calls.emplace(options_.tools->names, options_.tools->parallel);
    }
  }
  const auto self = shared_from_this();
  for (size_t i = 0; i < requests.size(); ++i) {
    auto id = engine_.Submit(std::move(requests[i]), [self, i](GenerationDelta delta) {
      self->OnDelta(i, std::move(delta));
    });
    if (!id) {
      ended_ = true;
      on_finish_ = nullptr;  // refused, it has used nothing
      choices_.resize(i);
      CancelAll();
      return std::move(id).error();
    }
    choices_[i].id = *id;
  }
  responder_->SetCallbacks([self] { self->SendEvents(); },
                           [self] {
                             self->ended_ = true;
                             self->CancelAll();
                           });
  if (options_.stream) {
    http::Response head;
    head.content_type = "text/event-stream; charset=utf-8";
    head.headers.emplace_back("Cache-Control", "no-cache");
    head.headers.emplace_back("X-Accel-Buffering", "no");  // nginx: pass events on at once
    responder_->BeginStream(head);
    outbox_ = writer_->Begin();
    Flush();
  }
  return {};
}

void GenerationJob::OnDelta(size_t choice, GenerationDelta delta) {
  {
    std::lock_guard lock(mutex_);
    inbox_.emplace_back(choice, std::move(delta));
    if (std::exchange(pump_posted_, true)) return;
  }
  responder_->Post([self = shared_from_this()] { self->Pump(); });
}

void GenerationJob::Pump() {
  std::vector<std::pair<size_t, GenerationDelta>> deltas;
  {
    std::lock_guard lock(mutex_);
    deltas.swap(inbox_);
    pump_posted_ = false;
  }
  for (const auto& [choice, delta] : deltas) {
    if (delta.finish && on_finish_) on_finish_(choice, *delta.finish, UsageOf(choice, delta));
  }
  if (ended_) return;
  try {
    for (auto& [choice, delta] : deltas) Take(choice, std::move(delta));
    if (failure_) return Fail();
    if (options_.stream) {
      SendEvents();
      if (BacklogBytes() > options_.max_backlog_bytes) FallBehind();
    } else if (std::all_of(choices_.begin(), choices_.end(), [](auto& c) { return c.finish; })) {
      SendWhole();
    }
  } catch (const std::exception& error) {
    // These deltas are lost, so no later one may make an answer that lacks them.
    spdlog::error("an answer could not be made: {}", error.what());
    failure_ =
        ApiError{500, "the server failed to make the answer", "server_error", "", "internal_error"};
    if (!ended_) Fail();
  }
}

void GenerationJob::Take(size_t index, GenerationDelta delta) {
  Choice& choice = choices_[index];
  choice.text += delta.text;
  TakeLogprobs(index, delta);
  choice.usage = UsageOf(index, delta);
  if (!delta.finish) return;
  choice.finish = delta.finish;
  if (*delta.finish == FinishReason::kError) {
    failure_ = ApiError{500, delta.error.empty() ? "the engine failed" : delta.error,
                        "server_error", "", "generation_failed"};
  } else if (*delta.finish == FinishReason::kFormat) {
    failure_ = ApiError{400, delta.error, "invalid_request_error", "", "format_cannot_be_followed"};
  } else if (*delta.finish == FinishReason::kCancelled) {
    failure_ = CutByDraining();
  }
}

// Their places are those in the text with the echo before it.
void GenerationJob::TakeLogprobs(size_t index, GenerationDelta& delta) {
  Choice& choice = choices_[index];
  const Echo& echo = EchoOf(index);
  for (GeneratedLogprobs& logprobs : delta.prompt_logprobs) {
    logprobs.text_offset = echo.offsets[choice.prompt_logprobs++];
    choice.logprobs.push_back(std::move(logprobs));
  }
  for (GeneratedLogprobs& logprobs : delta.logprobs) {
    logprobs.text_offset += echo.chars;
    choice.logprobs.push_back(std::move(logprobs));
  }
}

const Echo& GenerationJob::EchoOf(size_t choice) const {
  static const Echo kNone;
  if (options_.echo.empty()) return kNone;
  return options_.echo[choice / options_.choices_per_prompt];
}

bool GenerationJob::HasMore(size_t index) const {
  const Choice& choice = choices_[index];
  return choice.echo_sent < EchoOf(index).text.size() || !choice.text.empty() ||
         !choice.logprobs.empty();
}

size_t GenerationJob::BacklogBytes() const {
  size_t bytes = 0;
  for (const Choice& choice : choices_) {
    bytes += choice.text.size() + (choice.calls ? choice.calls->held_bytes() : 0);
    if (choice.logprobs.empty()) continue;
    const GeneratedLogprobs& any = choice.logprobs.front();  // all have as many alternatives
    bytes += choice.logprobs.size() * (sizeof(any) + any.top.size() * sizeof(any.token));
  }
  return bytes;
}

void GenerationJob::FallBehind() {
  failure_ = ApiError{408,
                      fmt::format("more than {} bytes of the answer wait to be read; read faster, "
                                  "or ask for fewer choices, tokens or log-probabilities",
                                  options_.max_backlog_bytes),
                      "invalid_request_error", "", "client_too_slow"};
  if (on_behind_) on_behind_();
  Fail();
}

void GenerationJob::SendEvents() {
  if (!options_.stream) return;
  Flush();
  // Called again when all is written.
  if (ended_ || !outbox_.empty() || !responder_->Writable()) return;
  outbox_ = NextEvents();
  Flush();
}

std::string GenerationJob::NextEvents() {
  std::string events;
  bool all_sent = true;
  for (size_t i = 0; i < choices_.size() && events.size() < kWriteBytes; ++i) {
    Choice& choice = choices_[i];
    if (!choice.begun && (HasMore(i) || choice.finish)) {
      choice.begun = true;
      events += writer_->FirstEvent(i);
    }
    while (HasMore(i) && events.size() < kWriteBytes) events += NextTextEvent(i);
    if (choice.finish && !HasMore(i) && !choice.finish_sent) {
      choice.finish_sent = true;
      events += LastEvents(i);
    }
  }
  for (const Choice& choice : choices_) all_sent = all_sent && choice.finish_sent;
  if (all_sent) {
    events += writer_->End(TotalUsage());
    ended_ = true;
  }
  return events;
}

// Some events repeat the whole answer and are larger than what may wait to be written: they go in
// pieces, as the client reads.
void GenerationJob::Flush() {
  while (outbox_sent_ < outbox_.size() && responder_->Writable()) {
    const auto piece = std::string_view(outbox_).substr(outbox_sent_, kWriteBytes);
    outbox_sent_ += piece.size();
    responder_->Write(piece);
  }
  if (outbox_sent_ < outbox_.size()) return;
  std::string().swap(outbox_);
  outbox_sent_ = 0;
  if (ended_ && !responder_->Done()) responder_->Finish();
}

std::string GenerationJob::NextTextEvent(size_t index) {
  Choice& choice = choices_[index];
  if (const auto echo = std::string_view(EchoOf(index).text).substr(choice.echo_sent);
      !echo.empty()) {
    const std::string_view piece = Piece(echo);
    choice.echo_sent += piece.size();
    return writer_->TextEvent(index, piece, {});
  }
  const std::string piece(Piece(choice.text));
  choice.text.erase(0, piece.size());
  const auto count = static_cast<std::ptrdiff_t>(std::min(choice.logprobs.size(), kEventLogprobs));
  const auto begin = std::make_move_iterator(choice.logprobs.begin());
  const std::vector<GeneratedLogprobs> logprobs(begin, begin + count);
  choice.logprobs.erase(choice.logprobs.begin(), choice.logprobs.begin() + count);
  if (!choice.calls) return writer_->TextEvent(index, piece, logprobs);
  std::vector<ToolCallEvent> events;
  choice.calls->Push(piece, events);
  return ToolEvents(index, events, logprobs);
}

// The events of a stream. Log-probabilities go with the first content, or before what comes.
std::string GenerationJob::ToolEvents(size_t index, const std::vector<ToolCallEvent>& events,
                                      std::span<const GeneratedLogprobs> logprobs) {
  Choice& choice = choices_[index];
  std::string written;
  if (!logprobs.empty() &&
      (events.empty() || events.front().kind != ToolCallEvent::Kind::kContent)) {
    written += writer_->TextEvent(index, "", std::exchange(logprobs, {}));
  }
  for (const ToolCallEvent& event : events) {
    switch (event.kind) {
      case ToolCallEvent::Kind::kContent:
        written += writer_->TextEvent(index, event.text, std::exchange(logprobs, {}));
        break;
      case ToolCallEvent::Kind::kCall:
        written += writer_->CallEvent(index, choice.calls_sent++, NewId("call_"), event.text);
        break;
      case ToolCallEvent::Kind::kArguments:
        written += writer_->ArgumentsEvent(index, choice.calls_sent - 1, event.text);
        break;
    }
  }
  return written;
}

std::string GenerationJob::LastEvents(size_t index) {
  Choice& choice = choices_[index];
  if (!choice.calls) return writer_->FinishEvent(index, *choice.finish, /*called=*/false);
  std::vector<ToolCallEvent> events;
  choice.calls->Finish(events);
  std::string written = ToolEvents(index, events, {});
  written += writer_->FinishEvent(index, *choice.finish, choice.calls->num_calls() > 0);
  return written;
}

void GenerationJob::SendWhole() {
  ended_ = true;
  std::vector<FinishedChoice> finished;
  for (size_t i = 0; i < choices_.size(); ++i) {
    Choice& choice = choices_[i];
    std::vector<ToolCall> calls;
    if (choice.calls) choice.text = TakeCalls(choice.text, *choice.calls, calls);
    finished.push_back({.text = EchoOf(i).text + choice.text,
                        .calls = std::move(calls),
                        .finish = *choice.finish,
                        .logprobs = {std::make_move_iterator(choice.logprobs.begin()),
                                     std::make_move_iterator(choice.logprobs.end())}});
  }
  http::Response response;
  response.body = writer_->Whole(finished, TotalUsage());
  responder_->Send(std::move(response));
}

void GenerationJob::Fail() {
  ended_ = true;
  CancelAll();
  if (!options_.stream) return responder_->Send(ToResponse(*failure_));
  outbox_ += writer_->Failed(*failure_, TotalUsage());
  Flush();
}

// A prompt counts once, however many choices it has: with the first of them.
Usage GenerationJob::UsageOf(size_t choice, const GenerationDelta& delta) const {
  Usage usage;
  if (choice % options_.choices_per_prompt == 0) {
    usage.prompt_tokens = delta.prompt_tokens;
    usage.cached_tokens = delta.cached_tokens;
  }
  usage.completion_tokens = delta.completion_tokens;
  return usage;
}

Usage GenerationJob::TotalUsage() const {
  Usage total;
  for (const Choice& choice : choices_) {
    total.prompt_tokens += choice.usage.prompt_tokens;
    total.completion_tokens += choice.usage.completion_tokens;
    total.cached_tokens += choice.usage.cached_tokens;
  }
  return total;
}

void GenerationJob::CancelAll() {
  for (const Choice& choice : choices_) engine_.Cancel(choice.id);
}

}  // namespace quern::server
