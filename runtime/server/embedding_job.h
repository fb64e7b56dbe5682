#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "runtime/engine/engine.h"
#include "runtime/http/responder.h"
#include "runtime/server/api_error.h"
#include "runtime/server/reply.h"

namespace quern::server {

struct EmbeddingOptions {
  std::string model;                  // as the answer names it
  bool base64 = false;                // instead of a list of numbers: little-endian float32
  std::shared_ptr<void> ticket = {};  // held as long as the job is there
  int32_t in_flight = 1;              // inputs that are with the engine at once, at most
};

// One request for embeddings: hands its inputs to the engine, some at a time, so that a list of
// thousands does not take all the places of others, and answers when all are there. Deltas come on
// the engine's thread, the rest runs on the session's strand. A client that has gone cancels what
// is left.
class EmbeddingJob : public std::enable_shared_from_this<EmbeddingJob> {
 public:
  // Told on the strand that an input of so many tokens is with the engine; and how it ended and
  // what it used, also after the client has gone.
  using OnAdmitted = std::function<void(int32_t prompt_tokens)>;
  using OnFinish = std::function<void(FinishReason, const Usage&)>;

  // `engine` and `responder`'s server outlive the job. `on_finish` may be null.
  EmbeddingJob(EngineCore& engine, http::ResponderPtr responder, EmbeddingOptions options,
               OnAdmitted on_admitted, OnFinish on_finish);

  // `requests`, at least one, have `pooling` and no max_tokens. If the engine refuses the first,
  // nothing has been answered and the error comes back. On the strand.
  Status Start(std::vector<GenerationRequest> requests);

 private:
  Status SubmitMore();
  void OnDelta(size_t input, GenerationDelta delta);  // strand, as the rest
  void Take(size_t input, GenerationDelta delta);
  void GoOn();  // hands more to the engine
  void Stop();  // cancels what is with the engine, and answers no more
  void Fail(const ApiError& error);
  void Answer();

  EngineCore& engine_;
  const http::ResponderPtr responder_;
  const EmbeddingOptions options_;
  const OnAdmitted on_admitted_;
  const OnFinish on_finish_;
  std::vector<GenerationRequest> requests_;  // those submitted are empty
  std::vector<RequestId> ids_;               // of those submitted
  std::vector<std::vector<float>> vectors_;  // of length 1; empty until they are there
  int32_t in_flight_ = 0;
  // Since it found no room with nothing in flight: when it gives up.
  std::optional<std::chrono::steady_clock::time_point> patient_until_;
  size_t done_ = 0;
  int64_t prompt_tokens_ = 0;
  bool ended_ = false;
};

// `values` to length 1, as OpenAI's are; all zeros stay so. False if one is not finite.
bool ScaleToOne(std::vector<float>& values);
// In the answer's form: "[0.6,0.8]" or base64 in quotes.
std::string EmbeddingJson(const std::vector<float>& values, bool base64);

}  // namespace quern::server
