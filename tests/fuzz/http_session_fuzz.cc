// Bytes of a connection -> requests, as the server's sessions read them, in pieces of the fuzzer's
// choice: what comes is within the limits, and does not depend on how it was cut. Then the router.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/http/request_reader.h"
#include "runtime/http/router.h"

namespace {

using namespace quern::http;

HttpLimits Limits() {
  HttpLimits limits;
  limits.max_header_bytes = 1024;
  limits.max_header_fields = 8;
  limits.max_body_bytes = 4096;
  return limits;
}
const HttpLimits kLimits = Limits();

const Router& TheRouter() {
  static const Router* const kRouter = [] {
    auto* router = new Router();
    const auto nothing = [](Request, ResponderPtr) {};
    router->Add("GET", "/v1/models", "models", nothing);
    router->Add("GET", "/v1/models/{id...}", "model", nothing);
    router->Add("POST", "/v1/completions", "completions", nothing);
    return router;
  }();
  return *kRouter;
}

void Require(bool condition) {
  if (!condition) abort();
}

void Check(const ReceivedRequest& received) {
  Require(received.request.body.size() <= kLimits.max_body_bytes);
  Require(received.request.headers.size() <= kLimits.max_header_fields);
  const auto match = TheRouter().Find(received.request.method, received.request.path);
  Require(match.handler || match.response.status >= 200);
}

std::string Show(const ReceivedRequest& received) {
  const Request& request = received.request;
  std::string shown = request.method + " " + request.path + "?" + request.query + "\n";
  for (const auto& [name, value] : request.headers) shown += name + ": " + value + "\n";
  return shown + request.body + (received.http10 ? "\n1.0 " : "\n1.1 ") +
         (received.keep_alive ? "keep" : "close");
}

// As a session does: every request until one cannot be read. `piece`: how many bytes come next.
template <typename Piece>
std::vector<std::string> ReadAll(std::string_view bytes, Piece&& piece) {
  std::vector<std::string> requests;
  RequestReader reader(kLimits);
  while (!bytes.empty()) {
    const size_t size = std::min(bytes.size(), piece());
    reader.Append(bytes.substr(0, size));
    bytes.remove_prefix(size);
    while (true) {
      const auto event = reader.Read();
      if (std::holds_alternative<Unreadable>(event)) {
        Require(std::get<Unreadable>(event).status >= 400);
        return requests;
      }
      if (const auto* received = std::get_if<ReceivedRequest>(&event)) {
        Check(*received);
        requests.push_back(Show(*received));
        reader.Next();
        if (reader.buffered() > 0) continue;
      }
      break;
    }
    Require(reader.buffered() <= kLimits.max_header_bytes);
    Require(reader.body_bytes() <= kLimits.max_body_bytes);
  }
  return requests;
}

}  // namespace

// The first byte seeds the sizes of the pieces; the rest is what the client sends.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data + 1), size - 1);
  uint32_t state = data[0] * 2654435761u + 1;
  const auto cut = ReadAll(bytes, [&state] {
    state = state * 1664525u + 1013904223u;
    return size_t{1} + (state >> 24) % 24;
  });
  const auto whole = ReadAll(bytes, [&] { return bytes.size(); });
  // A line that is too long may be seen as such in pieces only; up to there all is the same.
  for (size_t i = 0; i < std::min(cut.size(), whole.size()); ++i) Require(cut[i] == whole[i]);
  return 0;
}
