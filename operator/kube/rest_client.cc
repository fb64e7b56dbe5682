#include "operator/kube/rest_client.h"

#include <algorithm>
#include <charconv>
#include <condition_variable>
#include <mutex>

#include "operator/kube/api_status.h"
#include "operator/kube/http_transport.h"
#include "operator/kube/object.h"
#include "operator/kube/token_source.h"
#include "operator/kube/url.h"
#include "operator/kube/watch_stream.h"

namespace quern::control::kube {
namespace {

constexpr int kListRestarts = 3;
constexpr size_t kMaxListItems = 1'000'000;
constexpr int kPageSize = 50;  // where a list in one piece turns out too large for that
// etcd's first write makes revision 2, so that no object ever has this resource version: as the
// precondition of an apply it means "only if there is none yet". (Tried on Kubernetes 1.35.)
constexpr char kNoObjectHas[] = "1";

// What a call is, for messages and metrics.
struct Verb {
  const char* name;
  const char* method;
  const char* content_type;
};
constexpr Verb kGet{"get", "GET", ""};
constexpr Verb kList{"list", "GET", ""};
constexpr Verb kWatch{"watch", "GET", ""};
constexpr Verb kCreate{"create", "POST", "application/json"};
constexpr Verb kUpdate{"update", "PUT", "application/json"};
constexpr Verb kApply{"apply", "PATCH", "application/apply-patch+yaml"};
constexpr Verb kPatch{"patch", "PATCH", "application/merge-patch+json"};
constexpr Verb kDelete{"delete", "DELETE", "application/json"};

// Retry-After in seconds; a date, which the API server never sends, counts as none.
std::optional<std::chrono::milliseconds> ParseRetryAfter(const std::string& text) {
  int seconds = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), seconds);
  if (error != std::errc() || end != text.data() + text.size() || seconds < 0) return std::nullopt;
  return std::chrono::seconds(seconds);
}

std::string Describe(const Verb& verb, const ResourceType& type, const std::string& ns,
                     const std::string& name) {
  std::string text = std::string(verb.name) + " " + type.plural;
  if (!ns.empty() || !name.empty()) text += " " + ObjectKey{ns, name}.ToString();
  return text;
}

// The server leaves apiVersion and kind out of a list's items.
void FillType(const ResourceType& type, json& object) {
  if (!object.contains("apiVersion")) {
    object["apiVersion"] = type.group.empty() ? type.version : type.group + "/" + type.version;
  }
  if (!object.contains("kind")) object["kind"] = type.kind;
}

class RestClient : public Client {
 public:
  RestClient(const ClientConfig& config, const RestClientOptions& options,
             std::unique_ptr<HttpTransport> transport, std::string prefix)
      : options_(options),
        token_(config),
        transport_(std::move(transport)),
        prefix_(std::move(prefix)) {}

  Result<json> Get(const ResourceType& type, const std::string& ns,
                   const std::string& name) override {
    return Object(kGet, type, ns, name, "", {}, "");
  }

  Result<ObjectList> List(const ResourceType& type, const std::string& ns,
                          const ListOptions& options) override {
    ListOptions attempt = options;
    for (int restart = 0;; ++restart) {
      auto list = ListPages(type, ns, attempt);
      const bool expired = !list && list.error().code == ErrorCode::kExpired;
      if (!expired || restart >= kListRestarts) return list;
      // The snapshot that the pages came from is gone: start over, at last in one piece.
      attempt.resource_version.clear();
      if (restart + 1 == kListRestarts) attempt.limit = 0;
    }
  }

  Result<json> Create(const ResourceType& type, const std::string& ns,
                      const json& object) override {
    QUERN_ASSIGN(const std::string body, Body(kCreate, type, ns, object));
    return Object(kCreate, type, ns, "", "", {}, body);
  }

  Result<json> Update(const ResourceType& type, const std::string& ns,
                      const json& object) override {
    QUERN_ASSIGN(const std::string body, Body(kUpdate, type, ns, object));
    return Object(kUpdate, type, ns, ObjectName(object), "", {}, body);
  }

  Result<json> Apply(const ResourceType& type, const std::string& ns, const json& object,
                     const ApplyOptions& options) override {
    json wanted = object;
    if (options.must_create) wanted["metadata"]["resourceVersion"] = kNoObjectHas;
    QUERN_ASSIGN(const std::string body, Body(kApply, type, ns, wanted));
    return Object(
        kApply, type, ns, ObjectName(object), options.subresource,
        {{"fieldManager", options.field_manager}, {"force", options.force ? "true" : "false"}},
        body);
  }

  Result<json> MergePatch(const ResourceType& type, const std::string& ns, const std::string& name,
                          const json& patch, const std::string& subresource) override {
    QUERN_ASSIGN(const std::string body, Dump(patch, Describe(kPatch, type, ns, name)));
    return Object(kPatch, type, ns, name, subresource, {}, body);
  }

  Status Delete(const ResourceType& type, const std::string& ns, const std::string& name,
                const DeleteOptions& options) override {
    json body{{"apiVersion", "v1"},
              {"kind", "DeleteOptions"},
              {"propagationPolicy", options.propagation}};
    if (!options.uid.empty()) body["preconditions"]["uid"] = options.uid;
    QUERN_ASSIGN(const json deleted, Object(kDelete, type, ns, name, "", {}, body.dump()));
    (void)deleted;
    return {};
  }

  Status Watch(const ResourceType& type, const std::string& ns, const WatchOptions& options,
               const std::function<bool(const WatchEvent&)>& on_event,
               std::stop_token stop) override {
    const std::string what = Describe(kWatch, type, ns, "");
    QUERN_ASSIGN(HttpRequest request,
                 Request(kWatch, type, ns, "", "",
                         {{"watch", "1"},
                          {"allowWatchBookmarks", "true"},
                          {"resourceVersion", options.resource_version},
                          {"timeoutSeconds", std::to_string(options.timeout.count())},
                          {"labelSelector", options.label_selector},
                          {"fieldSelector", options.field_selector}}));
    // The server's own end of the watch, and a while for it to get here.
    const SteadyTime deadline =
        std::chrono::steady_clock::now() + options.timeout + options_.call_timeout;
    const HttpTiming timing{deadline, options_.watch_idle_timeout};
    for (Attempts attempts;;) {
      WatchStream stream(what, options_.max_watch_line_bytes, options_.keep);
      HttpResponse refusal;
      bool wanted = true;
      const auto on_bytes = [&](const HttpHead& head, std::string_view bytes) -> Result<bool> {
        refusal.head = head;
        if (head.status == 200) {
          auto go_on = stream.Feed(bytes, on_event);
          wanted = go_on.ok() && *go_on;
          return go_on;
        }
        refusal.body.append(bytes.substr(0, kMaxRefusalBytes - refusal.body.size()));
        return true;
      };
      request.token = token_.Get();
      const SteadyTime begin = std::chrono::steady_clock::now();
      auto done = transport_->Exchange(request, timing, on_bytes, stop);
      Record(kWatch, type, refusal.head.status, begin);
      if (!done) return OwnMessage(std::move(done).error(), what);
      if (stop.stop_requested() || !wanted) return {};
      if (refusal.head.status == 200) return stream.Finish();
      if (MayTryAgain(refusal.head, request.token, deadline, attempts, stop)) continue;
      if (stop.stop_requested()) return {};
      return ErrorFromHttp(refusal.head.status, refusal.body, what);
    }
  }

 private:
  static constexpr size_t kMaxRefusalBytes = 64 << 10;

  struct Attempts {
    int waits = 0;
    bool token_refreshed = false;
  };

  // Errors made by WatchStream name the watch already.
  static Error OwnMessage(Error error, const std::string& what) {
    return error.message.starts_with(what) ? error : std::move(error).Within(what);
  }

  Result<HttpRequest> Request(const Verb& verb, const ResourceType& type, const std::string& ns,
                              const std::string& name, const std::string& subresource,
                              const Query& query) {
    QUERN_ASSIGN(const std::string path, ResourcePath(type, ns, name, subresource, query));
    return HttpRequest{verb.method, prefix_ + path, "", verb.content_type, ""};
  }

  static Result<std::string> Dump(const json& object, const std::string& what) {
    try {
      return object.dump();
    } catch (const std::exception& error) {  // text that is no UTF-8
      return MakeError(ErrorCode::kInvalidArgument, "{}: {}", what, error.what());
    }
  }

  static Result<std::string> Body(const Verb& verb, const ResourceType& type, const std::string& ns,
                                  const json& object) {
    const std::string what = Describe(verb, type, ns, ObjectName(object));
    const bool generated = std::string_view(verb.name) == "create";
    if (!object.is_object() || (ObjectName(object).empty() && !generated)) {
      return MakeError(ErrorCode::kInvalidArgument, "{}: the object has no metadata.name", what);
    }
    json complete = object;
    FillType(type, complete);
    return Dump(complete, what);
  }

  // The answer to a call as JSON.
  json Parse(const Verb& verb, const std::string& body) const {
    const std::string_view name = verb.name;
    if (!options_.keep || name == "get")
      return json::parse(body, nullptr, /*allow_exceptions=*/false);
    return ParseKept(body, name == "list" ? JsonShape::kList : JsonShape::kObject, *options_.keep);
  }

  // How long a page of a list may be. A single object is taken whatever page it makes, and so is
  // the whole list where it must come in one piece (0).
  size_t PageBytes(int limit) const {
    return limit <= 1 ? options_.max_body_bytes
                      : std::min(options_.max_body_bytes, options_.max_page_bytes);
  }

  // One call whose answer is an object. `too_large` is set when that is longer than allowed.
  Result<json> Object(const Verb& verb, const ResourceType& type, const std::string& ns,
                      const std::string& name, const std::string& subresource, const Query& query,
                      const std::string& body) {
    return Object(verb, type, ns, name, subresource, query, body, options_.max_body_bytes, nullptr);
  }
  Result<json> Object(const Verb& verb, const ResourceType& type, const std::string& ns,
                      const std::string& name, const std::string& subresource, const Query& query,
                      const std::string& body, size_t max_bytes, bool* too_large) {
    const std::string what = Describe(verb, type, ns, name);
    const bool on_collection =
        std::string_view(verb.name) == "create" || std::string_view(verb.name) == "list";
    if (name.empty() && !on_collection) {  // a DELETE of the collection would be next to it
      return MakeError(ErrorCode::kInvalidArgument, "{}: no name is given", what);
    }
    if (type.namespaced && ns.empty() && std::string_view(verb.name) == "create") {
      return MakeError(ErrorCode::kInvalidArgument, "{}: a namespace is needed", what);
    }
    QUERN_ASSIGN(HttpRequest request, Request(verb, type, ns, name, subresource, query));
    request.body = body;
    const SteadyTime deadline = std::chrono::steady_clock::now() + options_.call_timeout;
    for (Attempts attempts;;) {
      request.token = token_.Get();
      const SteadyTime begin = std::chrono::steady_clock::now();
      auto response = Send(*transport_, request, {deadline, options_.idle_timeout}, max_bytes, {});
      Record(verb, type, response ? response->head.status : 0, begin);
      if (!response) {
        if (too_large != nullptr)
          *too_large = response.error().code == ErrorCode::kResourceExhausted;
        return std::move(response).error().Within(what);
      }
      const int status = response->head.status;
      if (status >= 200 && status < 300) {
        json object = Parse(verb, response->body);
        if (object.is_object()) return object;
        return MakeError(ErrorCode::kDataLoss, "{}: the answer of {} bytes is no JSON object", what,
                         response->body.size());
      }
      if (MayTryAgain(response->head, request.token, deadline, attempts, {})) continue;
      return ErrorFromHttp(status, response->body, what);
    }
  }

  // After a refusal: with a rotated token at once, and when the server is busy after the time that
  // it asks for.
  bool MayTryAgain(const HttpHead& head, const std::string& token, SteadyTime deadline,
                   Attempts& attempts, std::stop_token stop) {
    if (head.status == 401 && !attempts.token_refreshed) {
      attempts.token_refreshed = true;
      return token_.Refresh(token);
    }
    if (head.status != 429 && head.status != 503) return false;
    const auto wait = ParseRetryAfter(head.retry_after);
    if (!wait || *wait > options_.max_retry_after || attempts.waits >= options_.max_retries) {
      return false;
    }
    ++attempts.waits;
    const SteadyTime until = std::chrono::steady_clock::now() + *wait;
    if (until >= deadline) return false;
    std::mutex mutex;
    std::condition_variable_any never;
    std::unique_lock lock(mutex);
    never.wait_until(lock, stop, until, [] { return false; });
    return !stop.stop_requested();
  }

  Result<ObjectList> ListPages(const ResourceType& type, const std::string& ns,
                               const ListOptions& options) {
    ObjectList list;
    std::string next;
    int limit = options.limit;
    for (;;) {
      // The snapshot is named by the token of the second page on; both together are refused.
      bool too_large = false;
      auto answer = Object(kList, type, ns, "", "",
                           {{"labelSelector", options.label_selector},
                            {"fieldSelector", options.field_selector},
                            {"limit", limit > 0 ? std::to_string(limit) : ""},
                            {"resourceVersion", next.empty() ? options.resource_version : ""},
                            {"continue", next}},
                           "", PageBytes(limit), &too_large);
      if (too_large && limit != 1) {  // the same page again, with fewer objects
        limit = limit > 1 ? limit / 2 : kPageSize;
        continue;
      }
      if (!answer) return std::move(answer).error();
      json page = std::move(*answer);
      if (!page.contains("items") || !(page["items"].is_array() || page["items"].is_null())) {
        return MakeError(ErrorCode::kDataLoss, "{}: the answer has no items",
                         Describe(kList, type, ns, ""));
      }
      for (json& item : page["items"]) {
        if (!item.is_object()) continue;
        FillType(type, item);
        if (options.transform) options.transform(item);
        list.items.push_back(std::move(item));
      }
      if (list.items.size() > kMaxListItems) {
        return MakeError(ErrorCode::kResourceExhausted, "{}: more than {} objects",
                         Describe(kList, type, ns, ""), kMaxListItems);
      }
      list.resource_version = ObjectResourceVersion(page);
      next = StringAt(page, "/metadata/continue");
      if (next.empty()) break;
    }
    if (list.resource_version.empty()) {
      return MakeError(ErrorCode::kDataLoss, "{}: the answer has no metadata.resourceVersion",
                       Describe(kList, type, ns, ""));
    }
    return list;
  }

  void Record(const Verb& verb, const ResourceType& type, int code, SteadyTime begin) {
    if (!options_.on_call) return;
    options_.on_call({verb.name, type.plural, code, std::chrono::steady_clock::now() - begin});
  }

  const RestClientOptions options_;
  TokenSource token_;
  const std::unique_ptr<HttpTransport> transport_;
  const std::string prefix_;  // the path of the server's URL
};

}  // namespace

Result<std::unique_ptr<Client>> MakeRestClient(const ClientConfig& config,
                                               const RestClientOptions& options) {
  QUERN_ASSIGN(const ServerUrl url, ParseServerUrl(config.server));
  QUERN_ASSIGN(auto transport, MakeHttpTransport(config, options.user_agent));
  return std::unique_ptr<Client>(
      std::make_unique<RestClient>(config, options, std::move(transport), url.path));
}

}  // namespace quern::control::kube
