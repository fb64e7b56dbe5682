#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "operator/kube/client.h"
#include "operator/kube/config.h"
#include "operator/kube/kept_metadata.h"

namespace quern::control::kube {

// One finished exchange with the API server, for metrics. `code` is the HTTP status, or 0 where
// there was no answer.
struct CallRecord {
  std::string verb;      // get, list, create, update, apply, patch, delete, watch
  std::string resource;  // plural
  int code = 0;
  std::chrono::duration<double> duration{0};
};

struct RestClientOptions {
  std::string user_agent = "quern-operator";
  std::chrono::milliseconds call_timeout{30'000};         // a whole call, retries included
  std::chrono::milliseconds idle_timeout{10'000};         // no byte at all within a call
  std::chrono::milliseconds watch_idle_timeout{150'000};  // the server sends a bookmark a minute
  std::chrono::milliseconds max_retry_after{10'000};      // longer Retry-After: the error goes up
  int max_retries = 4;                                    // after 429 or 503 with Retry-After
  size_t max_body_bytes = 16u << 20;                      // ten of the largest objects there can be
  size_t max_page_bytes = 4u << 20;         // a page of a list; longer ones are asked for in halves
  size_t max_watch_line_bytes = 16u << 20;  // one event; etcd's limit is 1.5 MiB an object
  // What is kept of the metadata of objects that come in lists, in watches and as answers to
  // writes; empty: all. Get gives the whole object, so that it may be changed and written back.
  std::optional<KeptMetadata> keep;
  std::function<void(const CallRecord&)> on_call;  // from any thread
};

// The Client over HTTPS with keep-alive. Calls may come from any thread; each blocks its own.
// The client must outlive its calls. Errors: kInvalidArgument for a configuration that cannot work.
Result<std::unique_ptr<Client>> MakeRestClient(const ClientConfig& config,
                                               const RestClientOptions& options = {});

}  // namespace quern::control::kube
