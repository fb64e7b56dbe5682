#include "runtime/gateway_options.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cstdio>
#include <utility>
#include <vector>

#include "runtime/command_line.h"
#include "runtime/option_kinds.h"

namespace quern {
namespace {

constexpr char kGatewayFooter[] = R"(
Sizes are written 512MiB, 1.5GiB or 800MB; durations 30s, 500ms or 2m.
Every option can also be set by the environment variable named beside it; the command line wins.

Examples:
  quern-gateway --upstream http://127.0.0.1:8000 --upstream http://127.0.0.1:8001
      shares requests to http://127.0.0.1:8080 between two servers

  quern-gateway --host 0.0.0.0 --upstream-dns smollm2-pods.default.svc:8000 \
      --wake-url http://quern-operator.quern-system.svc:8443/wake/default/smollm2 \
      --wake-token-file /var/run/secrets/quern/token
      in a cluster: a replica for each address of a headless Service; requests wait while there is
      none, and the operator is told

SIGTERM or Ctrl-C: not ready at once, finishes what runs (at most --drain-timeout), exits 0; a
second one exits at once. Exit code 2: an option is wrong, and one line says how.)";

// "host:port" or "[::1]:port". `text` is all of the option, for the error.
Result<std::pair<std::string, uint16_t>> ParseHostPort(std::string_view authority,
                                                       std::string_view text, const char* example) {
  const auto wrong = [&](const char* why) {
    return MakeError(ErrorCode::kInvalidArgument, "'{}': {}; write for example {}", text, why,
                     example);
  };
  const size_t colon = authority.rfind(':');
  if (colon == std::string_view::npos || authority.ends_with(']')) return wrong("it has no port");
  std::string_view host = authority.substr(0, colon);
  const std::string_view digits = authority.substr(colon + 1);
  uint16_t port = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), port);
  if (error != std::errc() || end != digits.data() + digits.size() || port == 0) {
    return wrong("its port is no number from 1 to 65535");
  }
  if (host.starts_with('[') && host.ends_with(']')) {
    host = host.substr(1, host.size() - 2);
  } else if (host.find(':') != std::string_view::npos) {
    return wrong("an IPv6 address goes into brackets");
  }
  const auto plain = [](char c) {
    return c > ' ' && c < 0x7f && std::string_view("/?#@\\\"[]%").find(c) == std::string_view::npos;
  };
  if (host.empty()) return wrong("it names no host");
  if (!std::all_of(host.begin(), host.end(), plain)) return wrong("a character is not allowed");
  return std::pair(std::string(host), port);
}

// What follows "http://", up to the path, and the path.
Result<std::pair<std::string_view, std::string_view>> SplitUrl(std::string_view text,
                                                               const char* example) {
  constexpr std::string_view kScheme = "http://";
  if (!text.starts_with(kScheme)) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "'{}' does not begin with http:// (TLS is not spoken there); write for "
                     "example {}",
                     text, example);
  }
  const std::string_view rest = text.substr(kScheme.size());
  const size_t slash = std::min(rest.find('/'), rest.size());
  return std::pair(rest.substr(0, slash), rest.substr(slash));
}

constexpr char kUpstreamExample[] = "http://127.0.0.1:8000";
constexpr char kDnsExample[] = "smollm2-pods.default.svc:8000";
constexpr char kWakeExample[] = "http://quern-operator.quern-system.svc:8443/wake";

Result<gateway::Upstream> ParseUpstream(std::string_view text) {
  QUERN_ASSIGN(const auto parts, SplitUrl(text, kUpstreamExample));
  if (parts.second.size() > 1) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "'{}' has a path; requests keep theirs: write for example {}", text,
                     kUpstreamExample);
  }
  QUERN_ASSIGN(const auto where, ParseHostPort(parts.first, text, kUpstreamExample));
  return gateway::Upstream{where.first, where.second, false};
}

Result<gateway::Upstream> ParseUpstreamDns(std::string_view text) {
  QUERN_ASSIGN(const auto where, ParseHostPort(text, text, kDnsExample));
  return gateway::Upstream{where.first, where.second, true};
}

Result<gateway::WakeTarget> ParseWakeUrl(std::string_view text) {
  QUERN_ASSIGN(const auto parts, SplitUrl(text, kWakeExample));
  QUERN_ASSIGN(const auto where, ParseHostPort(parts.first, text, kWakeExample));
  const auto plain = [](char c) { return c > ' ' && c < 0x7f && c != '#'; };
  if (!std::all_of(parts.second.begin(), parts.second.end(), plain)) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "'{}': a character is not allowed; write for "
                     "example {}",
                     text, kWakeExample);
  }
  gateway::WakeTarget target;
  target.host = where.first;
  target.port = where.second;
  target.path = parts.second.empty() ? "/" : std::string(parts.second);
  target.authority = std::string(parts.first);
  return target;
}

CLI::Option* AddUpstreams(CLI::App& app, const char* flag, std::vector<gateway::Upstream>& all,
                          Result<gateway::Upstream> (*parse)(std::string_view), const char* help) {
  const auto why_not = [parse](const std::string& text) {
    const auto value = parse(text);
    return value ? std::string() : value.error().message;
  };
  const auto read = [&all, parse](const std::vector<std::string>& texts) {
    for (const std::string& text : texts) all.push_back(parse(text).value());
  };
  return app.add_option_function<std::vector<std::string>>(flag, read, help)
      ->check(why_not)
      ->delimiter(',')
      ->envname(EnvName(flag));
}

void AddFronting(CLI::App& app, GatewayOptions& options, std::string& token_file) {
  auto& config = options.config;
  AddUpstreams(app, "--upstream", config.upstreams, ParseUpstream,
               "A replica; may be given several times, or several with commas")
      ->type_name("URL");
  AddUpstreams(app, "--upstream-dns", config.upstreams, ParseUpstreamDns,
               "A name each of whose addresses is a replica, as of a headless Service")
      ->type_name("NAME:PORT");
  AddParsed(app, "--wake-url", config.wake, ParseWakeUrl,
            "POSTed to when a request arrives and no replica is ready [none]")
      ->type_name("URL");
  Add(app, "--wake-token-file", token_file,
      "File whose first line is sent to it as a bearer token; read for every call [none]")
      ->type_name("FILE");
  AddAddresses(app, options.host, options.port, "Port for clients; 0 for any free one [8080]",
               options.admin_host, options.admin_port);
}

void AddGatewayLimits(CLI::App& app, GatewayOptions& options, int64_t& waiting_bytes,
                      int64_t& held_bytes) {
  auto& config = options.config;
  Add(app, "--max-waiting", config.waiting.max_requests,
      "Requests that may wait for a ready replica; more get status 429 [256]")
      ->check(WholeNumber(0, 1'000'000))
      ->type_name("N");
  AddBytes(app, "--max-waiting-bytes", waiting_bytes, /*can_be_auto=*/false,
           "Bytes that their bodies may have together; more get status 429 [64MiB]");
  AddDuration(app, "--max-wait", config.waiting.max_wait,
              "A request that has waited so long gets status 503 [5m]");
  AddDuration(app, "--comment-interval", config.comment_interval,
              "How often a client that waits for a stream gets a sign of life [5s]");
  AddBytes(app, "--max-held-bytes", held_bytes, /*can_be_auto=*/false,
           "Bytes of all bodies that no replica has begun to answer; more get status 503 [256MiB]");
  Add(app, "--max-connections", options.max_connections,
      "Connections of clients at once; more get status 503 [4096]")
      ->check(WholeNumber(1, 1'000'000))
      ->type_name("N");
  AddClientLimits(app, options.max_body_bytes, options.header_timeout, options.body_timeout,
                  options.write_timeout);
  AddDuration(app, "--connect-timeout", config.client.connect_timeout,
              "A replica that takes longer to be connected to is not ready [2s]");
  AddDuration(app, "--silence-timeout", config.client.silence_timeout,
              "A replica that sends no byte of an answer for so long has failed: 504 [10m]");
  AddDuration(app, "--drain-timeout", options.drain_timeout,
              "Time that requests have to finish after SIGTERM [30s]");
  AddLog(app, options.log_level, options.log_format);
}

// What the options must be in view of each other.
void CheckGateway(GatewayOptions& options, const std::string& token_file) {
  auto& config = options.config;
  if (config.upstreams.empty()) {
    throw CLI::ValidationError(
        "--upstream or --upstream-dns",
        fmt::format("one is needed: name a replica, for example --upstream {}", kUpstreamExample));
  }
  if (!token_file.empty() && config.wake.host.empty()) {
    throw CLI::ValidationError("--wake-token-file", "needs --wake-url, to which it is sent");
  }
  config.wake.token_file = token_file;
  for (const auto& [flag, value] :
       {std::pair{"--comment-interval", config.comment_interval},
        std::pair{"--connect-timeout", config.client.connect_timeout},
        std::pair{"--silence-timeout", config.client.silence_timeout}}) {
    if (value.count() == 0) throw CLI::ValidationError(flag, "must be above 0");
  }
}

}  // namespace

ParsedGatewayCommandLine ParseGatewayCommandLine(int argc, char** argv) {
  ParsedGatewayCommandLine parsed;
  GatewayOptions& options = parsed.options;
  std::string token_file;
  auto waiting_bytes = static_cast<int64_t>(options.config.waiting.max_bytes);
  auto held_bytes = static_cast<int64_t>(options.config.max_held_bytes);
  CLI::App app(
      "The front door of an endpoint: shares requests between replicas, and holds them\n"
      "while none is ready.\n",
      "quern-gateway");
  app.footer(kGatewayFooter);
  app.set_version_flag("--version", "quern-gateway " QUERN_VERSION);
  app.get_formatter()->column_width(38);
  AddFronting(app, options, token_file);
  AddGatewayLimits(app, options, waiting_bytes, held_bytes);
  try {
    app.parse(argc, argv);
    CheckGateway(options, token_file);
  } catch (const CLI::Success& success) {  // --help, --version
    parsed.exit_now = true;
    app.exit(success);
  } catch (const CLI::ParseError& error) {
    parsed.exit_now = true;
    parsed.exit_code = 2;
    std::fprintf(stderr, "quern-gateway: %s; see quern-gateway --help\n",
                 ExplainError(app, error, argc, argv).c_str());
  }
  options.config.waiting.max_bytes = static_cast<size_t>(waiting_bytes);
  options.config.max_held_bytes = static_cast<size_t>(held_bytes);
  if (options.admin_host.empty()) options.admin_host = options.host;
  return parsed;
}

}  // namespace quern
