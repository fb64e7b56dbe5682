#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/engine/engine.h"
#include "runtime/server/generation_job.h"
#include "runtime/server/reply.h"
#include "runtime/server/request.h"
#include "runtime/server/serving_state.h"

namespace quern::server {

// A request that is ready for the engine.
struct Prepared {
  std::vector<GenerationRequest> requests;  // one per choice; the choices of a prompt side by side
  AnswerOptions answer;
  std::unique_ptr<ReplyWriter> writer;
};

// Whether an answer's format may be compiled now. To compile one, or the compiler for the first
// one, takes milliseconds for any length of text: not on an I/O thread.
enum class Compiling { kLater, kNow };

// Body -> tokens: parses, renders the conversation, encodes, and checks against the model (name,
// context). May take long for a long prompt. Nothing where the answer is to keep to a format and
// that is for later. Any thread; `model` is only read.
using Preparing = std::optional<ApiResult<Prepared>>;
using PrepareFunction = Preparing (*)(std::string_view body, const LoadedModel& model,
                                      Compiling compiling);
Preparing PrepareCompletion(std::string_view body, const LoadedModel& model, Compiling compiling);
Preparing PrepareChat(std::string_view body, const LoadedModel& model, Compiling compiling);
Preparing PrepareResponse(std::string_view body, const LoadedModel& model, Compiling compiling);

// A request for embeddings that is ready for the engine: one request for each input.
struct PreparedEmbeddings {
  std::vector<GenerationRequest> requests;
  bool base64 = false;
};
ApiResult<PreparedEmbeddings> PrepareEmbeddings(std::string_view body, const LoadedModel& model);

// /tokenize and /detokenize: body -> the answer's JSON.
ApiResult<std::string> Tokenize(std::string_view body, const LoadedModel& model);
ApiResult<std::string> Detokenize(std::string_view body, const LoadedModel& model);

}  // namespace quern::server
