#include "runtime/server/embedding_job.h"

#include <fmt/format.h>
#include <openssl/evp.h>
#include <spdlog/spdlog.h>

#include <bit>
#include <chrono>
#include <cmath>
#include <cstring>
#include <exception>
#include <iterator>
#include <utility>

#include "runtime/server/logprob_json.h"

namespace quern::server {

namespace {

// Enough for the engine's thread to get from one line to the next, even on a busy machine.
constexpr std::chrono::seconds kPatience{5};

}  // namespace

static_assert(std::endian::native == std::endian::little, "base64 is of little-endian numbers");

bool ScaleToOne(std::vector<float>& values) {
  double power = 0;
  for (const float value : values) power += double{value} * value;
  if (!std::isfinite(power)) return false;
  const double scale = power > 0 ? 1 / std::sqrt(power) : 0;
  for (float& value : values) value = static_cast<float>(value * scale);
  return true;
}

std::string EmbeddingJson(const std::vector<float>& values, bool base64) {
  if (base64) {
    const size_t bytes = values.size() * sizeof(float);
    std::string text((bytes + 2) / 3 * 4 + 1, '\0');  // EVP_EncodeBlock ends it with 0
    const int length = EVP_EncodeBlock(reinterpret_cast<unsigned char*>(text.data()),
                                       reinterpret_cast<const unsigned char*>(values.data()),
                                       static_cast<int>(bytes));
    text.resize(static_cast<size_t>(length));
    return '"' + text + '"';
  }
  std::string text = "[";
  for (const float value : values) {
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
    const auto prompt_tokens = static_cast<int32_t>(requests_[input].prompt.size());
    // A copy: where it is refused, it must be there for the next try.
    auto id = engine_.Submit(requests_[input], [self = shared_from_this(),
                                                input](GenerationDelta delta) {
      auto shared = std::make_shared<GenerationDelta>(std::move(delta));
      self->responder_->Post([self, input, shared] { self->OnDelta(input, std::move(*shared)); });
    });
    if (!id) {
      const ErrorCode code = id.error().code;
      const bool full =
          code == ErrorCode::kResourceExhausted || code == ErrorCode::kPermissionDenied;
      if (full && in_flight_ > 0) return {};
      // The place of the input that is done is given back a moment after it was told.
      const auto now = std::chrono::steady_clock::now();
      if (full && input > 0 && now < patient_until_.value_or(now + kPatience)) {
        if (!patient_until_) patient_until_ = now + kPatience;
        responder_->Post([self = shared_from_this()] { self->GoOn(); });
        return {};
      }
      return std::move(id).error();
    }
    patient_until_.reset();
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
  try {
    Take(input, std::move(delta));
  } catch (const std::exception& error) {
    spdlog::error("embeddings could not be made: {}", error.what());
    if (!ended_) {
      Fail({500, "the server failed to make the answer", "server_error", "", "internal_error"});
    }
  }
}

void EmbeddingJob::Take(size_t input, GenerationDelta delta) {
  if (*delta.finish == FinishReason::kCancelled) return Fail(CutByDraining());
  if (*delta.finish == FinishReason::kError || delta.embedding.empty() ||
      !ScaleToOne(delta.embedding)) {
    return Fail({500, delta.error.empty() ? "the model gave no embedding" : delta.error,
                 "server_error", "", "generation_failed"});
  }
  vectors_[input] = std::move(delta.embedding);
  prompt_tokens_ += delta.prompt_tokens;
  if (++done_ == vectors_.size()) return Answer();
  GoOn();
}

void EmbeddingJob::GoOn() {
  if (ended_) return;
  if (const Status status = SubmitMore(); !status.ok()) Fail(FromEngine(status.error()));
}

void EmbeddingJob::Fail(const ApiError& error) {
  Stop();
  responder_->Send(ToResponse(error));
}

void EmbeddingJob::Answer() {
  http::Response response;
  std::string& body = response.body;
  body = R"({"object":"list","data":[)";
  for (size_t i = 0; i < vectors_.size(); ++i) {
    fmt::format_to(std::back_inserter(body), R"({}{{"object":"embedding","index":{},"embedding":)",
                   i > 0 ? "," : "", i);
    body += EmbeddingJson(vectors_[i], options_.base64);
    vectors_[i] = {};
    body += '}';
  }
  fmt::format_to(std::back_inserter(body),
                 R"(],"model":{},"usage":{{"prompt_tokens":{},"total_tokens":{}}}}})",
                 QuotedJson(options_.model), prompt_tokens_, prompt_tokens_);
  ended_ = true;
  responder_->Send(std::move(response));
}

}  // namespace quern::server
