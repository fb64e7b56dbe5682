// Renders chat templates for test_real_templates.py. Each line of stdin is a case, a JSON object
// with `messages`, `tools`, `add_generation_prompt`, `variables`, and `template` and `tokens` where
// these are not those of the line before. Each line of stdout is what comes of it, {"text": ...} or
// {"error": ..., "code": ...}. The clock stands at argv[1] seconds since 1970.
#include <charconv>
#include <cstring>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "runtime/base/clock.h"
#include "runtime/tokenizer/chat_template.h"

namespace {
using nlohmann::ordered_json;

using Template = quern::Result<std::unique_ptr<quern::ChatTemplate>>;

Template Parse(const ordered_json& one, const quern::Clock& clock) {
  quern::ChatTemplateSource source;
  source.file = "template";
  source.templates.emplace_back(quern::ChatTemplateSource::kDefault,
                                one.at("template").get<std::string>());
  for (const auto& [name, text] : one.at("tokens").items()) {
    source.tokens.emplace_back(name, text.get<std::string>());
  }
  return quern::ChatTemplate::Make(source, "", clock);
}

ordered_json Render(const Template& parsed, const ordered_json& one) {
  const auto failed = [](const quern::Error& error) {
    return ordered_json{{"error", error.message}, {"code", quern::ErrorCodeName(error.code)}};
  };
  if (!parsed) return failed(parsed.error());
  const auto text =
      (*parsed)->Render({.messages = one.at("messages"),
                         .tools = one.at("tools"),
                         .add_generation_prompt = one.at("add_generation_prompt").get<bool>(),
                         .variables = &one.at("variables")});
  return text ? ordered_json{{"text", *text}} : failed(text.error());
}

}  // namespace

int main(int argc, char** argv) {
  int64_t seconds = 0;
  if (argc != 2 ||
      std::from_chars(argv[1], argv[1] + std::strlen(argv[1]), seconds).ec != std::errc()) {
    std::cerr << "usage: render_templates SECONDS < cases\n";
    return 2;
  }
  quern::ManualClock clock;
  clock.Advance(std::chrono::seconds(seconds));
  std::optional<Template> parsed;
  for (std::string line; std::getline(std::cin, line);) {
    const ordered_json one = ordered_json::parse(line);
    if (one.contains("template")) parsed = Parse(one, clock);
    std::cout << Render(parsed.value(), one) << '\n';
  }
  return 0;
}
