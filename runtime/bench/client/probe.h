#pragma once

#include <string>

#include "runtime/base/result.h"
#include "runtime/bench/client/http_client.h"
#include "runtime/bench/prompts.h"
#include "runtime/bench/request_body.h"
#include "runtime/bench/server_facts.h"
#include "runtime/bench/url.h"

namespace quern::bench {

// Asks a server what it is. `model` empty: the first that it lists. Errors: those of the
// connection; kInvalidArgument where no model was named and none is listed.
Result<ServerFacts> AskServer(HttpClient& client, const BaseUrl& url, const std::string& model);

// How the server makes tokens of words: by its /tokenize (vLLM's), else by the usage of a few short
// requests, and says so in `facts`. Errors where it can be asked neither way; kPermissionDenied:
// the server's words, where it refuses whatever is asked of the endpoint.
Result<WordTokens> AskForWords(HttpClient& client, const BaseUrl& url, const BodyOptions& body,
                               ServerFacts& facts);

// What the metrics at `url`, whose `client` this is, say of the server's process now. Errors: those
// of the connection, kUnsupported for another status than 200.
Result<ProcessFacts> AskMetrics(HttpClient& client, const BaseUrl& url);

}  // namespace quern::bench
