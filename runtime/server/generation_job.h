#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "runtime/engine/engine.h"
#include "runtime/http/responder.h"
#include "runtime/server/api_error.h"
#include "runtime/server/echo.h"
#include "runtime/server/reply.h"
#include "runtime/server/tool_call_stream.h"

namespace quern::server {

// How an answer is to be given.
struct AnswerOptions {
  bool stream = false;
  size_t choices_per_prompt = 1;  // those of one prompt are side by side
  std::vector<Echo> echo;         // before the choices of each prompt; or empty
  // Functions that the text may call.
  struct Tools {
    std::vector<std::string> names;
    bool parallel = true;
  };
  std::optional<Tools> tools;
  // A stream: text and log-probabilities that wait for the client. Beyond it the stream ends with
  // an error, and its work is cancelled.
  size_t max_backlog_bytes = 1 << 20;
};

// One request of a client with its engine requests (one per choice) between engine and HTTP side.
// Deltas come on the engine's thread, are queued here and leave on the session's strand. A client
// that reads slowly gets fewer, larger events: deltas are merged while its buffer is full. What is
// held of an answer is bounded: of one that is sent whole by kMaxAnswerBytes, which prepare.cc
// keeps, of a stream by AnswerOptions::max_backlog_bytes and, where its writer repeats the answer
// at its end, by that of a whole one, four times over while its last events wait. A client that has
// gone cancels the engine's work.
class GenerationJob : public std::enable_shared_from_this<GenerationJob> {
 public:
  // Told how each choice ended and what it used, on the strand, also after the client has gone.
  using OnFinish = std::function<void(size_t choice, FinishReason, const Usage&)>;

  // Told, on the strand, that a stream was ended because its client reads too slowly.
  using OnBehind = std::function<void()>;

  // `engine` and `responder`'s server outlive the job. `on_finish` and `on_behind` may be null.
  GenerationJob(EngineCore& engine, http::ResponderPtr responder,
                std::unique_ptr<ReplyWriter> writer, AnswerOptions options, OnFinish on_finish = {},
                OnBehind on_behind = {});

  // Hands the requests to the engine and, for a stream, begins the answer. If the engine refuses
  // one, the others are cancelled, nothing has been answered and the error comes back. On the
  // strand.
  Status Start(std::vector<GenerationRequest> requests);

 private:
  struct Choice {
    RequestId id = 0;
    size_t echo_sent = 0;                    // a stream: bytes of its prompt's echo
    std::string text;                        // a stream: not yet sent; else all of it
    std::deque<GeneratedLogprobs> logprobs;  // as `text`
    std::optional<ToolCallStream> calls;     // reads the text where it may call functions
    size_t calls_sent = 0;                   // a stream: calls that have begun
    bool begun = false;                      // a stream: the first event was sent
    bool finish_sent = false;                // a stream
    std::optional<FinishReason> finish;
    size_t prompt_logprobs = 0;  // taken
    Usage usage;
  };

  void OnDelta(size_t choice, GenerationDelta delta);  // engine's thread
  void Pump();                                         // the rest: strand
  void Take(size_t choice, GenerationDelta delta);
  const Echo& EchoOf(size_t choice) const;  // of its prompt, held once for all its choices
  void TakeLogprobs(size_t choice, GenerationDelta& delta);
  bool HasMore(size_t choice) const;  // to send
  size_t BacklogBytes() const;
  void FallBehind();
  void SendEvents();
  std::string NextEvents();
  void Flush();
  std::string NextTextEvent(size_t choice);
  std::string ToolEvents(size_t choice, const std::vector<ToolCallEvent>& events,
                         std::span<const GeneratedLogprobs> logprobs);
  std::string LastEvents(size_t choice);
  void SendWhole();
  void Fail();
  Usage UsageOf(size_t choice, const GenerationDelta& delta) const;
  Usage TotalUsage() const;
  void CancelAll();

  EngineCore& engine_;
  const http::ResponderPtr responder_;
  const std::unique_ptr<ReplyWriter> writer_;
  const AnswerOptions options_;
  OnFinish on_finish_;
  const OnBehind on_behind_;
  std::vector<Choice> choices_;
  std::optional<ApiError> failure_;
  bool ended_ = false;
  std::string outbox_;      // a stream: events on their way to `responder_` ...
  size_t outbox_sent_ = 0;  // ... and how much of them it has

  std::mutex mutex_;  // the two below
  std::vector<std::pair<size_t, GenerationDelta>> inbox_;
  bool pump_posted_ = false;
};

}  // namespace quern::server
