#include "runtime/serve_options.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cctype>
#include <cstdio>
#include <filesystem>
#include <iostream>

#include "runtime/base/thread_pool.h"
#include "runtime/command_line.h"
#include "runtime/option_kinds.h"
#include "runtime/server/units.h"

namespace quern {
namespace {

// A server of a shorter context than that is a mistake, unless it is asked for.
constexpr int32_t kLeastContextTokens = 512;
constexpr int kMostRanks = 64;

constexpr char kFooter[] = R"(
Sizes are written 512MiB, 1.5GiB or 800MB; durations 30s, 500ms or 2m.
Every option can also be set by the environment variable named beside it; the command line wins.

Examples:
  quern-serve SmolLM2-135M-Instruct.Q4_1.gguf
      serves on http://127.0.0.1:8000/v1, metrics on http://127.0.0.1:9090/metrics

  curl http://127.0.0.1:8000/v1/chat/completions -d '{
    "model": "SmolLM2-135M-Instruct.Q4_1", "stream": true,
    "messages": [{"role": "user", "content": "What is a quern?"}]}'
      asks it; any client of OpenAI's API does the same with its base URL set to .../v1

  quern-serve model.gguf --host 0.0.0.0 --served-name smollm2 --kv-memory 512MiB --threads 2
      in a container: all addresses, a name of your choice, bounded memory and cores

  quern-serve bench model.gguf --batch 1,8,32
      measures instead of serving; quern-serve bench --help says more

SIGTERM or Ctrl-C: takes nothing new, finishes what runs (at most --drain-timeout), exits 0;
a second one exits at once. Exit code 2: the model or an option is wrong, and one line says how.)";

Result<bool> ParseOnOff(std::string_view text) {
  if (text == "on" || text == "off") return text == "on";
  return MakeError(ErrorCode::kInvalidArgument, "'{}' is neither on nor off", text);
}

// nullopt: auto
Result<std::optional<KvDtype>> ParseKvDtypeOrAuto(std::string_view text) {
  if (text == "auto") return std::optional<KvDtype>();
  const auto dtype = ParseKvDtype(text);
  if (dtype) return std::optional<KvDtype>(*dtype);
  return MakeError(ErrorCode::kInvalidArgument, "{}, or auto", dtype.error().message);
}

void AddServing(CLI::App& app, ServeOptions& options) {
  app.add_option("MODEL", options.model, "Model to serve: a GGUF file")
      ->envname("QUERN_MODEL")
      ->required()
      ->type_name("FILE");
  Add(app, "--served-name", options.served_name,
      "Name that clients use for the model [the file's name without .gguf]")
      ->type_name("NAME");
  Add(app, "--chat-template", options.chat_template,
      "File to take the chat template from: a Jinja template, or a tokenizer_config.json [the "
      "model's own]")
      ->type_name("FILE");
  Add(app, "--chat-template-name", options.chat_template_name,
      "Which template, where there are several [default, and tool_use for requests with tools]")
      ->type_name("NAME");
  AddAddresses(app, options.host, options.port, "Port of the API; 0 for any free one [8000]",
               options.admin_host, options.admin_port);
}

void AddParallel(CLI::App& app, ServeOptions& options) {
  Add(app, "--tensor-parallel-size", options.tensor_parallel_size,
      "Processes that the model is split over, each with a GPU of its own (from --device cuda:K "
      "on) or a part of --threads, a part of the heads, and a KV cache of --kv-memory; 1: not at "
      "all [1]")
      ->check(WholeNumber(1, kMostRanks))
      ->type_name("N");
}

void AddAccess(CLI::App& app, ServeOptions& options) {
  Add(app, "--tenants", options.tenants,
      "JSON file of tenants and their API keys, which requests then need; read again when it "
      "changes [none: any key is taken]")
      ->type_name("FILE");
}

void AddDevice(CLI::App& app, ServeOptions& options) {
  AddParsed(app, "--device", options.device, ParseDevice,
            "What computes: auto, a GPU where there is one; cpu; cuda, or cuda:1 for a GPU by its "
            "number [auto]")
      ->type_name("DEVICE");
  AddParsed(app, "--activations", options.activations, ParseActivations,
            "What a GPU keeps activations and an f16 KV cache in: f16 or bf16 [bf16]")
      ->type_name("TYPE");
}

void AddEngine(CLI::App& app, ServeOptions& options) {
  AddDevice(app, options);
  Add(app, "--threads", options.threads,
      "Threads of the forward pass; 0: the cgroup's CPU quota [0]")
      ->check(WholeNumber(0, ThreadPool::kMaxThreads))
      ->type_name("N");
  Add(app, "--max-sequences", options.max_sequences, "Requests that run at once in a batch [32]")
      ->check(WholeNumber(1, 4096))
      ->type_name("N");
  Add(app, "--max-waiting", options.max_waiting,
      "Requests that may wait for a place; more get status 429 [256]")
      ->check(WholeNumber(0, 1'000'000))
      ->type_name("N");
  Add(app, "--max-batch-tokens", options.max_batch_tokens,
      "Tokens of one step at most; 0: 512, or "
      "--max-sequences where that is more [0]")
      ->check(WholeNumber(0, 65536))
      ->type_name("N");
  Add(app, "--max-decode-slowdown", options.max_decode_slowdown,
      "How many times as long a step with streams may take for the sake of prompts that are read "
      "beside them; more only where more requests wait than stream; 0: no bound [2]")
      ->check([](const std::string& text) -> std::string {
        double value = -1;
        if (CLI::detail::lexical_cast(text, value) &&
            (value == 0 || (value >= 1.1 && value <= 1000))) {
          return "";
        }
        return "'" + text + "' must be 0 (no bound) or a number from 1.1 to 1000";
      })
      ->type_name("X");
  Add(app, "--max-context-tokens", options.max_context_tokens,
      "Longest prompt and answer together; 0: what the model was trained for [0]")
      ->check(WholeNumber(0, 100'000'000))
      ->type_name("N");
  AddBytes(app, "--kv-memory", options.kv_memory_bytes, /*can_be_auto=*/true,
           "Memory of the KV cache, or auto: a part of what is free [auto]");
  AddParsed(
      app, "--kv-dtype", options.kv_dtype, ParseKvDtypeOrAuto,
      "What the KV cache stores: f16; f32, exact at twice its memory; int8, 53 % of its memory; "
      "int4 (K in int8, V in int4), 41 %; or auto: f16 where the context fits, else int8 [f16]")
      ->type_name("DTYPE");
  AddParsed(app, "--prefix-cache", options.prefix_cache, ParseOnOff,
            "Prompts that begin alike share what was computed for one of them: on or off [on]")
      ->type_name("on|off");
}

Result<MetricsCompat> ParseMetricsCompat(std::string_view text) {
  if (text == "none") return MetricsCompat::kNone;
  if (text == "vllm") return MetricsCompat::kVllm;
  return MakeError(ErrorCode::kInvalidArgument, "'{}' names no metrics; use none or vllm", text);
}

void AddLimits(CLI::App& app, ServeOptions& options) {
  Add(app, "--max-connections", options.max_connections,
      "Connections at once; more get status 503 [1024]")
      ->check(WholeNumber(1, 1'000'000))
      ->type_name("N");
  AddClientLimits(app, options.max_body_bytes, options.header_timeout, options.body_timeout,
                  options.write_timeout);
  AddDuration(app, "--drain-timeout", options.drain_timeout,
              "Time that running requests have to finish after SIGTERM [30s]");
  AddDuration(app, "--stall-timeout", options.stall_timeout,
              "/health/live fails when work waits so long without a token, /health/ready after a "
              "quarter of it; 0: never [120s]");
  AddParsed(app, "--sleep-mode", options.sleep_mode, ParseOnOff,
            "POST /sleep and /wake_up on the administrative port give the memory of weights and KV "
            "cache back and take it again: on or off [off]")
      ->type_name("on|off");
  AddParsed(app, "--metrics-compat", options.metrics_compat, ParseMetricsCompat,
            "none, or vllm: /metrics shows the figures under vLLM's names too [none]")
      ->type_name("NAMES");
  AddLog(app, options.log_level, options.log_format);
}

// What the options must be in view of each other. Every running request needs room for one token
// in a step.
void CheckTogether(const ServeOptions& options) {
  if (options.max_batch_tokens == 0 || options.max_batch_tokens >= options.max_sequences) return;
  throw CLI::ValidationError(
      "--max-batch-tokens",
      fmt::format("{} is less than --max-sequences ({}); use at least as much, "
                  "or fewer sequences",
                  options.max_batch_tokens, options.max_sequences));
}

// What else is called differently by vLLM (first) and llama.cpp's server, or not needed here.
constexpr char kModelIsFirst[] = "name the model without an option: quern-serve MODEL.gguf";
constexpr char kUseContext[] = "use --max-context-tokens";
constexpr char kUseSequences[] = "use --max-sequences";
constexpr char kUseBatch[] = "use --max-batch-tokens";
constexpr char kUseName[] = "use --served-name";
constexpr char kUseKvDtype[] = "use --kv-dtype";
constexpr char kUseKvMemory[] = "use --kv-memory, which is a size";
constexpr char kUseTenants[] = "use --tenants, which names a file of keys";
constexpr char kOfTheFile[] = "the GGUF file says it";
constexpr char kNotDownloaded[] =
    "models are not downloaded here: name a file without an option: quern-serve MODEL.gguf";
constexpr char kUseDevice[] = "use --device cuda: all of a model is on the GPU then";
constexpr char kToolsNeedNone[] = "requests may have tools without an option: leave it out";
constexpr char kAttentionNeedsNone[] = "there is one way to compute attention: leave it out";
constexpr ForeignOption kForeignOptions[] = {
    {"--model", kModelIsFirst},
    {"--max-model-len", kUseContext},
    {"--max-num-seqs", kUseSequences},
    {"--max-num-batched-tokens", kUseBatch},
    {"--served-model-name", kUseName},
    {"--kv-cache-dtype", kUseKvDtype},
    {"--kv-cache-memory-bytes", kUseKvMemory},
    {"--gpu-memory-utilization", kUseKvMemory},
    {"--enable-prefix-caching", "use --prefix-cache on"},
    {"--no-enable-prefix-caching", "use --prefix-cache off"},
    {"--enable-sleep-mode", "use --sleep-mode on"},
    {"--api-key", kUseTenants},
    {"--uvicorn-log-level", "use --log-level"},
    {"--tokenizer", kOfTheFile},
    {"--quantization", kOfTheFile},
    {"--dtype", "use --activations, which a GPU has; weights are as in the file"},
    {"-tp", "use --tensor-parallel-size"},
    {"--trust-remote-code", "no code comes with a model: leave it out"},
    {"--enable-auto-tool-choice", kToolsNeedNone},
    {"--tool-call-parser", kToolsNeedNone},
    {"--reasoning-parser", "reasoning is part of an answer's text here: leave it out"},
    {"-m", kModelIsFirst},
    {"-c", kUseContext},
    {"--ctx-size", kUseContext},
    {"-np", kUseSequences},
    {"--parallel", kUseSequences},
    {"-b", kUseBatch},
    {"--batch-size", kUseBatch},
    {"-t", "use --threads"},
    {"-a", kUseName},
    {"--alias", kUseName},
    {"-ctk", kUseKvDtype},
    {"--cache-type-k", kUseKvDtype},
    {"-ctv", kUseKvDtype},
    {"--cache-type-v", kUseKvDtype},
    {"--api-key-file", kUseTenants},
    {"-hf", kNotDownloaded},
    {"-hfr", kNotDownloaded},
    {"--hf-repo", kNotDownloaded},
    {"-ngl", kUseDevice},
    {"--gpu-layers", kUseDevice},
    {"--n-gpu-layers", kUseDevice},
    {"-fa", kAttentionNeedsNone},
    {"--flash-attn", kAttentionNeedsNone},
    {"--jinja", "chat templates are always Jinja's: leave it out"},
    {"--chat-template-file", "use --chat-template, which names a file"},
};

// Where two models are named, as in `quern-serve serve MODEL`, what to do; else nothing.
std::optional<std::string> SecondModel(const CLI::App& app, const std::string& first,
                                       const CLI::ParseError& error) {
  if (error.get_exit_code() != static_cast<int>(CLI::ExitCodes::ExtrasError)) return std::nullopt;
  const std::vector<std::string> more = app.remaining();
  const auto is_option = [](const std::string& argument) { return argument.starts_with('-'); };
  if (more.empty() || std::any_of(more.begin(), more.end(), is_option)) return std::nullopt;
  if (!std::filesystem::exists(first)) {
    return fmt::format("'{}' is taken for the model; no word goes before that: quern-serve {}",
                       first, more[0]);
  }
  return fmt::format("'{}' is one argument too many: one model is served, here '{}'", more[0],
                     first);
}

void Refuse(const std::string& why) {
  std::fprintf(stderr, "quern-serve: %s; see quern-serve --help\n", why.c_str());
}

// The model's file name without ".gguf"; other dots belong to it ("Llama-3.2-1B").
std::string NameOf(const std::string& model) {
  const std::filesystem::path file = std::filesystem::path(model).filename();
  return file.extension() == ".gguf" ? file.stem().string() : file.string();
}

}  // namespace

ParsedCommandLine ParseCommandLine(int argc, char** argv) {
  ParsedCommandLine parsed;
  CLI::App app("Serves a quantised language model over an OpenAI-compatible HTTP API.\n",
               "quern-serve");
  app.footer(kFooter);
  app.set_version_flag("--version", "quern-serve " QUERN_VERSION);
  app.get_formatter()->column_width(38);
  AddServing(app, parsed.options);
  AddAccess(app, parsed.options);
  AddEngine(app, parsed.options);
  AddParallel(app, parsed.options);
  AddLimits(app, parsed.options);
  try {
    app.parse(argc, argv);
    CheckTogether(parsed.options);
  } catch (const CLI::Success& success) {  // --help, --version
    parsed.exit_now = true;
    if (const auto why = NoHelp(app, argc, argv, kForeignOptions)) {
      parsed.exit_code = 2;
      Refuse(*why);
    } else {
      app.exit(success);
    }
  } catch (const CLI::ParseError& error) {
    parsed.exit_now = true;
    parsed.exit_code = 2;
    const std::string why = SecondModel(app, parsed.options.model, error)
                                .value_or(ExplainError(app, error, argc, argv, kForeignOptions));
    Refuse(why);
  }
  if (parsed.options.served_name.empty()) {
    parsed.options.served_name = NameOf(parsed.options.model);
  }
  if (parsed.options.admin_host.empty()) parsed.options.admin_host = parsed.options.host;
  // Every running request needs room for one token in a step.
  if (parsed.options.max_batch_tokens == 0) {
    parsed.options.max_batch_tokens = std::max(512, parsed.options.max_sequences);
  }
  return parsed;
}

void AddEngineOptions(CLI::App& app, ServeOptions& options) { AddEngine(app, options); }

ModelOptions ModelOptionsOf(const ServeOptions& options) {
  return {.threads = options.threads,
          .kv_dtype = options.kv_dtype.value_or(KvDtype::kF16),
          .activations = options.activations};
}

EngineOptions EngineOptionsOf(const ServeOptions& options) {
  return {.max_sequences = options.max_sequences,
          .max_waiting = options.max_waiting,
          .max_batch_tokens = options.max_batch_tokens,
          .max_decode_slowdown = options.max_decode_slowdown,
          .max_context_tokens = options.max_context_tokens,
          .least_context_tokens = kLeastContextTokens,
          .kv_memory_bytes = options.kv_memory_bytes,
          .int8_kv_if_short = !options.kv_dtype,
          .prefix_cache = options.prefix_cache};
}

int ExitCode(const Error& error) {
  switch (error.code) {
    case ErrorCode::kInvalidArgument:
    case ErrorCode::kNotFound:
    case ErrorCode::kPermissionDenied:
    case ErrorCode::kUnsupported:
    case ErrorCode::kDataLoss:
    case ErrorCode::kResourceExhausted:
      return 2;
    default:
      return 1;
  }
}

}  // namespace quern
