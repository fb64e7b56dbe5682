#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "runtime/http/router.h"
#include "runtime/metrics/runtime_metrics.h"
#include "runtime/server/access.h"
#include "runtime/server/admission_gate.h"
#include "runtime/server/encode_pool.h"
#include "runtime/server/generation_job.h"
#include "runtime/server/prepare.h"
#include "runtime/server/serving_state.h"

namespace quern::server {

struct ApiOptions {
  size_t max_preparing = 256;             // long or structured requests between body and engine
  size_t max_preparing_bytes = 64 << 20;  // their bodies
  size_t max_embedding_bytes = 64 << 20;  // of all requests for embeddings: tokens and vectors
  size_t long_body_bytes = 16 * 1024;     // from here on not on an I/O thread
  int encode_threads = 1;
  size_t max_backlog_bytes = 1 << 20;  // of one stream, waiting for its client
  Seconds stall_timeout{120};  // without progress: not ready after a quarter of it, not live
                               // after all of it; 0: never
};

// The routes of the public port (OpenAI's API, /tokenize, health, /openapi.json) and of the
// administrative one (metrics, health). Handlers run on I/O threads; what takes long goes to the
// encode pool. The referenced objects outlive this; this outlives the HTTP server's threads.
class Api {
 public:
  // `access`: whose keys are asked for; null: anyone may use the API.
  Api(ServingState& state, RuntimeMetrics& metrics, const ApiOptions& options,
      const Access* access = nullptr);

  http::Router PublicRouter();
  http::Router AdminRouter();  // to which others may add

  // Waits until the requests that are being read and encoded have been handed to the engine or
  // answered, at most `timeout`; whether they were. While draining no new ones come. Any thread.
  bool WaitForPreparing(std::chrono::milliseconds timeout) const {
    return gate_.WaitUntilEmpty(timeout);
  }

 private:
  using TenantPtr = std::shared_ptr<const Tenant>;  // null where no keys are used
  // Who asks. Nothing after having answered 401: the key was taken away after the router's guard
  // had seen it.
  std::optional<TenantPtr> CallerOrRefuse(const http::Request& request,
                                          http::Responder& responder) const;
  // The model, or null after having answered 503.
  const LoadedModel* ModelOrRefuse(http::Responder& responder);
  void Generate(PrepareFunction prepare, http::Request request, http::ResponderPtr responder);
  void Submit(ApiResult<Prepared> prepared, const LoadedModel& model, const TenantPtr& tenant,
              const http::ResponderPtr& responder);
  void Embed(http::Request request, http::ResponderPtr responder);
  void SubmitEmbeddings(ApiResult<PreparedEmbeddings> prepared, const LoadedModel& model,
                        const TenantPtr& tenant, const http::ResponderPtr& responder);
  // What is counted of each request of a tenant that ended; null where no keys are used.
  std::function<void(FinishReason, const Usage&)> CounterOf(const TenantPtr& tenant);
  // The same of each choice, whoever asks, and what is counted of each prompt when its `n` choices
  // have ended.
  GenerationJob::OnFinish CounterOfChoices(const TenantPtr& tenant, size_t choices, size_t n);
  void RefuseFromEngine(const Error& error, http::Responder& responder, const TenantPtr& tenant);
  using TextFunction = ApiResult<std::string> (*)(std::string_view body, const LoadedModel& model);
  void AnswerText(TextFunction function, http::Request request, http::ResponderPtr responder);
  // A short body is read at once, on the I/O thread, and waits for nobody: the gate is for those
  // that queue for the pool. So long prompts do not shut out short ones.
  bool IsShort(const std::string& body) const { return body.size() < options_.long_body_bytes; }
  // Runs `work` on the pool; then `then` with its result on the strand. Answers 429 if the gate is
  // full.
  template <typename T>
  void Offload(std::string body, const TenantPtr& tenant, const http::ResponderPtr& responder,
               std::function<ApiResult<T>(const std::string&)> work,
               std::function<void(ApiResult<T>)> then);
  void Refuse(const ApiError& error, http::Responder& responder, const TenantPtr& tenant = nullptr);
  void AddHealth(http::Router& router);
  void ListModels(http::Responder& responder);
  void ShowModel(const std::string& id, http::Responder& responder);
  bool RefuseIfStalled(Seconds limit, http::Responder& responder);
  void Live(http::Responder& responder);
  void Ready(http::Responder& responder);
  void Metrics(http::Responder& responder);

  ServingState& state_;
  RuntimeMetrics& metrics_;
  const ApiOptions options_;
  const Access* const access_;
  AdmissionGate gate_;
  // Shared with the tickets of its jobs, which the engine may hold longer than this lives.
  const std::shared_ptr<AdmissionGate> embeddings_gate_;
  EncodePool pool_;  // last: its threads use the others
};

}  // namespace quern::server
