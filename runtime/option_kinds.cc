#include "runtime/option_kinds.h"

#include <fmt/format.h>
#include <spdlog/common.h>

#include <cctype>

#include "runtime/command_line.h"
#include "runtime/server/units.h"

namespace quern {
namespace {

// "" where it is one.
std::string IsLogLevel(const std::string& text) {
  if (spdlog::level::from_str(text) != spdlog::level::off || text == "off") return "";
  return fmt::format("'{}' must be trace, debug, info, warn or error", text);
}

}  // namespace

std::string EnvName(const std::string& flag) {
  std::string name = "QUERN_";
  for (const char c : flag.substr(2)) {
    name += c == '-' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  }
  return name;
}

CLI::Option* AddBytes(CLI::App& app, const std::string& flag, int64_t& target, bool can_be_auto,
                      const std::string& help) {
  const auto why_not = [can_be_auto](const std::string& text) -> std::string {
    if (can_be_auto && text == "auto") return "";
    const auto bytes = server::ParseBytes(text);
    if (!bytes) return bytes.error().message;
    if (*bytes > 0) return "";
    return fmt::format("'{}' is no useful size; write for example 512MiB{}", text,
                       can_be_auto ? ", or auto" : "");
  };
  const auto read = [&target](const std::string& text) {
    target = text == "auto" ? 0 : server::ParseBytes(text).value();
  };
  return app.add_option_function<std::string>(flag, read, help)
      ->check(why_not)
      ->envname(EnvName(flag))
      ->type_name("SIZE");
}

CLI::Option* AddDuration(CLI::App& app, const std::string& flag, std::chrono::milliseconds& target,
                         const std::string& help) {
  return AddParsed(app, flag, target, server::ParseDuration, help)->type_name("DURATION");
}

CLI::Validator Port() { return WholeNumber(0, 65535).description(""); }

void AddLog(CLI::App& app, std::string& level, std::string& format) {
  Add(app, "--log-level", level, "trace, debug, info, warn or error [info]")
      ->check(IsLogLevel)
      ->type_name("LEVEL");
  Add(app, "--log-format", format, "text or json [text]")
      ->check(OneOf({"text", "json"}).description(""))
      ->type_name("FORMAT");
}

}  // namespace quern
