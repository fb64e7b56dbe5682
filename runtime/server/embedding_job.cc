#include "runtime/server/embedding_job.h"

#include <fmt/format.h>
#include <openssl/evp.h>
#include <spdlog/spdlog.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <iterator>
#include <utility>

#include "runtime/server/logprob_json.h"

namespace quern::server {

static_assert(std::endian::native == std::endian::little, "base64 is of little-endian numbers");

std::optional<std::string> EmbeddingJson(const std::vector<float>& values, bool base64) {
  double power = 0;
  for (const float value : values) power += double{value} * value;
  if (!std::isfinite(power)) return std::nullopt;
  const double scale = power > 0 ? 1 / std::sqrt(power) : 0;
  std::vector<float> unit;
  unit.reserve(values.size());
  for (const float value : values) unit.push_back(static_cast<float>(value * scale));
  if (base64) {
    const size_t bytes = unit.size() * sizeof(float);
    std::string text((bytes + 2) / 3 * 4 + 1, '\0');  // EVP_EncodeBlock ends it with 0
    const int length = EVP_EncodeBlock(reinterpret_cast<unsigned char*>(text.data()),
                                       reinterpret_cast<const unsigned char*>(unit.data()),
                                       static_cast<int>(bytes));
    text.resize(static_cast<size_t>(length));
    return '"' + text + '"';
  }
  std::string text = "[";
  for (const float value : unit) {
    fmt::format_to(std::back_inserter(text), "{}{}", text.size() > 1 ? "," : "", value);
  }
  return text + "]";
}

EmbeddingJob::EmbeddingJob(EngineCore& engine, http::ResponderPtr responder,
                           EmbeddingOptions options, OnAdmitted on_admitted, OnFinish on_finish)
    : engine_(engine),
      responder_(std::move(responder)),
      options_(std::move(options)),
      on_admitted_(std::move(on_admitted)),
      on_finish_(std::move(on_finish)) {}

Status EmbeddingJob::Start(std::vector<GenerationRequest> requests) {
  requests_ = std::move(requests);
  vectors_.resize(requests_.size());
  if (Status status = SubmitMore(); !status.ok()) {
    Stop();
    return status;
  }
  responder_->SetCallbacks([] {}, [self = shared_from_this()] { self->Stop(); });
  return {};
}

void EmbeddingJob::Stop() {
  ended_ = true;
  for (const RequestId id : ids_) engine_.Cancel(id);
}

// What the engine has no room for now is tried again when an input is done.
Status EmbeddingJob::SubmitMore() {
  while (ids_.size() < requests_.size() && in_flight_ < options_.in_flight) {
    const size_t input = ids_.size();
    const bool may_wait = in_flight_ > 0;
    const auto prompt_tokens = static_cast<int32_t>(requests_[input].prompt.size());
    // A copy where it may be refused: it must be there for the next try.
    GenerationRequest request = may_wait ? requests_[input] : std::move(requests_[input]);
    auto id = engine_.Submit(std::move(request), [self = shared_from_this(),
                                                  input](GenerationDelta delta) {
      auto shared = std::make_shared<GenerationDelta>(std::move(delta));
      self->responder_->Post([self, input, shared] { self->OnDelta(input, std::move(*shared)); });
    });
    if (!id) {
      const ErrorCode code = id.error().code;
      const bool full =
          code == ErrorCode::kResourceExhausted || code == ErrorCode::kPermissionDenied;
      if (full && may_wait) return {};
      return std::move(id).error();
    }
    on_admitted_(prompt_tokens);
    requests_[input] = {};
    ids_.push_back(*id);
    ++in_flight_;
  }
  return {};
}

void EmbeddingJob::OnDelta(size_t input, GenerationDelta delta) {
  if (!delta.finish) return;
  --in_flight_;
  if (on_finish_) {
    on_finish_(*delta.finish,
               {.prompt_tokens = delta.prompt_tokens, .cached_tokens = delta.cached_tokens});
  }
  if (ended_) return;
  if (*delta.finish == FinishReason::kCancelled) {
    return Fail(CutByDraining());
  }
  auto vector = EmbeddingJson(delta.embedding, options_.base64);
  if (*delta.finish == FinishReason::kError || delta.embedding.empty() || !vector) {
    return Fail({500, delta.error.empty() ? "the model gave no embedding" : delta.error,
                 "server_error", "", "generation_failed"});
  }
  vectors_[input] = *std::move(vector);
  prompt_tokens_ += delta.prompt_tokens;
  if (++done_ == vectors_.size()) return Answer();
  if (const Status status = SubmitMore(); !status.ok()) Fail(FromEngine(status.error()));
}

void EmbeddingJob::Fail(const ApiError& error) {
  Stop();
  responder_->Send(ToResponse(error));
}

void EmbeddingJob::Answer() {
  ended_ = true;
  http::Response response;
  std::string& body = response.body;
  body = R"({"object":"list","data":[)";
  for (size_t i = 0; i < vectors_.size(); ++i) {
    fmt::format_to(std::back_inserter(body), R"({}{{"object":"embedding","index":{},"embedding":)",
                   i > 0 ? "," : "", i);
    body += std::exchange(vectors_[i], {});
    body += '}';
  }
  fmt::format_to(std::back_inserter(body),
                 R"(],"model":{},"usage":{{"prompt_tokens":{},"total_tokens":{}}}}})",
                 QuotedJson(options_.model), prompt_tokens_, prompt_tokens_);
  responder_->Send(std::move(response));
}

}  // namespace quern::server
