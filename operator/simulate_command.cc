#include "operator/simulate_command.h"

#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <charconv>
#include <condition_variable>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <thread>

#include "operator/simulation/report.h"

namespace quern::simulation {
namespace {

using nlohmann::json;

constexpr char kSimulateDescription[] =
    "Replays a trace of requests against simulated replicas and compares how autoscalers follow "
    "it.";

constexpr char kSimulateFooter[] = R"(
Traces: CSV with the columns TIMESTAMP, ContextTokens, GeneratedTokens (Azure's), or JSONL with timestamp (ms),
input_length, output_length and, if told, hash_ids of prompt blocks of 512 tokens (Mooncake's). Of a folder, every
.csv and .jsonl file is simulated by itself.

Policies: quern, knative, hpa-tokens, hpa-queue, keda, mean-active, fixed, and clairvoyant, which is no run but a lower
bound on the replica-hours of any policy. Each is at its published defaults, with its best target of a sweep: the
cheapest that serves as many requests within the objective as quern does. docs/scaling.md tells more.

Examples:
  quern-operator simulate --trace azure_code_2023.csv --policy all
  quern-operator simulate --trace azure_code_2023.csv --copies 16 --start-up 180 --policy quern,knative --json
  quern-operator simulate --trace traces/ --coefficients replica.json --ttft 5000 --itl 200 --plot plot.svg

Exit codes: 0 done, 2 a mistake in the options, a trace or the coefficients, 1 the plot could not be written.)";

constexpr uintmax_t kMaxFileBytes = uintmax_t{1} << 30;

struct Options {
  std::string trace, plot, coefficients = "h100-8b";
  std::vector<std::string> policies = {"all"}, targets;
  bool as_json = false;
  Scenario scenario;
  double stable_window = 60, panic_window = 10, scale_down_delay = 300;  // seconds
  double ttft_ms = 2000, itl_ms = 100;
  double price = -1;
  LoadOptions load;
  int threads = 0;
};

// A mistake that is the user's: told in one line.
Error Mistake(const std::string& what) {
  return MakeError(ErrorCode::kInvalidArgument, "{}", what);
}

Result<std::string> ReadText(const std::filesystem::path& path) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error)) {
    return Mistake(fmt::format("{}: there is no such file", path.string()));
  }
  if (std::filesystem::file_size(path, error) > kMaxFileBytes || error) {
    return Mistake(fmt::format("{}: is larger than 1 GiB", path.string()));
  }
  std::ifstream file(path, std::ios::binary);
  std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (!file) return Mistake(fmt::format("{}: cannot be read", path.string()));
  return text;
}

// The file, or the traces of a folder in the order of their names.
Result<std::vector<std::filesystem::path>> FindTraces(const std::string& trace) {
  std::error_code error;
  if (!std::filesystem::is_directory(trace, error)) {
    return std::vector<std::filesystem::path>{trace};
  }
  std::vector<std::filesystem::path> found;
  for (const auto& entry : std::filesystem::directory_iterator(trace, error)) {
    const auto extension = entry.path().extension();
    if (extension == ".csv" || extension == ".jsonl") found.push_back(entry.path());
  }
  if (found.empty()) {
    return Mistake(fmt::format("--trace: no .csv or .jsonl file in the folder {}", trace));
  }
  std::sort(found.begin(), found.end());
  return found;
}

Result<ReplicaProfile> FindProfile(const std::string& name) {
  std::string names, text;
  for (const BuiltinProfile& builtin : BuiltinProfiles()) {
    if (name == builtin.name) text = builtin.json;
    names += (names.empty() ? "" : ", ") + std::string(builtin.name);
  }
  if (text.empty()) {
    auto read = ReadText(name);
    if (!read) {
      return Mistake(fmt::format("--coefficients: {}; give a file, or one of {}",
                                 read.error().message, names));
    }
    text = std::move(*read);
  }
  auto profile = ParseProfile(text);
  if (!profile) {
    return Mistake(fmt::format("--coefficients {}: {}", name, profile.error().message));
  }
  return profile;
}

// Calls `call` with each number below `count`, from so many threads.
void ForEach(int threads, size_t count, const std::function<void(size_t)>& call) {
  std::atomic<size_t> next{0};
  const auto work = [&] {
    for (size_t i = next++; i < count; i = next++) call(i);
  };
  std::vector<std::jthread> others;
  for (int i = 1; i < threads; ++i) others.emplace_back(work);
  work();
}

bool IsPolicy(const std::string& name) {
  const auto& kinds = PolicyKinds();
  return name == kClairvoyant || std::any_of(kinds.begin(), kinds.end(),
                                             [&](const auto& kind) { return name == kind.name; });
}

Result<CompareOptions> ReadPolicies(const Options& options) {
  CompareOptions out;
  for (const std::string& name : options.policies) {
    std::vector<std::string> named = {name};
    if (name == "all") {
      named.clear();
      for (const PolicyKind& kind : PolicyKinds()) named.emplace_back(kind.name);
      named.emplace_back(kClairvoyant);
    } else if (!IsPolicy(name)) {
      return Mistake(
          fmt::format("--policy: '{}' must be all, quern, knative, hpa-tokens, "
                      "hpa-queue, keda, mean-active, fixed or clairvoyant",
                      name));
    }
    for (const std::string& policy : named) {
      if (std::find(out.policies.begin(), out.policies.end(), policy) == out.policies.end()) {
        out.policies.push_back(policy);
      }
    }
  }
  for (const std::string& target : options.targets) {
    const size_t sign = target.find('=');
    const std::string name = target.substr(0, sign);
    double value = 0;
    const char* end = target.data() + target.size();
    const bool is_number = sign != std::string::npos &&
                           std::from_chars(target.data() + sign + 1, end, value).ptr == end &&
                           value >= 1e-6 && value <= 1e12;
    if (!is_number || !IsPolicy(name) || name == kClairvoyant) {
      return Mistake(fmt::format(
          "--target: '{}' must be a policy and a number, 1e-6 to 1e12, as in knative=8", target));
    }
    out.targets.emplace_back(name, value);
  }
  out.traces = !options.plot.empty();
  const auto cores = static_cast<int>(std::thread::hardware_concurrency());
  const int threads = options.threads > 0 ? options.threads : std::clamp(cores, 1, 64);
  out.for_each = [threads](size_t count, const std::function<void(size_t)>& call) {
    ForEach(threads, count, call);
  };
  return out;
}

// Says on a terminal how far it is, once it has taken 2 s.
class ProgressLine {
 public:
  ProgressLine(const std::string& name, const CompareProgress& progress) {
    if (isatty(STDERR_FILENO) == 0) return;
    thread_ = std::jthread([this, name, &progress](std::stop_token stop) {
      std::unique_lock lock(mutex_);
      std::chrono::milliseconds pause{2000};
      while (!wake_.wait_for(lock, stop, pause, [&] { return stop.stop_requested(); })) {
        const auto total = static_cast<double>(std::max<int64_t>(progress.total, 1));
        std::fprintf(stderr, "\r%s: %.0f %% ", name.c_str(),
                     100 * static_cast<double>(progress.done) / total);
        pause = std::chrono::milliseconds{200};
        shown_ = true;
      }
      if (shown_) std::fprintf(stderr, "\r\033[K");
    });
  }

 private:
  std::mutex mutex_;
  std::condition_variable_any wake_;
  bool shown_ = false;
  std::jthread thread_;
};

Status WritePlot(const std::string& path, const std::string& svg) {
  std::ofstream file(path, std::ios::binary);
  file << svg;
  file.close();
  if (file) return {};
  return MakeError(ErrorCode::kUnavailable, "--plot: {} cannot be written", path);
}

// The plot's file of one trace of several.
std::string PlotPath(const std::string& plot, const std::filesystem::path& trace, bool one) {
  if (one) return plot;
  const std::filesystem::path path(plot);
  return (path.parent_path() / (path.stem().string() + "-" + trace.stem().string() + ".svg"))
      .string();
}

Status RunCommand(Options& options) {
  QUERN_ASSIGN(const CompareOptions compare, ReadPolicies(options));
  Scenario& scenario = options.scenario;
  QUERN_ASSIGN(scenario.profile, FindProfile(options.coefficients));
  if (options.price >= 0) scenario.profile.dollars_per_hour = options.price;
  if (scenario.limits.max_replicas < scenario.limits.min_replicas) {
    return Mistake(fmt::format("--max-replicas: {} is less than --min-replicas {}",
                               scenario.limits.max_replicas, scenario.limits.min_replicas));
  }
  if (options.panic_window > options.stable_window) {
    return Mistake(fmt::format("--panic-window: {:g} s is longer than --stable-window {:g} s",
                               options.panic_window, options.stable_window));
  }
  const auto millis = [](double seconds) { return static_cast<control::Millis>(seconds * 1000); };
  scenario.spec.stable_window = millis(options.stable_window);
  scenario.spec.panic_window = millis(options.panic_window);
  scenario.spec.scale_down_delay = millis(options.scale_down_delay);
  scenario.objective = {options.ttft_ms / 1000, options.itl_ms / 1000};
  options.load.seed = scenario.seed;
  QUERN_ASSIGN(const auto traces, FindTraces(options.trace));
  // All are read first: a mistake in the last is told before the first has taken its time.
  std::vector<Load> loads;
  for (const auto& path : traces) {
    QUERN_ASSIGN(const std::string text, ReadText(path));
    auto load = LoadFromText(text, options.load);
    if (!load) return Mistake(fmt::format("{}: {}", path.string(), load.error().message));
    loads.push_back(std::move(*load));
  }
  json policies = json::array();
  for (size_t i = 0; i < traces.size(); ++i) {
    const std::string name = traces[i].filename().string();
    scenario.load = std::move(loads[i]);
    CompareProgress progress;
    Comparison comparison;
    {
      const ProgressLine line(name, progress);
      comparison = Compare(scenario, compare, &progress);
    }
    if (!options.plot.empty()) {
      QUERN_TRY(WritePlot(PlotPath(options.plot, traces[i], traces.size() == 1),
                          PlotSvg(name, scenario, comparison)));
    }
    if (options.as_json) {
      for (json& entry : EntriesJson(name, scenario, comparison)) {
        policies.push_back(std::move(entry));
      }
    } else {
      std::fputs((Table(name, scenario, comparison) + "\n").c_str(), stdout);
    }
  }
  if (options.as_json) std::fputs((json{{"policies", policies}}.dump(2) + "\n").c_str(), stdout);
  return {};
}

void AddOptions(CLI::App& app, Options& options) {
  const auto add = [&app](const char* name, auto& value, const char* help) {
    return app.add_option(name, value, help)->capture_default_str();
  };
  add("--trace", options.trace, "trace file, or a folder of them")->required();
  add("--policy", options.policies, "policies to compare, with commas between, or all")
      ->delimiter(',')
      ->allow_extra_args(false);
  add("--target", options.targets, "NAME=X: a policy's target, which is then not searched for")
      ->delimiter(',')
      ->allow_extra_args(false);
  app.add_flag("--json", options.as_json, "JSON on stdout instead of a table");
  app.add_option("--plot", options.plot, "SVG to write: demand, supply, replicas and misses");
  add("--coefficients", options.coefficients,
      "what a replica is: a JSON file, or h100-8b, h100-70b or cpu-smollm2-135m");
  add("--start-up", options.scenario.start_up, "seconds until a new replica is ready")
      ->check(CLI::Range(0.0, 86400.0));
  add("--min-replicas", options.scenario.limits.min_replicas, "replicas at least")
      ->check(CLI::Range(1, 10000));
  add("--max-replicas", options.scenario.limits.max_replicas, "replicas at most")
      ->check(CLI::Range(1, 10000));
  add("--ttft", options.ttft_ms, "objective: milliseconds to a request's first token")
      ->check(CLI::Range(1e-3, 1e9));
  add("--itl", options.itl_ms, "objective: milliseconds between its tokens, in the mean")
      ->check(CLI::Range(1e-3, 1e9));
  add("--stable-window", options.stable_window, "quern's spec.scaling.stableWindow, in seconds")
      ->check(CLI::Range(1.0, 86400.0));
  add("--panic-window", options.panic_window, "quern's panicWindow, in seconds")
      ->check(CLI::Range(1.0, 86400.0));
  add("--scale-down-delay", options.scale_down_delay, "quern's scaleDownDelay, in seconds")
      ->check(CLI::Range(0.0, 86400.0));
  add("--target-utilization", options.scenario.spec.target_utilization, "quern's targetUtilization")
      ->check(CLI::Range(0.1, 1.0));
  add("--speed", options.load.speed, "the trace's times are divided by it")
      ->check(CLI::Range(1e-6, 1e6));
  add("--repeat", options.load.repeat, "the trace so many times one after the other")
      ->check(CLI::Range(1, 1'000'000));
  add("--copies", options.load.copies, "so many requests for each of the trace's")
      ->check(CLI::Range(1, 1'000'000));
  add("--seed", options.scenario.seed, "of the policies' first ticks and of the copies' times")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--price", options.price, "dollars for an hour of a replica [the coefficients']")
      ->check(CLI::Range(0.0, 1e9));
  app.add_option("--threads", options.threads, "for the sweep [one for each core]")
      ->check(CLI::Range(1, 256));
}

}  // namespace

int SimulateCommand(int argc, const char* const* argv) {
  Options options;
  options.scenario.limits.max_replicas = 32;
  CLI::App app(kSimulateDescription, "quern-operator simulate");
  app.footer(kSimulateFooter);
  app.get_formatter()->column_width(34);
  AddOptions(app, options);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);
    std::fprintf(stderr,
                 "quern-operator simulate: %s\n(quern-operator simulate --help tells more)\n",
                 error.what());
    return 2;
  }
  const Status status = RunCommand(options);
  if (status) return 0;
  std::fprintf(stderr, "quern-operator simulate: %s\n", status.error().message.c_str());
  return status.error().code == ErrorCode::kInvalidArgument ? 2 : 1;
}

}  // namespace quern::simulation
