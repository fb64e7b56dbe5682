#include "runtime/bench/request_body.h"

#include <nlohmann/json.hpp>

namespace quern::bench {
namespace {

using nlohmann::json;

json WithPrompt(const BodyOptions& options, const std::string& prompt) {
  json body = {{"model", options.model}};
  if (options.endpoint == Endpoint::kChat) {
    body["messages"] = json::array({{{"role", "user"}, {"content", prompt}}});
  } else {
    body["prompt"] = prompt;
  }
  return body;
}

json Generation(const BodyOptions& options, const std::string& prompt, int32_t output_tokens) {
  json body = WithPrompt(options, prompt);
  body["max_tokens"] = output_tokens;
  body["temperature"] = options.temperature;
  return body;
}

std::string Text(const json& body) {
  return body.dump(-1, ' ', false, json::error_handler_t::replace);
}

}  // namespace

const char* EndpointPath(Endpoint endpoint) {
  return endpoint == Endpoint::kChat ? "/chat/completions" : "/completions";
}

std::string StreamBody(const BodyOptions& options, const std::string& prompt,
                       int32_t output_tokens) {
  json body = Generation(options, prompt, output_tokens);
  if (options.ignore_eos) body["ignore_eos"] = true;
  body["stream"] = true;
  body["stream_options"] = {{"include_usage", true}};
  return Text(body);
}

std::string ProbeBody(const BodyOptions& options, const std::string& prompt) {
  return Text(Generation(options, prompt, 1));
}

std::string TokenizeBody(const BodyOptions& options, const std::string& prompt) {
  return Text(WithPrompt(options, prompt));
}

}  // namespace quern::bench
