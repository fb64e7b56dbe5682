#include "runtime/bench_options.h"

#include <CLI/CLI.hpp>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <optional>
#include <random>
#include <string_view>

#include "runtime/bench/client/load.h"
#include "runtime/command_line.h"
#include "runtime/server/units.h"

namespace quern::bench {
namespace {

constexpr char kFooter[] = R"(
Closed loop (--concurrency): so many requests are always under way. Open loop (--rate, --trace):
requests are sent at their times, whatever the answers do, and latencies count from these times.

  TTFT  until the first event with text     TPOT  mean time of a request's tokens after the first
  ITL   between two tokens                  E2E   until the answer's end

Prompts are random words, all different, of exactly the length wanted where the server can count
(vLLM's /tokenize, or usage). The key of the API is read from OPENAI_API_KEY or --api-key-file.
docs/benchmarking.md says what each figure means and how to compare servers honestly.

Examples:
  quern-bench http://127.0.0.1:8000/v1 --concurrency 32 --requests 200
      32 at once; prompts of 128 tokens, answers of 128, of the first model that the server lists
  quern-bench http://127.0.0.1:8000/v1 --rate 4 --duration 60s --slo ttft=500ms,itl=50ms
      4 requests a second at random times for a minute, and how many of them kept the objective
  quern-bench http://127.0.0.1:8000/v1 --trace azure_code_2023.csv --speedup 0.1 --limit 500 \
      --max-prompt-tokens 1024 --json run.json --plot run.svg
      the first 500 requests of a trace, ten times as slow, long prompts cut; all figures, and a plot

Ctrl-C ends the run and prints what there is. Exit codes: 0 done; 1 more requests failed than
--max-error-rate allows; 2 an option is wrong, or the server cannot be reached or refuses the
requests from the start (the key, the model, the length); 130 interrupted.)";

// What the options say before they are looked at together.
struct Given {
  std::string url;
  std::string endpoint = "completions";
  std::string arrivals = "poisson";
  std::string api_key_file;
  bool no_ignore_eos = false;
  bool insecure = false;
};

[[noreturn]] void Refuse(const char* option, const std::string& why) {
  throw CLI::ValidationError(option, why);
}

template <typename T>
T Must(const char* option, Result<T> result) {
  if (!result) Refuse(option, result.error().message);
  return std::move(result).value();
}

// An option whose text is read by a function.
template <typename F>
CLI::Option* AddRead(CLI::App& app, const char* flag, const char* type, const std::string& help,
                     F read) {
  const auto take = [flag, read](const std::string& text) { read(flag, text); };
  return app.add_option_function<std::string>(flag, take, help)->type_name(type);
}

CLI::Option* AddTimeout(CLI::App& app, const char* flag, std::chrono::milliseconds& target,
                        const std::string& help) {
  return AddRead(app, flag, "DURATION", help, [&target](const char* name, const std::string& text) {
    target = Must(name, server::ParseDuration(text));
    if (target.count() == 0) Refuse(name, "it must be above 0");
  });
}

CLI::Option* AddLengths(CLI::App& app, const char* flag, LengthRange& target,
                        const std::string& help) {
  return AddRead(app, flag, "N|N-M", help, [&target](const char* name, const std::string& text) {
    target = Must(name, ParseLengthRange(text));
  });
}

// "ttft=500ms,itl=50ms"
Objective ParseObjective(const char* flag, std::string_view text) {
  Objective objective;
  const std::array<std::pair<std::string_view, std::optional<double>*>, 4> parts = {
      {{"ttft", &objective.ttft},
       {"tpot", &objective.tpot},
       {"itl", &objective.itl},
       {"e2e", &objective.e2e}}};
  while (true) {
    const size_t comma = text.find(',');
    const std::string_view part = text.substr(0, comma);
    const size_t equals = std::min(part.find('='), part.size());
    const auto found = std::find_if(parts.begin(), parts.end(), [&](const auto& known) {
      return known.first == part.substr(0, equals);
    });
    if (found == parts.end() || equals == part.size()) {
      Refuse(flag, fmt::format("'{}' is no part of an objective; write for example "
                               "ttft=500ms,tpot=50ms,itl=80ms,e2e=10s",
                               part));
    }
    const auto bound = Must(flag, server::ParseDuration(part.substr(equals + 1)));
    *found->second = Seconds(bound).count();
    if (comma == std::string_view::npos) return objective;
    text.remove_prefix(comma + 1);
  }
}

void AddServer(CLI::App& app, Given& given, BenchOptions& options) {
  app.add_option("URL", given.url, "Base URL of the API, as OpenAI's clients take it (.../v1)")
      ->required()
      ->type_name("URL");
  app.add_option("--model", options.body.model, "Model to ask for [the first that is listed]")
      ->type_name("NAME");
  app.add_option("--endpoint", given.endpoint, "completions or chat [completions]")
      ->check(OneOf({"completions", "chat"}))
      ->type_name("WHICH");
  app.add_option("--api-key-file", given.api_key_file,
                 "File with the API key [environment variable OPENAI_API_KEY]")
      ->type_name("FILE");
  app.add_option("--ca-file", options.client.ca_file,
                 "Certificates to trust, of https [the system's]")
      ->type_name("FILE");
  app.add_flag("--insecure", given.insecure, "Trust any certificate");
  AddRead(app, "--metrics-url", "URL",
          "Where the server's metrics are (quern-serve's http://HOST:9090/metrics): they are asked "
          "for its processor time and its hardware, without the key",
          [&options](const char* name, const std::string& text) {
            options.metrics_url = Must(name, ParseMetricsUrl(text));
          });
  AddTimeout(app, "--timeout", options.client.timeout,
             "A request that takes longer is cut off and has failed [10m]");
  AddTimeout(app, "--connect-timeout", options.client.connect_timeout, "Of a new connection [10s]");
}

void AddLoad(CLI::App& app, Given& given, BenchOptions& options) {
  PlanOptions& plan = options.plan;
  app.add_option("--concurrency", options.concurrency,
                 "Closed loop: requests that are always under way [1]")
      ->check(WholeNumber(1, 4096))
      ->type_name("N");
  app.add_option("--rate", plan.rate, "Open loop: requests a second")
      ->check(NumberIn(1e-6, 1e6))
      ->type_name("X");
  app.add_option("--arrivals", given.arrivals,
                 "How --rate is kept: poisson (random, as of many users) or constant [poisson]")
      ->check(OneOf({"poisson", "constant"}))
      ->type_name("WHICH");
  app.add_option("--trace", options.trace_file,
                 "CSV (Azure's) or JSONL (Mooncake's) of times and lengths: an open loop with its "
                 "times; with --rate or --concurrency only the lengths are used")
      ->type_name("FILE");
  app.add_option("--speedup", plan.speedup, "The trace's times are divided by it [1]")
      ->check(NumberIn(1e-6, 1e6))
      ->type_name("X");
  app.add_option("--limit", options.trace_limit, "First requests of the trace to use [all]")
      ->check(WholeNumber(1, kMaxRequests))
      ->type_name("N");
  app.add_option("--requests", plan.max_requests,
                 "Requests in all [10 for each of --concurrency, or until --duration or the trace "
                 "ends]")
      ->check(WholeNumber(1, kMaxRequests))
      ->type_name("N");
  AddRead(app, "--duration", "DURATION", "No request is sent later; those under way end [no end]",
          [&plan](const char* name, const std::string& text) {
            plan.duration = Seconds(Must(name, server::ParseDuration(text))).count();
            if (plan.duration <= 0) Refuse(name, "it must be above 0");
          });
  app.add_option("--max-in-flight", options.max_in_flight,
                 "Open loop: requests under way at most; those due then wait, and that counts "
                 "[1024]")
      ->check(WholeNumber(1, 4096))
      ->type_name("N");
  app.add_option("--warmup", options.warm_up_requests,
                 "Requests before the run, which do not count [1]")
      ->check(WholeNumber(0, 10'000))
      ->type_name("N");
}

void AddRequests(CLI::App& app, Given& given, BenchOptions& options) {
  PlanOptions& plan = options.plan;
  AddLengths(app, "--prompt-tokens", plan.prompt, "Of each prompt, or from N to M [128]");
  AddLengths(app, "--output-tokens", plan.output, "Of each answer, or from N to M [128]");
  app.add_option("--max-prompt-tokens", plan.max_prompt_tokens,
                 "A trace's longer prompts are cut to it [none is]")
      ->check(WholeNumber(1, kMaxTraceTokens))
      ->type_name("N");
  app.add_option("--max-output-tokens", plan.max_output_tokens,
                 "A trace's longer answers are cut to it [none is]")
      ->check(WholeNumber(1, kMaxTraceTokens))
      ->type_name("N");
  app.add_option("--shared-prefix", options.shared_prefix,
                 "First tokens that all prompts have in common, to measure prefix caches [0]")
      ->check(WholeNumber(0, kMaxTraceTokens))
      ->type_name("N");
  app.add_flag("--no-ignore-eos", given.no_ignore_eos,
               "Do not ask for answers of full length, for servers that refuse it");
  app.add_option("--temperature", options.body.temperature, "Of sampling; 0: greedy [0]")
      ->check(NumberIn(0.0, 2.0))
      ->type_name("X");
  app.add_option("--seed", plan.seed, "Of lengths and random times [1]")
      ->check(WholeNumber(0, INT64_MAX).description(""))
      ->type_name("N");
  app.add_option("--prompt-seed", options.prompt_seed,
                 "Of the prompts' words [a random one: those of an earlier run would be in the "
                 "server's prefix cache]")
      ->check(WholeNumber(0, UINT32_MAX).description(""))
      ->type_name("N");
}

void AddReports(CLI::App& app, BenchOptions& options) {
  AddRead(app, "--slo", "LIST",
          "Objective of each request, for goodput: ttft, tpot, itl (95th percentile of its own) "
          "and e2e, as in ttft=500ms,itl=50ms",
          [&options](const char* name, const std::string& text) {
            options.objective = ParseObjective(name, text);
          });
  app.add_option("--max-error-rate", options.max_error_rate,
                 "Part of the requests that may fail with exit code 0 [0]")
      ->check(NumberIn(0.0, 1.0))
      ->type_name("X");
  app.add_option("--json", options.json_file,
                 "Write the figures, what they belong to and every request; - for stdout, instead "
                 "of the table")
      ->type_name("FILE");
  app.add_option("--plot", options.plot_file, "Write an SVG of TTFT, ITL and E2E")
      ->type_name("FILE");
  app.add_option("--precision", options.precision,
                 "What the server computes with, for the report, as in \"Q4_1, KV f16\" [what it "
                 "says itself]")
      ->type_name("TEXT");
  app.add_option("--hardware", options.hardware,
                 "The server's machine, for the report [what it says at --metrics-url]")
      ->type_name("TEXT");
  app.add_option("--note", options.note, "For the report, as in the server's options")
      ->type_name("TEXT");
  app.add_flag("--quiet", options.quiet, "No progress on stderr");
}

// Closed loop, open loop or the trace's times, and that nothing contradicts it.
void ChooseArrivals(const CLI::App& app, const Given& given, BenchOptions& options) {
  const auto has = [&app](const char* flag) { return app.get_option(flag)->count() > 0; };
  const auto only_with = [&has](const char* flag, const char* other, bool there) {
    if (has(flag) && !there) Refuse(flag, fmt::format("it needs {}", other));
  };
  PlanOptions& plan = options.plan;
  const bool traced = has("--trace"), by_rate = has("--rate"), closed = has("--concurrency");
  if (by_rate && closed) Refuse("--rate", "use it or --concurrency, not both");
  plan.arrivals = by_rate ? (given.arrivals == "poisson" ? Arrivals::kPoisson : Arrivals::kConstant)
                  : closed ? Arrivals::kClosed
                  : traced ? Arrivals::kTrace
                           : Arrivals::kClosed;
  only_with("--arrivals", "--rate", by_rate);
  only_with("--speedup", "--trace, and neither --rate nor --concurrency",
            plan.arrivals == Arrivals::kTrace);
  for (const char* flag : {"--limit", "--max-prompt-tokens", "--max-output-tokens"}) {
    only_with(flag, "--trace", traced);
  }
  for (const char* flag : {"--prompt-tokens", "--output-tokens"}) {
    if (has(flag) && traced) Refuse(flag, "lengths are the trace's; see --max-prompt-tokens");
  }
  if (traced || plan.duration > 0 || plan.max_requests > 0) return;
  if (by_rate) Refuse("--rate", "it needs --requests or --duration, for an end");
  plan.max_requests = int64_t{10} * options.concurrency;
}

std::string ReadKey(const std::string& file) {
  if (file.empty()) {
    const char* key = std::getenv("OPENAI_API_KEY");
    return key != nullptr ? key : "";
  }
  std::string key;
  std::ifstream in(file);
  if (!in || !std::getline(in, key)) Refuse("--api-key-file", "cannot read " + file);
  while (!key.empty() && (key.back() == '\r' || key.back() == ' ')) key.pop_back();
  return key;
}

void Check(const CLI::App& app, const Given& given, BenchOptions& options) {
  options.url = Must("URL", ParseBaseUrl(given.url));
  options.body.endpoint = given.endpoint == "chat" ? Endpoint::kChat : Endpoint::kCompletions;
  options.body.ignore_eos = !given.no_ignore_eos;
  options.client.verify = !given.insecure;
  options.client.api_key = ReadKey(given.api_key_file);
  for (const char c : options.client.api_key) {
    if (c < ' ' || c > '~') Refuse("OPENAI_API_KEY", "the API key has characters that no key has");
  }
  if (app.get_option("--prompt-seed")->count() == 0) options.prompt_seed = std::random_device()();
  ChooseArrivals(app, given, options);
}

}  // namespace

ParsedBenchLine ParseBenchLine(int argc, char** argv) {
  ParsedBenchLine parsed;
  CLI::App app("Loads a server of OpenAI's API and measures its answers.\n", "quern-bench");
  app.footer(kFooter);
  app.set_version_flag("--version", "quern-bench " QUERN_VERSION);
  app.get_formatter()->column_width(34);
  Given given;
  AddServer(app, given, parsed.options);
  AddLoad(app, given, parsed.options);
  AddRequests(app, given, parsed.options);
  AddReports(app, parsed.options);
  try {
    app.parse(argc, argv);
    Check(app, given, parsed.options);
  } catch (const CLI::Success& success) {  // --help, --version
    parsed.exit_now = true;
    app.exit(success);
  } catch (const CLI::ParseError& error) {
    parsed.exit_now = true;
    parsed.exit_code = 2;
    const std::string why = ExplainError(app, error, argc, argv);
    std::fprintf(stderr, "quern-bench: %s; see quern-bench --help\n", why.c_str());
  }
  return parsed;
}

}  // namespace quern::bench
