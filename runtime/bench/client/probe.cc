#include "runtime/bench/client/probe.h"

#include <nlohmann/json.hpp>

#include "runtime/bench/client/load.h"
#include "runtime/bench/stream_event.h"

namespace quern::bench {
namespace {

using nlohmann::json;

// The object's text, else "".
std::string TextOf(const json& object, const char* key) {
  if (!object.is_object()) return "";
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}

json BodyOf(const HttpAnswer& answer) {
  return answer.status == kStatusOk ? json::parse(answer.body, nullptr, /*allow_exceptions=*/false)
                                    : json();
}

Error Refused(const HttpRequest& request, const HttpAnswer& answer) {
  return MakeError(ErrorCode::kUnsupported, "{} answered with status {}: {}", request.target,
                   answer.status, ReadErrorMessage(answer.body));
}

Result<int32_t> CountByTokenize(HttpClient& client, const BaseUrl& url, const BodyOptions& body,
                                const std::string& text) {
  const HttpRequest request{.target = url.root + "/tokenize", .body = TokenizeBody(body, text)};
  QUERN_ASSIGN(const HttpAnswer answer, Fetch(client, request));
  const json counted = BodyOf(answer);
  if (counted.is_object() && counted.contains("count") && counted["count"].is_number_integer()) {
    return counted["count"].get<int32_t>();
  }
  return Refused(request, answer);
}

Result<int32_t> CountByUsage(HttpClient& client, const BaseUrl& url, const BodyOptions& body,
                             const std::string& text) {
  const HttpRequest request{.target = url.path + EndpointPath(body.endpoint),
                            .body = ProbeBody(body, text)};
  QUERN_ASSIGN(const HttpAnswer answer, Fetch(client, request));
  if (RefusalOf(answer.status) == Refusal::kRefusesAll) {
    return MakeError(ErrorCode::kPermissionDenied, "status {}: {}", answer.status,
                     ReadErrorMessage(answer.body));
  }
  if (answer.status != kStatusOk) return Refused(request, answer);
  const auto usage = ReadUsage(answer.body);
  if (usage && usage->prompt >= 0) return usage->prompt;
  return MakeError(ErrorCode::kUnsupported, "{} answered without usage.prompt_tokens",
                   request.target);
}

}  // namespace

Result<ServerFacts> AskServer(HttpClient& client, const BaseUrl& url, const std::string& model) {
  ServerFacts facts;
  facts.model = model;
  const HttpRequest models{.method = "GET", .target = url.path + "/models"};
  auto listed = Fetch(client, models);
  if (!listed) {
    return std::move(listed).error().Within(fmt::format("cannot reach {}", url.Show()));
  }
  facts.header = listed->server;
  if (listed->status == kStatusOk) ReadModels(listed->body, facts);
  if (facts.model.empty()) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "{} lists no model (status {} of {}): name one with --model", url.Show(),
                     listed->status, models.target);
  }
  QUERN_ASSIGN(const HttpAnswer version,
               Fetch(client, {.method = "GET", .target = url.root + "/version"}));
  facts.version = TextOf(BodyOf(version), "version");
  return facts;
}

Result<WordTokens> AskForWords(HttpClient& client, const BaseUrl& url, const BodyOptions& body,
                               ServerFacts& facts) {
  auto words =
      LearnWords([&](const std::string& text) { return CountByTokenize(client, url, body, text); });
  if (words.ok()) {
    facts.tokens_by = "/tokenize";
    return words;
  }
  words =
      LearnWords([&](const std::string& text) { return CountByUsage(client, url, body, text); });
  if (words.ok()) facts.tokens_by = "usage";
  return words;
}

Result<ProcessFacts> AskMetrics(HttpClient& client, const BaseUrl& url) {
  auto answer = Fetch(client, {.method = "GET", .target = url.path});
  if (!answer) return std::move(answer).error().Within(fmt::format("cannot reach {}", url.Show()));
  if (answer->status == kStatusOk) return ReadProcessFacts(answer->body);
  return MakeError(ErrorCode::kUnsupported, "{} answered with status {}", url.Show(),
                   answer->status);
}

}  // namespace quern::bench
