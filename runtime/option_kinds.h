#pragma once

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

#include "runtime/base/result.h"

// Kinds of options that the servers' command lines share. Each can also be set by an environment
// variable: "--kv-memory" by QUERN_KV_MEMORY.
namespace quern {

std::string EnvName(const std::string& flag);

template <typename T>
CLI::Option* Add(CLI::App& app, const std::string& flag, T& target, const std::string& help) {
  return app.add_option(flag, target, help)->envname(EnvName(flag));
}

// A size or, if it can be, "auto" (0).
CLI::Option* AddBytes(CLI::App& app, const std::string& flag, int64_t& target, bool can_be_auto,
                      const std::string& help);

// What `parse` makes of the text, or its error.
template <typename T>
CLI::Option* AddParsed(CLI::App& app, const std::string& flag, T& target,
                       Result<T> (*parse)(std::string_view), const std::string& help) {
  const auto why_not = [parse](const std::string& text) {
    const auto value = parse(text);
    return value ? std::string() : value.error().message;
  };
  const auto read = [&target, parse](const std::string& text) { target = parse(text).value(); };
  return app.add_option_function<std::string>(flag, read, help)
      ->check(why_not)
      ->envname(EnvName(flag));
}

CLI::Option* AddDuration(CLI::App& app, const std::string& flag, std::chrono::milliseconds& target,
                         const std::string& help);

CLI::Validator Port();

// --host, --port, --admin-host and --admin-port; `port_help` says whose port it is.
void AddAddresses(CLI::App& app, std::string& host, uint16_t& port, const std::string& port_help,
                  std::string& admin_host, uint16_t& admin_port);

// --max-body, --header-timeout, --body-timeout and --write-timeout, with ServeOptions' defaults.
void AddClientLimits(CLI::App& app, int64_t& max_body_bytes,
                     std::chrono::milliseconds& header_timeout,
                     std::chrono::milliseconds& body_timeout,
                     std::chrono::milliseconds& write_timeout);

// --log-level and --log-format.
void AddLog(CLI::App& app, std::string& level, std::string& format);

}  // namespace quern
