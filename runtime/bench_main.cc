// quern-bench: loads a server of OpenAI's API, measures its answers, and says what the figures
// belong to.
#include <sys/utsname.h>
#include <unistd.h>

#include <cstdio>
#include <ctime>
#include <exception>
#include <fstream>
#include <new>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "runtime/base/cgroup.h"
#include "runtime/base/clock.h"
#include "runtime/bench/client/load.h"
#include "runtime/bench/client/probe.h"
#include "runtime/bench/plot.h"
#include "runtime/bench/report.h"
#include "runtime/bench_options.h"
#include "runtime/command_line.h"

namespace quern::bench {
namespace {

constexpr int kExitFailures = 1, kExitWrong = 2, kExitInterrupted = 130;
constexpr size_t kMaxTraceBytes = size_t{1} << 30;
// The first prompt and words of the warm-up are none of the run's.
constexpr uint64_t kWarmUpSeed = 0x77617266;

void Say(const std::string& text) { std::fprintf(stderr, "quern-bench: %s\n", text.c_str()); }

ClientFacts ThisClient() {
  ClientFacts facts;
  facts.version = QUERN_VERSION;
  facts.cpu = CpuModel();
  facts.processors = static_cast<int>(std::thread::hardware_concurrency());
  utsname name{};
  if (uname(&name) == 0) facts.host = fmt::format("{} {}", name.sysname, name.release);
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  gmtime_r(&now, &utc);
  facts.time = fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z", utc.tm_year + 1900,
                           utc.tm_mon + 1, utc.tm_mday, utc.tm_hour, utc.tm_min, utc.tm_sec);
  return facts;
}

Result<std::vector<TraceRequest>> ReadTrace(const BenchOptions& options) {
  if (options.trace_file.empty()) return std::vector<TraceRequest>();
  std::ifstream file(options.trace_file, std::ios::binary | std::ios::ate);
  const auto size = file.tellg();
  if (!file || size < 0) {
    return MakeError(ErrorCode::kNotFound, "cannot read the trace {}", options.trace_file);
  }
  if (static_cast<size_t>(size) > kMaxTraceBytes) {
    return MakeError(ErrorCode::kInvalidArgument, "{} has more than {} MiB", options.trace_file,
                     kMaxTraceBytes >> 20);
  }
  std::string text(static_cast<size_t>(size), '\0');
  file.seekg(0);
  file.read(text.data(), size);
  const auto limit =
      options.trace_limit > 0 ? static_cast<size_t>(options.trace_limit) : kMaxTraceRequests;
  auto trace = ParseTrace(text, limit);
  if (!trace) return std::move(trace).error().Within(options.trace_file);
  return trace;
}

LoadOptions LoadOptionsOf(const BenchOptions& options, const BodyOptions& body) {
  LoadOptions load;
  load.target = options.url.path + EndpointPath(body.endpoint);
  load.body = body;
  load.closed_loop = options.plan.arrivals == Arrivals::kClosed;
  load.max_in_flight = load.closed_loop ? options.concurrency : options.max_in_flight;
  load.duration = options.plan.duration;
  load.count_refusals = options.max_error_rate > 0;
  load.progress_every = Seconds(isatty(STDERR_FILENO) != 0 ? 1 : 10);
  return load;
}

Error RefusedWith(const std::string& said) {
  return MakeError(ErrorCode::kInvalidArgument, "the server refuses these requests with {}", said);
}

// Tokens of the longest request, prompt and answer.
struct Longest {
  int32_t prompt = 0, output = 0;
  int64_t total() const { return int64_t{prompt} + output; }
};

Longest LongestOf(const PlanOptions& plan, const std::vector<TraceRequest>& trace) {
  if (trace.empty()) return {plan.prompt.high, plan.output.high};
  Longest longest;
  const auto cut = [](int32_t tokens, int32_t to) {
    return to > 0 ? std::min(tokens, to) : tokens;
  };
  for (const TraceRequest& request : trace) {
    const Longest one{cut(request.prompt_tokens, plan.max_prompt_tokens),
                      cut(request.output_tokens, plan.max_output_tokens)};
    if (one.total() > longest.total()) longest = one;
  }
  return longest;
}

// A server that says that its context is shorter than the longest request is asked about that one,
// before the many that it would take until it comes up.
Status TryLongest(HttpClient& client, const BenchOptions& options, const WordTokens& words,
                  LoadOptions load, const Longest& longest) {
  PlanOptions one = options.plan;
  one.arrivals = Arrivals::kClosed;
  one.duration = 0;
  one.max_requests = 1;
  one.prompt = {longest.prompt, longest.prompt};
  one.output = {longest.output, longest.output};
  load.max_in_flight = 1;
  load.closed_loop = true;
  load.duration = 0;
  Plan plan(one, {});
  const PromptMaker prompts(words, {MixSeeds(options.prompt_seed, kWarmUpSeed), 0});
  LoadRun run(client, plan, prompts, load, nullptr);
  run.Run();
  if (run.refusal()) return RefusedWith(*run.refusal());
  return {};
}

// Requests like those of the run, as many at once as a closed loop has.
Status WarmUp(HttpClient& client, const BenchOptions& options, const WordTokens& words,
              LoadOptions load, const std::vector<TraceRequest>& trace) {
  if (options.warm_up_requests == 0) return {};
  PlanOptions warm = options.plan;
  warm.arrivals = Arrivals::kClosed;
  warm.duration = 0;
  warm.max_requests = options.warm_up_requests;
  warm.seed = MixSeeds(options.plan.seed, kWarmUpSeed);
  load.max_in_flight = options.concurrency;
  load.closed_loop = true;
  load.duration = 0;
  Plan plan(warm, trace);
  const uint64_t prompt_seed = MixSeeds(options.prompt_seed, kWarmUpSeed);
  const PromptMaker prompts(words, {prompt_seed, options.shared_prefix});
  LoadRun run(client, plan, prompts, load, nullptr);
  run.Run();
  if (run.refusal()) return RefusedWith(*run.refusal());
  return {};
}

void ShowProgress(const Progress& now, const std::optional<int64_t>& total) {
  const std::string of = total ? fmt::format(" of {}", *total) : std::string();
  Say(fmt::format("{:.0f} s: {}{} done, {} under way, {} failed; {:.1f} text events/s", now.seconds,
                  now.done, of, now.in_flight, now.failed,
                  static_cast<double>(now.text_events) / now.seconds));
}

// To the file, or to stdout for "-".
Status WriteFile(const std::string& path, const std::function<void(std::FILE*)>& write) {
  std::FILE* file = path == "-" ? stdout : std::fopen(path.c_str(), "w");
  if (file == nullptr) return MakeError(ErrorCode::kPermissionDenied, "cannot write {}", path);
  write(file);
  const bool failed = std::ferror(file) != 0;
  const bool not_flushed = (path == "-" ? std::fflush(file) : std::fclose(file)) != 0;
  if (!failed && !not_flushed) return {};
  return MakeError(ErrorCode::kDataLoss, "{} could not be written to its end", path);
}

// Before a run, so that its figures are not lost at the end.
Status CheckWritable(const std::string& path) {
  if (path.empty() || path == "-") return {};
  std::FILE* file = std::fopen(path.c_str(), "a");
  if (file == nullptr) return MakeError(ErrorCode::kPermissionDenied, "cannot write {}", path);
  std::fclose(file);
  return {};
}

Status WriteReports(const BenchOptions& options, const RunFacts& facts, const Figures& figures,
                    const std::vector<const RequestRecord*>& records) {
  if (options.json_file != "-") {
    fmt::print("{}", ReportText(facts, figures));
    std::fflush(stdout);
  }
  if (!options.json_file.empty()) {
    QUERN_TRY(WriteFile(options.json_file, [&](std::FILE* file) {
      using Handler = nlohmann::json::error_handler_t;
      const std::string head = ReportJson(facts, figures).dump(1, ' ', false, Handler::replace);
      // The requests, one on a line, as the last member of the object.
      fmt::print(file, "{},\n \"requests\": [\n", head.substr(0, head.size() - 2));
      for (size_t i = 0; i < records.size(); ++i) {
        fmt::print(file, "{}{}", i > 0 ? ",\n" : "", RecordJson(*records[i]));
      }
      fmt::print(file, "\n ]\n}}\n");
    }));
  }
  if (options.plot_file.empty()) return {};
  return WriteFile(options.plot_file, [&](std::FILE* file) {
    const std::string title = fmt::format("{} at {}", facts.server.model, facts.url);
    fmt::print(file, "{}", PlotSvg(records, title));
  });
}

void WarnOfLengths(const BenchOptions& options, const RunFacts& facts, const PromptMaker& prompts,
                   const Longest& longest) {
  const PlanOptions& plan = options.plan;
  if (facts.server.max_model_len > 0 && longest.total() > facts.server.max_model_len) {
    Say(fmt::format("prompts and answers have up to {} tokens, and the model's context {}",
                    longest.total(), facts.server.max_model_len));
  }
  if (options.trace_file.empty() && plan.prompt.low < prompts.least_tokens()) {
    Say(fmt::format("no prompt has fewer than {} tokens here, with what the server puts before it",
                    prompts.least_tokens()));
  }
}

// What runs, runs; the rest is said in the facts.
Result<RunFacts> FactsOf(HttpClient& client, const BenchOptions& options, WordTokens& words) {
  RunFacts facts;
  facts.url = options.url.Show();
  facts.client = ThisClient();
  facts.precision = options.precision;
  facts.hardware = options.hardware;
  facts.note = options.note;
  facts.body = options.body;
  facts.plan = options.plan;
  facts.trace = options.trace_file.substr(options.trace_file.rfind('/') + 1);
  facts.shared_prefix = options.shared_prefix;
  facts.prompt_seed = options.prompt_seed;
  facts.concurrency = options.concurrency;
  facts.max_in_flight = options.max_in_flight;
  facts.warm_up_requests = options.warm_up_requests;
  facts.objective = options.objective;
  QUERN_ASSIGN(facts.server, AskServer(client, options.url, options.body.model));
  facts.body.model = facts.server.model;
  auto learnt = AskForWords(client, options.url, facts.body, facts.server);
  if (learnt) {
    words = std::move(learnt).value();
  } else if (learnt.error().code == ErrorCode::kPermissionDenied) {
    return RefusedWith(learnt.error().message);
  } else {
    Say(fmt::format("prompts are of about one token a word, as the server does not count them: {}",
                    learnt.error().message));
  }
  facts.exact_prompts = words.exact;
  return facts;
}

// The server's processor time during a run, where its metrics are known and say it.
class ServerCpu {
 public:
  // Says in `facts` what the metrics tell of the hardware. Errors: AskMetrics'.
  static Result<ServerCpu> Open(const BenchOptions& options, ServerFacts& facts) {
    ServerCpu cpu;
    if (!options.metrics_url) return cpu;
    cpu.url_ = *options.metrics_url;
    ClientOptions keyless = options.client;
    keyless.api_key.clear();
    QUERN_ASSIGN(cpu.client_, HttpClient::Create(cpu.url_, keyless));
    QUERN_ASSIGN(const ProcessFacts now, AskMetrics(*cpu.client_, cpu.url_));
    facts.hardware = now.hardware;
    if (now.cpu_metric.empty()) Say(cpu.url_.Show() + " tells no processor time");
    return cpu;
  }
  void BeginRun() { before_ = Ask(); }
  void EndRun(ServerFacts& facts) const {
    const ProcessFacts now = Ask();
    if (now.cpu_metric.empty() || now.cpu_metric != before_.cpu_metric) return;
    if (now.cpu_seconds < before_.cpu_seconds) {
      return Say("the server began anew during the run: its processor time is not known");
    }
    facts.cpu_metric = now.cpu_metric;
    facts.cpu_seconds = now.cpu_seconds - before_.cpu_seconds;
  }

 private:
  ProcessFacts Ask() const {
    if (!client_) return {};
    auto facts = AskMetrics(*client_, url_);
    if (facts) return std::move(facts).value();
    Say(facts.error().message + ": the server's processor time is not known");
    return {};
  }

  BaseUrl url_;
  std::unique_ptr<HttpClient> client_;  // null: no metrics
  ProcessFacts before_;
};

Result<int> Run(const BenchOptions& options) {
  QUERN_TRY(CheckWritable(options.json_file));
  QUERN_TRY(CheckWritable(options.plot_file));
  QUERN_ASSIGN(auto trace, ReadTrace(options));
  QUERN_ASSIGN(const auto client, HttpClient::Create(options.url, options.client));
  WordTokens words = UnknownWordTokens();
  QUERN_ASSIGN(RunFacts facts, FactsOf(*client, options, words));
  QUERN_ASSIGN(ServerCpu server_cpu, ServerCpu::Open(options, facts.server));
  const LoadOptions load = LoadOptionsOf(options, facts.body);
  const Longest longest = LongestOf(options.plan, trace);
  const int64_t context = facts.server.max_model_len;
  if (context > 0 && longest.total() > context && !load.count_refusals) {
    QUERN_TRY(TryLongest(*client, options, words, load, longest));
  }
  QUERN_TRY(WarmUp(*client, options, words, load, trace));

  Plan plan(options.plan, std::move(trace));
  const PromptMaker prompts(words, {options.prompt_seed, options.shared_prefix});
  WarnOfLengths(options, facts, prompts, longest);
  const auto total = plan.Total();
  std::function<void(const Progress&)> progress;
  if (!options.quiet) progress = [total](const Progress& now) { ShowProgress(now, total); };
  LoadRun run(*client, plan, prompts, load, progress);
  client->OnInterrupt([&run] { run.Interrupt(); });
  server_cpu.BeginRun();
  const double cpu_before = ProcessCpuSeconds();
  run.Run();
  if (run.refusal()) return RefusedWith(*run.refusal());

  facts.cpu_seconds = ProcessCpuSeconds() - cpu_before;
  server_cpu.EndRun(facts.server);
  facts.interrupted = run.interrupted();
  facts.cut_requests = plan.num_cut();
  facts.server.fingerprint = run.fingerprint();
  const auto records = run.records();
  const Figures figures = FiguresOf(records, options.objective);
  for (const auto& [kind, message] : run.first_messages()) {
    Say(fmt::format("{} requests failed with: {}{}{}", figures.errors.at(kind), kind,
                    message.empty() ? "" : ": ", message));
  }
  QUERN_TRY(WriteReports(options, facts, figures, records));
  if (facts.interrupted) return kExitInterrupted;
  const double allowed = options.max_error_rate * static_cast<double>(records.size());
  return static_cast<double>(figures.failed) > allowed ? kExitFailures : 0;
}

int Main(int argc, char** argv) {
  const auto parsed = ParseBenchLine(argc, argv);
  if (parsed.exit_now) return parsed.exit_code;
  RaiseFileLimit();
  const auto code = Run(parsed.options);
  if (code) return *code;
  Say(code.error().message);
  return kExitWrong;
}

}  // namespace
}  // namespace quern::bench

int main(int argc, char** argv) {
  try {
    return quern::bench::Main(argc, argv);
  } catch (const std::bad_alloc&) {
    std::fprintf(stderr, "quern-bench: not enough memory\n");
  } catch (const std::exception& error) {
    std::fprintf(stderr, "quern-bench: %s\n", error.what());
  }
  return 1;
}
