#include "runtime/serve_bench.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cstdio>
#include <ctime>
#include <filesystem>
#include <new>
#include <nlohmann/json.hpp>
#include <random>

#include "runtime/base/cgroup.h"
#include "runtime/base/log.h"
#include "runtime/command_line.h"
#include "runtime/engine/engine.h"
#include "runtime/engine/memory_plan.h"
#include "runtime/formats/gguf.h"
#include "runtime/serve_bench_run.h"
#include "runtime/serve_bench_sampling.h"
#include "runtime/serve_options.h"

namespace quern {
namespace {

using nlohmann::json;
using Milliseconds = std::chrono::milliseconds;

constexpr int kMaxBatch = 4096;           // as --max-sequences
constexpr int32_t kWarmUpTokens = 8;      // generated before the runs that count
constexpr Milliseconds kFirstWord(2000);  // until something is said about what takes long
constexpr Milliseconds kNextWord(5000);   // and again

constexpr char kFooter[] = R"(
A batch is so many requests at once, each with a random prompt of its own, to full length, greedy unless told otherwise.
  prefill  prompt tokens of the batch / time until the last request has its first token; what other
           requests generate meanwhile is in that time, and not in decode
  decode   tokens that came after that moment / time from it to the end, at the mean batch of its
           steps: where that is clearly less than the batch, a longer --generate brings it nearer
  other    the part of the steps that only decode which is not the forward pass: scheduling, sampling, text
  total    prompt and generated tokens / the whole time
  TTFT     from the batch's start to each request's first token; ITL: between two tokens of a request
Each figure is the median of the runs (--repeats), after a warm-up; p50 and p95 are taken within a
run. The prefix cache is off, and prompts are read as fast as it goes; with --max-decode-slowdown 2
they are read as quern-serve does unless told otherwise.

Examples:
  quern-serve bench model.gguf --batch 1,8,32 --prompt 128 --generate 128
  quern-serve bench model.gguf --threads 2 --kv-dtype f16 --repeats 5 --json > figures.json

"bench" must be the first word; to serve a model file of that name, write ./bench.
Exit code 2: the model or an option is wrong, and one line says how.)";

struct BenchCommand {
  BenchCommand() { serve.max_decode_slowdown = 0; }  // prompts first: a decode figure of the batch

  ServeOptions serve;  // of which the engine's part counts
  std::vector<int32_t> batches = {1, 8, 32};
  int32_t prompt = 128;
  int32_t generate = 128;
  int32_t repeats = 3;
  uint32_t seed = 1;
  BenchSampling sampling;
  bool as_json = false;

  int32_t largest() const { return *std::max_element(batches.begin(), batches.end()); }
};

// "1,8,32"
Result<std::vector<int32_t>> ParseBatches(std::string_view text) {
  std::vector<int32_t> batches;
  const char* at = text.data();
  const char* const end = at + text.size();
  while (true) {
    int32_t batch = 0;
    const auto [after, error] = std::from_chars(at, end, batch);
    if (error != std::errc() || batch < 1 || batch > kMaxBatch || (after != end && *after != ',')) {
      return MakeError(ErrorCode::kInvalidArgument,
                       "'{}' is no list of batch sizes; use numbers from 1 to {}, as in 1,8,32",
                       text, kMaxBatch);
    }
    batches.push_back(batch);
    if (after == end) return batches;
    at = after + 1;
  }
}

void AddOptions(CLI::App& app, BenchCommand& command) {
  app.add_option("MODEL", command.serve.model, "Model to measure: a GGUF file")
      ->envname("QUERN_MODEL")
      ->required()
      ->type_name("FILE");
  const auto read_batches = [&command](const std::string& text) {
    auto batches = ParseBatches(text);
    if (!batches) throw CLI::ValidationError("--batch", batches.error().message);
    command.batches = std::move(batches).value();
  };
  app.add_option_function<std::string>("--batch", read_batches,
                                       "Requests at once, a measurement for each [1,8,32]")
      ->type_name("N,...");
  app.add_option("--prompt", command.prompt, "Tokens of each prompt [128]")
      ->check(WholeNumber(1, 1 << 20))
      ->type_name("N");
  app.add_option("--generate", command.generate, "Tokens to generate for each request [128]")
      ->check(WholeNumber(2, 1 << 20))
      ->type_name("N");
  app.add_option("--repeats", command.repeats, "Runs of each batch; the median is given [3]")
      ->check(WholeNumber(1, 1000))
      ->type_name("N");
  app.add_option("--seed", command.seed, "Of the random prompts, and of what is sampled [1]")
      ->check(WholeNumber(0, UINT32_MAX).description(""))
      ->type_name("N");
  AddSamplingOptions(app, command.sampling);
  app.add_flag("--json", command.as_json, "Print one line of JSON instead of a table");
  AddEngineOptions(app, command.serve);
  // These follow from what is measured.
  for (const char* given :
       {"--max-sequences", "--max-waiting", "--max-context-tokens", "--prefix-cache"}) {
    app.remove_option(app.get_option(given));
  }
  app.get_option("--max-decode-slowdown")
      ->description(
          "How many times as long a step with streams may take for the sake of prompts "
          "that are read beside them; 0: no bound [0]");
  app.get_option("--max-batch-tokens")
      ->description(
          "Tokens of one step at most; 0: 512, or the largest --batch where that is more "
          "[0]");
}

// The engine is made for the largest batch, and for no more.
void FitEngine(BenchCommand& command) {
  CheckSamplingOptions(command.sampling);
  ServeOptions& serve = command.serve;
  serve.max_sequences = serve.max_waiting = command.largest();
  serve.max_context_tokens = command.prompt + command.generate;
  serve.prefix_cache = false;
  if (serve.max_batch_tokens == 0) serve.max_batch_tokens = std::max(512, serve.max_sequences);
  if (serve.max_batch_tokens < serve.max_sequences) {
    throw CLI::ValidationError("--max-batch-tokens",
                               fmt::format("{} is less than the largest --batch ({}); use at least "
                                           "as much, or a smaller batch",
                                           serve.max_batch_tokens, serve.max_sequences));
  }
}

// Says on stderr what takes long.
class Progress {
 public:
  template <typename... Args>
  void Tick(fmt::format_string<Args...> format, Args&&... args) {
    const SteadyTime now = RealClock().Now();
    if (now < next_) return;
    next_ = now + kNextWord;
    const std::string text = fmt::format(format, std::forward<Args>(args)...);
    std::fprintf(stderr, "%s\n", text.c_str());
  }

 private:
  SteadyTime next_ = RealClock().Now() + kFirstWord;
};

// Of all threads of this process so far.
double CpuSeconds() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

// An engine with a model, and what it is measured with.
class Bench {
 public:
  static Result<std::unique_ptr<Bench>> Load(const BenchCommand& command) {
    auto bench = std::unique_ptr<Bench>(new Bench(command));
    const SteadyTime start = RealClock().Now();
    QUERN_ASSIGN(auto file, GgufFile::Open(command.serve.model));
    QUERN_TRY(RequireWholeModel(*file));
    QUERN_ASSIGN(bench->tokenizer_, Tokenizer::FromGguf(*file));
    for (TokenId id = 0; id < bench->tokenizer_->vocab_size(); ++id) {
      if (!bench->tokenizer_->IsControl(id)) bench->words_.push_back(id);
    }
    if (bench->words_.empty()) {
      return MakeError(ErrorCode::kUnsupported, "its vocabulary has nothing but control tokens");
    }
    QUERN_ASSIGN(auto model,
                 LoadModelOn(command.serve.device, std::move(file), ModelOptionsOf(command.serve)));
    bench->info_ = model->info();
    QUERN_TRY(bench->CheckContext());
    QUERN_ASSIGN(bench->engine_,
                 EngineCore::Start(std::move(model), *bench->tokenizer_,
                                   EngineOptionsOf(command.serve), &bench->step_clock_));
    QUERN_TRY(bench->CheckKvCache());
    bench->load_seconds_ = Seconds(RealClock().Now() - start).count();
    bench->progress_.Tick("loaded in {:.1f} s", bench->load_seconds_);
    return bench;
  }

  // After a warm-up, the medians of the runs.
  Result<BenchFigures> Measure(int32_t batch) {
    QUERN_TRY(RunOnce(batch, std::min(kWarmUpTokens, command_.generate), "warm-up"));
    std::vector<BenchFigures> runs;
    for (int32_t i = 1; i <= command_.repeats; ++i) {
      const std::string name = fmt::format("run {} of {}", i, command_.repeats);
      QUERN_ASSIGN(const BenchFigures figures, RunOnce(batch, command_.generate, name));
      runs.push_back(figures);
    }
    return Medians(runs);
  }

  // What the figures belong to.
  json Disclosure() const;

 private:
  explicit Bench(const BenchCommand& command) : command_(command), random_(command.seed) {}

  Status CheckContext() const {
    const int32_t length = command_.prompt + command_.generate;
    if (length <= info_.context_tokens) return {};
    return MakeError(ErrorCode::kInvalidArgument,
                     "--prompt {} and --generate {} are {} tokens; the model's context has {}",
                     command_.prompt, command_.generate, length, info_.context_tokens);
  }

  // With less, sequences would be preempted and the figures would be those of something else.
  Status CheckKvCache() const {
    const EngineStats stats = engine_->Stats();
    const int64_t tokens_each = command_.prompt + command_.generate;
    const int64_t blocks =
        command_.largest() * ((tokens_each + stats.kv_block_tokens - 1) / stats.kv_block_tokens);
    if (blocks <= stats.kv_blocks_total) return {};
    return MakeError(ErrorCode::kResourceExhausted,
                     "a batch of {} needs a KV cache of {} tokens, and there is one of {}: give "
                     "--kv-memory {}KiB, or a smaller batch",
                     command_.largest(), blocks * stats.kv_block_tokens,
                     int64_t{stats.kv_blocks_total} * stats.kv_block_tokens,
                     (KvMemoryFor(info_, EngineOptionsOf(command_.serve), blocks) + 1023) / 1024);
  }

  GenerationRequest RandomRequest(int32_t generate) {
    GenerationRequest request;
    for (int32_t i = 0; i < command_.prompt; ++i) {
      request.prompt.push_back(words_[random_() % words_.size()]);
    }
    command_.sampling.ApplyTo(request, words_, random_);
    request.max_tokens = generate;
    request.ignore_eos = true;
    return request;
  }

  Result<BenchFigures> RunOnce(int32_t batch, int32_t generate, const std::string& name) {
    std::vector<GenerationRequest> requests;
    for (int32_t i = 0; i < batch; ++i) requests.push_back(RandomRequest(generate));
    // Shared: where a Submit fails, the engine still calls the sinks of those before.
    const auto run = std::make_shared<BenchRun>(requests.size(), static_cast<size_t>(generate));
    step_clock_.Restart();
    const double cpu_start = CpuSeconds();
    const SteadyTime start = RealClock().Now();
    for (size_t i = 0; i < requests.size(); ++i) {
      auto sink = [run, i, this](const GenerationDelta& delta) {
        run->Push(i, delta, step_clock_.step_end());
      };
      QUERN_TRY(engine_->Submit(std::move(requests[i]), std::move(sink)));
    }
    while (!run->WaitFor(Milliseconds(200))) {
      progress_.Tick("batch {}, {}: {} of {} tokens generated", batch, name, run->generated(),
                     int64_t{batch} * generate);
    }
    QUERN_ASSIGN(const auto times, run->TakeTimes());
    BenchFigures figures = FiguresOf(start, times, command_.prompt, CpuSeconds() - cpu_start);
    figures.decode_overhead = step_clock_.OverheadShare();
    return figures;
  }

  const BenchCommand& command_;
  Progress progress_;
  std::mt19937 random_;
  ModelInfo info_;
  double load_seconds_ = 0;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::vector<TokenId> words_;  // what prompts are made of
  StepClock step_clock_;
  std::unique_ptr<EngineCore> engine_;  // last: its thread uses what is above
};

json Bench::Disclosure() const {
  const EngineStats stats = engine_->Stats();
  const ServeOptions& serve = command_.serve;
  json about = {{"version", QUERN_VERSION},
                {"model_file", std::filesystem::path(serve.model).filename().string()},
                {"architecture", info_.architecture},
                {"quantization", info_.quantization},
                {"parameters", info_.parameters},
                {"weight_bytes", info_.weight_bytes},
                {"kv_dtype", KvDtypeName(stats.kv_dtype)},
                {"kv_cache_tokens", int64_t{stats.kv_blocks_total} * stats.kv_block_tokens},
                {"compute", info_.compute},
                {"threads", serve.threads > 0 ? serve.threads : DefaultThreads()},
                {"cpu", CpuModel()},
                {"cpu_quota", CpuQuota()},
                {"prompt_tokens", command_.prompt},
                {"generated_tokens", command_.generate},
                {"repeats", command_.repeats},
                {"seed", command_.seed},
                {"max_batch_tokens", serve.max_batch_tokens},
                {"max_decode_slowdown", serve.max_decode_slowdown},
                {"load_seconds", load_seconds_},
                {"peak_resident_bytes", ProcessMemoryUse().peak_resident_bytes}};
  about.update(ToJson(command_.sampling));
  return about;
}

json ToJson(int32_t batch, const BenchFigures& figures) {
  return {{"batch", batch},
          {"prefill_tokens_per_second", figures.prefill},
          {"decode_tokens_per_second", figures.decode},
          {"decode_mean_batch", figures.decode_batch},
          {"total_tokens_per_second", figures.total},
          {"total_tokens_per_cpu_second", figures.total_per_cpu},
          {"decode_overhead_share", figures.decode_overhead},
          {"ttft_seconds", {{"p50", figures.ttft_p50}, {"p95", figures.ttft_p95}}},
          {"itl_seconds", {{"p50", figures.itl_p50}, {"p95", figures.itl_p95}}}};
}

void PrintTableHead(const json& about) {
  const auto text = [&about](const char* key) { return about[key].get<std::string>(); };
  fmt::print("{}: {} {}, KV {}; {}, {}; quern {}\n", text("model_file"), text("architecture"),
             text("quantization"), text("kv_dtype"), text("compute"), text("cpu"), text("version"));
  fmt::print("prompt {}, generate {} tokens; median of {}\n\n", about["prompt_tokens"].get<int>(),
             about["generated_tokens"].get<int>(), about["repeats"].get<int>());
  fmt::print("{:>5}  {:>43}  {:>16}  {:>16}\n", "", "tokens/s", "TTFT ms", "ITL ms");
  fmt::print("{:>5}  {:>8} {:>8} {:>9} {:>6} {:>8}  {:>8}{:>8}  {:>8}{:>8}\n", "batch", "prefill",
             "decode", "at batch", "other", "total", "p50", "p95", "p50", "p95");
}

void PrintTableRow(int32_t batch, const BenchFigures& figures) {
  fmt::print(
      "{:>5}  {:>8.1f} {:>8.1f} {:>9.1f} {:>5.1f}% {:>8.1f}  {:>8.1f}{:>8.1f}  {:>8.1f}{:>8.1f}\n",
      batch, figures.prefill, figures.decode, figures.decode_batch, figures.decode_overhead * 100,
      figures.total, figures.ttft_p50 * 1e3, figures.ttft_p95 * 1e3, figures.itl_p50 * 1e3,
      figures.itl_p95 * 1e3);
  std::fflush(stdout);
}

Status RunBench(const BenchCommand& command) {
  QUERN_ASSIGN(const auto bench, Bench::Load(command));
  if (!command.as_json) PrintTableHead(bench->Disclosure());
  json results = json::array();
  for (const int32_t batch : command.batches) {
    QUERN_ASSIGN(const BenchFigures figures, bench->Measure(batch));
    results.push_back(ToJson(batch, figures));
    if (!command.as_json) PrintTableRow(batch, figures);
  }
  if (!command.as_json) return {};
  json report = bench->Disclosure();
  report["results"] = std::move(results);
  fmt::print("{}\n", report.dump(-1, ' ', false, json::error_handler_t::replace));
  return {};
}

int Fail(const std::string& message, int code) {
  std::fprintf(stderr, "quern-serve bench: %s\n", message.c_str());
  return code;
}

}  // namespace

int BenchMain(int argc, char** argv) {
  BenchCommand command;
  CLI::App app("Measures the engine of quern-serve with a model, without HTTP.\n",
               "quern-serve bench");
  app.footer(kFooter);
  app.get_formatter()->column_width(38);
  AddOptions(app, command);
  try {
    app.parse(argc, argv);
    FitEngine(command);
    if (auto log = InitLog("quern-serve", "warn", "text"); !log) {
      return Fail(log.error().message, ExitCode(log.error()));
    }
    if (const Status status = RunBench(command); !status) {
      const std::string& message = status.error().message;
      const bool named = message.starts_with(command.serve.model);
      return Fail(named ? message : fmt::format("{}: {}", command.serve.model, message),
                  ExitCode(status.error()));
    }
    return 0;
  } catch (const CLI::Success& success) {  // --help
    return app.exit(success);
  } catch (const CLI::ParseError& error) {
    return Fail(
        fmt::format("{}; see quern-serve bench --help", ExplainError(app, error, argc, argv)), 2);
  } catch (const std::bad_alloc&) {
    return Fail("not enough memory", 2);
  } catch (const std::exception& error) {
    return Fail(error.what(), 1);
  }
}

}  // namespace quern
