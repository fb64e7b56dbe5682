#include "runtime/server/api.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <atomic>
#include <nlohmann/json.hpp>
#include <utility>

#include "runtime/server/embedding_job.h"
#include "runtime/server/encode.h"
#include "runtime/server/json_text.h"
#include "runtime/server/model_card.h"
#include "runtime/server/observers.h"
#include "runtime/server/openapi.h"

namespace quern::server {
using http::Request;
using http::ResponderPtr;
using http::Response;
using nlohmann::json;

namespace {

// The ticket goes first.
using GateAndTicket = std::pair<std::shared_ptr<AdmissionGate>, AdmissionGate::Ticket>;

// Inputs of one request for embeddings that the engine has at once.
constexpr int32_t kEmbeddingsInFlight = 32;

// No new requests go where nothing moves, long before the process is given up.
constexpr double kUnreadyStallShare = 0.25;

Response JsonResponse(int status, const json& body) {
  Response response;
  response.status = status;
  response.body = JsonText(body);
  return response;
}

// "" where no keys are used.
const std::string& NameOf(const std::shared_ptr<const Tenant>& tenant) {
  static const std::string kNameless;
  return tenant ? tenant->name : kNameless;
}

}  // namespace

Api::Api(ServingState& state, RuntimeMetrics& metrics, const ApiOptions& options,
         const Access* access)
    : state_(state),
      metrics_(metrics),
      options_(options),
      access_(access),
      gate_(options.max_preparing, options.max_preparing_bytes),
      embeddings_gate_(
          std::make_shared<AdmissionGate>(options.max_preparing, options.max_embedding_bytes)),
      pool_(options.encode_threads) {}

http::Router Api::PublicRouter() {
  http::Router router(HttpErrorJson);
  if (access_) {
    router.SetGuard([this](const Request& head) { return access_->Refuse(head); });
  }
  router.Add("GET", "/v1/models", "models",
             [this](Request, ResponderPtr responder) { ListModels(*responder); });
  router.Add("GET", "/v1/models/{id...}", "model", [this](Request request, ResponderPtr responder) {
    ShowModel(request.path_parameter, *responder);
  });
  const auto add_generation = [&](const char* path, const char* name, PrepareFunction prepare) {
    router.Add("POST", path, name, [this, prepare](Request request, ResponderPtr responder) {
      Generate(prepare, std::move(request), std::move(responder));
    });
  };
  add_generation("/v1/completions", "completions", PrepareCompletion);
  add_generation("/v1/chat/completions", "chat_completions", PrepareChat);
  add_generation("/v1/responses", "responses", PrepareResponse);
  router.Add("POST", "/v1/embeddings", "embeddings",
             [this](Request request, ResponderPtr r) { Embed(std::move(request), std::move(r)); });
  router.Add("POST", "/tokenize", "tokenize", [this](Request request, ResponderPtr responder) {
    AnswerText(Tokenize, std::move(request), std::move(responder));
  });
  router.Add("POST", "/detokenize", "detokenize", [this](Request request, ResponderPtr responder) {
    AnswerText(Detokenize, std::move(request), std::move(responder));
  });
  const auto document = std::make_shared<const std::string>(OpenApiDocument(access_ != nullptr));
  router.Add("GET", "/openapi.json", "openapi", [document](Request, ResponderPtr responder) {
    Response response;
    response.body = *document;
    responder->Send(std::move(response));
  });
  AddHealth(router);
  router.AddElsewhere("/metrics", "is on the administrative port");
  return router;
}

http::Router Api::AdminRouter() {
  http::Router router(HttpErrorJson);
  router.Add("GET", "/metrics", "metrics",
             [this](Request, ResponderPtr responder) { Metrics(*responder); });
  AddHealth(router);
  return router;
}

void Api::AddHealth(http::Router& router) {
  router.Add("GET", "/health/live", "health_live",
             [this](Request, ResponderPtr responder) { Live(*responder); });
  router.Add("GET", "/health/ready", "health_ready",
             [this](Request, ResponderPtr responder) { Ready(*responder); });
}

std::optional<Api::TenantPtr> Api::CallerOrRefuse(const Request& request,
                                                  http::Responder& responder) const {
  if (!access_) return TenantPtr();
  auto tenant = access_->Find(request.headers);
  if (tenant) return tenant;
  responder.Send(InvalidApiKey(request.headers));
  return std::nullopt;
}

void Api::Refuse(const ApiError& error, http::Responder& responder, const TenantPtr& tenant) {
  if (error.status == 429) metrics_.CountTenantRefused(NameOf(tenant));
  if (error.code == "tenant_limit") metrics_.CountRejected("tenant_limit");
  if (error.code == "queue_full") metrics_.CountRejected("queue_full");
  if (error.code == "admission_full") metrics_.CountRejected("admission_full");
  if (error.code == "context_length_exceeded") metrics_.CountRejected("context_length");
  if (error.code == "model_loading") metrics_.CountRejected("loading");
  if (error.code == "model_sleeping") metrics_.CountRejected("sleeping");
  if (error.code == "draining") metrics_.CountRejected("draining");
  responder.Send(ToResponse(error));
}

const LoadedModel* Api::ModelOrRefuse(http::Responder& responder) {
  const auto view = state_.Get();
  if (view.phase == ServingState::Phase::kReady) return view.model;
  ApiError error{503, view.reason, "server_error", "", "draining", 1};
  if (view.phase == ServingState::Phase::kLoading) {
    error.message = fmt::format("the model is still loading: {}", view.reason);
    error.code = "model_loading";
  } else if (view.phase == ServingState::Phase::kSleeping) {
    error.code = "model_sleeping";
  }
  Refuse(error, responder);
  return nullptr;
}

template <typename T>
void Api::Offload(std::string body, const TenantPtr& tenant, const ResponderPtr& responder,
                  std::function<ApiResult<T>(const std::string&)> work,
                  std::function<void(ApiResult<T>)> then) {
  auto [ticket, tenant_limit] = gate_.TryEnter(NameOf(tenant), body.size());
  if (tenant_limit) {
    return Refuse(TenantLimit("too many long or structured requests of your tenant wait to be "
                              "read; try again later"),
                  *responder, tenant);
  }
  if (!ticket) {
    return Refuse(
        ApiError{429, "too many long or structured requests wait to be read; try again later",
                 "rate_limit_error", "", "admission_full", 1},
        *responder, tenant);
  }
  // Nothing is done for a client that leaves while it waits here.
  auto gone = std::make_shared<std::atomic<bool>>(false);
  responder->SetCallbacks([] {}, [gone] { gone->store(true); });
  pool_.Run(NameOf(tenant),
            [body = std::move(body), responder, work = std::move(work), then = std::move(then),
             ticket = std::move(ticket), gone = std::move(gone)] {
              if (gone->load()) return;
              auto result = std::make_shared<ApiResult<T>>(work(body));
              responder->Post([responder, then, ticket, result] {
                if (!responder->Done()) then(std::move(*result));
              });
            });
}

void Api::Generate(PrepareFunction prepare, Request request, ResponderPtr responder) {
  const auto tenant = CallerOrRefuse(request, *responder);
  if (!tenant) return;
  const LoadedModel* model = ModelOrRefuse(*responder);
  if (!model) return;
  if (IsShort(request.body)) {
    if (auto prepared = prepare(request.body, *model, Compiling::kLater)) {
      return Submit(std::move(*prepared), *model, *tenant, responder);
    }
  }
  Offload<Prepared>(
      std::move(request.body), *tenant, responder,
      [prepare, model](const std::string& body) { return *prepare(body, *model, Compiling::kNow); },
      [this, model, tenant = *tenant, responder](ApiResult<Prepared> prepared) {
        Submit(std::move(prepared), *model, tenant, responder);
      });
}

void Api::Submit(ApiResult<Prepared> result, const LoadedModel& model, const TenantPtr& tenant,
                 const ResponderPtr& responder) {
  if (const auto* error = std::get_if<ApiError>(&result)) return Refuse(*error, *responder, tenant);
  auto& prepared = std::get<Prepared>(result);
  // What can never be taken is no matter of trying again later.
  const auto choices = std::ssize(prepared.requests);
  if (const int32_t most = model.engine->max_requests(tenant.get()); choices > most) {
    return Refuse(ApiError{400,
                           fmt::format("the request asks for {} choices (prompts times 'n'); at "
                                       "most {} may run and wait at once here: send fewer",
                                       choices, most),
                           "invalid_request_error", "n", "invalid_value"},
                  *responder, tenant);
  }
  std::vector<int32_t> prompt_tokens;
  for (auto& request : prepared.requests) {
    request.tenant = tenant;
    prompt_tokens.push_back(static_cast<int32_t>(request.prompt.size()));
  }
  const std::string id = prepared.writer->id();
  prepared.answer.max_backlog_bytes = options_.max_backlog_bytes;
  const bool stream = prepared.answer.stream;
  auto counter =
      CounterOfChoices(tenant, prepared.requests.size(), prepared.answer.choices_per_prompt);
  const auto job = std::make_shared<GenerationJob>(
      *model.engine, responder, std::move(prepared.writer), std::move(prepared.answer),
      std::move(counter), [this] { metrics_.CountRejected("stream_buffer"); });
  if (auto started = job->Start(std::move(prepared.requests)); !started) {
    return RefuseFromEngine(started.error(), *responder, tenant);
  }
  for (const int32_t tokens : prompt_tokens) metrics_.CountAdmitted(tokens);
  spdlog::debug("admitted {} stream={} choices={} prompt_tokens={}", id, stream,
                prompt_tokens.size(), prompt_tokens.front());
}

// Counts what the tenant has used also where the client has left.
std::function<void(FinishReason, const Usage&)> Api::CounterOf(const TenantPtr& tenant) {
  if (!tenant) return nullptr;
  return [this, tenant](FinishReason reason, const Usage& usage) {
    metrics_.CountTenantFinished(tenant->name, MetricsEngineObserver::As(reason),
                                 usage.prompt_tokens, usage.completion_tokens);
  };
}

GenerationJob::OnFinish Api::CounterOfChoices(const TenantPtr& tenant, size_t choices, size_t n) {
  struct Prompt {
    size_t ended = 0;  // of its choices
    int64_t most_tokens = 0;
  };
  return [this, n, of_tenant = CounterOf(tenant), prompts = std::vector<Prompt>(choices / n)](
             size_t choice, FinishReason reason, const Usage& usage) mutable {
    if (of_tenant) of_tenant(reason, usage);
    Prompt& prompt = prompts[choice / n];
    prompt.most_tokens = std::max(prompt.most_tokens, usage.completion_tokens);
    if (++prompt.ended < n) return;
    metrics_.CountPromptFinished(static_cast<int32_t>(n), static_cast<int32_t>(prompt.most_tokens));
  };
}

void Api::RefuseFromEngine(const Error& refused, http::Responder& responder,
                           const TenantPtr& tenant) {
  ApiError error = FromEngine(refused);
  const bool sleeping = state_.Get().phase == ServingState::Phase::kSleeping;
  if (error.code == "draining" && sleeping) error.code = "model_sleeping";
  Refuse(error, responder, tenant);
}

void Api::Embed(Request request, ResponderPtr responder) {
  const auto tenant = CallerOrRefuse(request, *responder);
  if (!tenant) return;
  const LoadedModel* model = ModelOrRefuse(*responder);
  if (!model) return;
  if (IsShort(request.body)) {
    return SubmitEmbeddings(PrepareEmbeddings(request.body, *model), *model, *tenant, responder);
  }
  Offload<PreparedEmbeddings>(
      std::move(request.body), *tenant, responder,
      [model](const std::string& body) { return PrepareEmbeddings(body, *model); },
      [this, model, tenant = *tenant, responder](ApiResult<PreparedEmbeddings> prepared) {
        SubmitEmbeddings(std::move(prepared), *model, tenant, responder);
      });
}

void Api::SubmitEmbeddings(ApiResult<PreparedEmbeddings> result, const LoadedModel& model,
                           const TenantPtr& tenant, const ResponderPtr& responder) {
  if (const auto* error = std::get_if<ApiError>(&result)) return Refuse(*error, *responder, tenant);
  auto& prepared = std::get<PreparedEmbeddings>(result);
  // What is held until all is there: the engine bounds requests, not lists of them.
  size_t bytes = prepared.requests.size() * static_cast<size_t>(model.engine->embedding_width()) *
                 sizeof(float);
  for (auto& request : prepared.requests) {
    request.tenant = tenant;
    bytes += sizeof(request) + request.prompt.size() * sizeof(TokenId);
  }
  auto [ticket, tenant_limit] = embeddings_gate_->TryEnter(NameOf(tenant), bytes);
  if (!ticket) {
    constexpr char kWhy[] = "too many embeddings are being made; try again later";
    return Refuse(tenant_limit ? TenantLimit(kWhy)
                               : ApiError{429, kWhy, "rate_limit_error", "", "admission_full", 1},
                  *responder, tenant);
  }
  const int32_t in_flight =
      std::clamp(model.engine->max_requests(tenant.get()) / 2, 1, kEmbeddingsInFlight);
  const auto job = std::make_shared<EmbeddingJob>(
      *model.engine, responder,
      EmbeddingOptions{
          .model = model.served_name,
          .base64 = prepared.base64,
          .ticket = std::make_shared<GateAndTicket>(embeddings_gate_, std::move(ticket)),
          .in_flight = in_flight},
      [this](int32_t prompt_tokens) { metrics_.CountAdmitted(prompt_tokens); }, CounterOf(tenant));
  if (auto started = job->Start(std::move(prepared.requests)); !started) {
    RefuseFromEngine(started.error(), *responder, tenant);
  }
}

void Api::AnswerText(TextFunction function, Request request, ResponderPtr responder) {
  const auto tenant = CallerOrRefuse(request, *responder);
  if (!tenant) return;
  const LoadedModel* model = ModelOrRefuse(*responder);
  if (!model) return;
  const auto answer_with = [this, responder](ApiResult<std::string> answer) {
    if (const auto* error = std::get_if<ApiError>(&answer)) return Refuse(*error, *responder);
    Response response;
    response.body = std::get<std::string>(std::move(answer));
    responder->Send(std::move(response));
  };
  if (IsShort(request.body)) return answer_with(function(request.body, *model));
  Offload<std::string>(
      std::move(request.body), *tenant, responder,
      [function, model](const std::string& body) { return function(body, *model); }, answer_with);
}

void Api::ListModels(http::Responder& responder) {
  const LoadedModel* model = ModelOrRefuse(responder);
  if (!model) return;
  responder.Send(
      JsonResponse(200, {{"object", "list"}, {"data", json::array({ModelJson(*model)})}}));
}

void Api::ShowModel(const std::string& id, http::Responder& responder) {
  const LoadedModel* model = ModelOrRefuse(responder);
  if (!model) return;
  if (id != model->served_name) return Refuse(ModelNotFound(id, *model), responder);
  responder.Send(JsonResponse(200, ModelJson(*model)));
}

// True if work has waited for longer than `limit` (0: none); 503 is then the answer.
bool Api::RefuseIfStalled(Seconds limit, http::Responder& responder) {
  const auto view = state_.Get();
  const Seconds stalled = view.model ? view.model->engine->StalledFor() : Seconds(0);
  if (limit.count() <= 0 || stalled <= limit) return false;
  responder.Send(JsonResponse(
      503,
      {{"status", "stalled"},
       {"reason", fmt::format("work has waited {:.0f} s without a token; the limit is {:.0f} s",
                              stalled.count(), limit.count())}}));
  return true;
}

void Api::Live(http::Responder& responder) {
  if (RefuseIfStalled(options_.stall_timeout, responder)) return;
  responder.Send(JsonResponse(200, {{"status", "live"}}));
}

void Api::Ready(http::Responder& responder) {
  const auto view = state_.Get();
  if (view.phase == ServingState::Phase::kReady) {
    if (RefuseIfStalled(options_.stall_timeout * kUnreadyStallShare, responder)) return;
    return responder.Send(JsonResponse(200, {{"status", "ready"}}));
  }
  const char* status = view.phase == ServingState::Phase::kLoading    ? "loading"
                       : view.phase == ServingState::Phase::kSleeping ? "sleeping"
                                                                      : "draining";
  responder.Send(JsonResponse(503, {{"status", status}, {"reason", view.reason}}));
}

void Api::Metrics(http::Responder& responder) {
  MetricsSnapshot now;
  if (const LoadedModel* model = state_.Get().model) {
    const EngineStats stats = model->engine->Stats();
    now.running = stats.running;
    now.waiting = stats.waiting;
    now.kv_tokens_used = int64_t{stats.kv_blocks_used} * stats.kv_block_tokens;
    now.kv_tokens_capacity = int64_t{stats.kv_blocks_total} * stats.kv_block_tokens;
    now.tokens_per_second = stats.tokens_per_second;
    now.sleeping = stats.asleep;
    now.prompt_tokens_total = stats.prompt_tokens_total;
    now.prompt_tokens_cached_total = stats.prompt_tokens_cached_total;
    now.prompt_tokens_computed_total = stats.prompt_tokens_total - stats.prompt_tokens_cached_total;
    now.generation_tokens_total = stats.generated_tokens_total;
    now.preemptions_kv_full_total = stats.preemptions_kv_full_total;
    now.preemptions_fairness_total = stats.preemptions_fairness_total;
    now.preempted_tokens_total = stats.preempted_tokens_total;
    const StepTimeCoefficients& times = stats.step_times;
    now.step_times = {times.base, times.per_decode_sequence, times.per_prefill_token,
                      times.per_attended_token, times.per_loaded_token};
    now.step_time_error_ratio = stats.step_time_error_ratio;
    now.prefix_queries_total = stats.prefix_queries_total;
    now.prefix_hits_total = stats.prefix_hits_total;
  }
  Response response;
  response.content_type = "text/plain; version=0.0.4; charset=utf-8";
  response.body = metrics_.Render(now);
  responder.Send(std::move(response));
}

}  // namespace quern::server
