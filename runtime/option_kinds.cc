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

void AddAddresses(CLI::App& app, std::string& host, uint16_t& port, const std::string& port_help,
                  std::string& admin_host, uint16_t& admin_port) {
  Add(app, "--host", host, "Address to listen on; 0.0.0.0 for all [127.0.0.1]")
      ->type_name("ADDRESS");
  Add(app, "--port", port, port_help)->check(Port())->type_name("PORT");
  Add(app, "--admin-host", admin_host, "Address of the administrative port [as --host]")
      ->type_name("ADDRESS");
  Add(app, "--admin-port", admin_port,
      "Port of /metrics and /health, not to be exposed to clients; 0 for any free one [9090]")
      ->check(Port())
      ->type_name("PORT");
}

void AddClientLimits(CLI::App& app, int64_t& max_body_bytes,
                     std::chrono::milliseconds& header_timeout,
                     std::chrono::milliseconds& body_timeout,
                     std::chrono::milliseconds& write_timeout) {
  AddBytes(app, "--max-body", max_body_bytes, /*can_be_auto=*/false,
           "Largest request body; a larger one gets status 413 [4MiB]");
  AddDuration(app, "--header-timeout", header_timeout,
              "A client whose request's header takes longer gets status 408 [10s]");
  AddDuration(app, "--body-timeout", body_timeout,
              "A client whose request's body takes longer gets status 408 [60s]");
  AddDuration(app, "--write-timeout", write_timeout,
              "A client that takes no byte for so long is dropped [30s]");
}

void AddLog(CLI::App& app, std::string& level, std::string& format) {
  Add(app, "--log-level", level, "trace, debug, info, warn or error [info]")
      ->check(IsLogLevel)
      ->type_name("LEVEL");
  Add(app, "--log-format", format, "text or json [text]")
      ->check(OneOf({"text", "json"}).description(""))
      ->type_name("FORMAT");
}

}  // namespace quern
