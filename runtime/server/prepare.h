#pragma once

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
};

// Body -> tokens: parses, renders the conversation, encodes, and checks against the model (name,
// context). May take long for a long prompt. Any thread; `model` is only read.
ApiResult<Prepared> Prepare(ReplyKind kind, std::string_view body, const LoadedModel& model);

// The same of a short body on an I/O thread. Nothing where the answer is to keep to a format: to
// compile one, or the compiler for the first one, takes milliseconds for any length of text.
std::optional<ApiResult<Prepared>> PrepareAtOnce(ReplyKind kind, std::string_view body,
                                                 const LoadedModel& model);

// A request for embeddings that is ready for the engine: one request for each input.
struct PreparedEmbeddings {
  std::vector<GenerationRequest> requests;
  bool base64 = false;
};
ApiResult<PreparedEmbeddings> PrepareEmbeddings(std::string_view body, const LoadedModel& model);

// /tokenize and /detokenize: body -> the answer's JSON.
ApiResult<std::string> Tokenize(std::string_view body, const LoadedModel& model);
ApiResult<std::string> Detokenize(std::string_view body, const LoadedModel& model);

// 404 model_not_found, naming what is served.
ApiError ModelNotFound(std::string_view asked, const LoadedModel& model);

}  // namespace quern::server
