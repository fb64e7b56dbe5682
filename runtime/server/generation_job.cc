#include "runtime/server/generation_job.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <exception>
#include <utility>

namespace quern::server {

namespace {

// About as much as is written at once; the rest follows when it has gone out. Text that gathered
// while a client did not read is thereby sent in pieces that its stream's buffer can hold.
constexpr size_t kWriteBytes = 32 * 1024;

// At most kWriteBytes from the front of `text`, ending between two UTF-8 characters.
std::string TakePiece(std::string& text) {
  if (text.size() <= kWriteBytes) return std::exchange(text, {});
  size_t end = kWriteBytes;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
  if (end == 0) end = kWriteBytes;
  std::string piece = text.substr(0, end);
  text.erase(0, end);
  return piece;
}

}  // namespace

GenerationJob::GenerationJob(EngineCore& engine, http::ResponderPtr responder, ReplyWriter writer,
                             bool stream, bool include_usage,
                             std::function<void(const GenerationDelta&)> on_finish)
    : engine_(engine),
      responder_(std::move(responder)),
      writer_(std::move(writer)),
      stream_(stream),
      include_usage_(include_usage),
      on_finish_(std::move(on_finish)) {}

Status GenerationJob::Start(std::vector<GenerationRequest> requests) {
  choices_.resize(requests.size());
  const auto self = shared_from_this();
  for (size_t i = 0; i < requests.size(); ++i) {
    auto id = engine_.Submit(std::move(requests[i]), [self, i](GenerationDelta delta) {
      self->OnDelta(i, std::move(delta));
    });
    if (!id) {
      ended_ = true;
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
  if (stream_) {
    http::Response head;
    head.content_type = "text/event-stream; charset=utf-8";
    head.headers.emplace_back("Cache-Control", "no-cache");
    head.headers.emplace_back("X-Accel-Buffering", "no");  // nginx: pass events on at once
    responder_->BeginStream(head);
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
    if (delta.finish && on_finish_) on_finish_(delta);
  }
  if (ended_) return;
  try {
    for (auto& [choice, delta] : deltas) Take(choice, std::move(delta));
    if (failure_) return Fail();
    if (stream_) {
      SendEvents();
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
  choice.usage = Usage{delta.prompt_tokens, delta.completion_tokens, delta.cached_tokens};
  if (!delta.finish) return;
  choice.finish = delta.finish;
  if (*delta.finish == FinishReason::kError) {
    failure_ = ApiError{500, delta.error.empty() ? "the engine failed" : delta.error,
                        "server_error", "", "generation_failed"};
  } else if (*delta.finish == FinishReason::kCancelled) {
    failure_ = ApiError{503,
                        "the request was cancelled because the server is shutting down",
                        "server_error",
                        "",
                        "draining",
                        1};
  }
}

void GenerationJob::SendEvents() {
  if (ended_ || !stream_ || !responder_->Writable()) return;  // called again when all is written
  std::string events;
  bool all_sent = true;
  for (size_t i = 0; i < choices_.size() && events.size() < kWriteBytes; ++i) {
    Choice& choice = choices_[i];
    if (!choice.begun && (!choice.text.empty() || choice.finish)) {
      choice.begun = true;
      events += writer_.FirstEvent(i);
    }
    while (!choice.text.empty() && events.size() < kWriteBytes) {
      events += writer_.TextEvent(i, TakePiece(choice.text));
    }
    if (choice.finish && choice.text.empty() && !choice.finish_sent) {
      choice.finish_sent = true;
      events += writer_.FinishEvent(i, *choice.finish);
    }
  }
  for (const Choice& choice : choices_) all_sent = all_sent && choice.finish_sent;
  if (all_sent) {
    ended_ = true;
    if (include_usage_) events += writer_.UsageEvent(TotalUsage());
    events += ReplyWriter::DoneEvent();
  }
  if (!events.empty()) responder_->Write(events);
  if (all_sent) responder_->Finish();
}

void GenerationJob::SendWhole() {
  ended_ = true;
  std::vector<FinishedChoice> finished;
  for (Choice& choice : choices_) {
    finished.push_back(FinishedChoice{std::move(choice.text), *choice.finish});
  }
  http::Response response;
  response.body = writer_.Whole(finished, TotalUsage());
  responder_->Send(std::move(response));
}

void GenerationJob::Fail() {
  ended_ = true;
  CancelAll();
  if (!stream_) return responder_->Send(ToResponse(*failure_));
  // The status is out already: clients look for an "error" member in the events.
  responder_->Write(http::SseEvent(ToJson(*failure_)));
  responder_->Write(ReplyWriter::DoneEvent());
  responder_->Finish();
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
