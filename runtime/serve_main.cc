// quern-serve: opens its ports at once, loads the model behind them, serves until SIGTERM, drains.
#include <algorithm>
#include <condition_variable>
#include <cstdlib>
#include <ctime>
#include <exception>
#include <filesystem>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <string_view>
#include <thread>

#include "runtime/base/cgroup.h"
#include "runtime/base/log.h"
#include "runtime/engine/engine.h"
#include "runtime/formats/file_signature.h"
#include "runtime/formats/gguf.h"
#include "runtime/http/server.h"
#include "runtime/serve_bench.h"
#include "runtime/serve_options.h"
#include "runtime/serve_ranks.h"
#include "runtime/server/api.h"
#include "runtime/server/observers.h"
#include "runtime/server/sleep_switch.h"
#include "runtime/server/units.h"
#include "runtime/stop_signals.h"

namespace quern {
namespace {

using Milliseconds = std::chrono::milliseconds;
using server::LoadedModel;
using server::ServingState;

// How often the file of tenants is looked at: a key that is taken away works no longer than that.
constexpr Milliseconds kTenantsFileInterval(1000);

// How long requests have to end with an error, once a rank is lost: each does in its next step.
constexpr Milliseconds kLossTimeout(2000);
// How long the other ranks have to let the model go and end, once requests are done.
constexpr Milliseconds kEndPatience(10'000);

// Why main is to go on: a signal came, loading failed, or a rank was lost. Thread-safe.
class Wakeup {
 public:
  void Signalled() {
    Set([this] { signalled_ = true; });
  }
  void Failed(Error error) {
    Set([&] { error_ = std::move(error); });
  }
  void Lost(const char* what, const Error& error) {
    spdlog::error("{}: {}", what, error.message);
    Set([this] { lost_ = true; });
  }
  enum class Cause { kSignal, kLoadingFailed, kLost };
  // Waits. The error of loading is in `error` then.
  Cause Wait(std::optional<Error>& error) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return signalled_ || error_ || lost_; });
    error = error_;
    if (lost_) return Cause::kLost;
    return signalled_ ? Cause::kSignal : Cause::kLoadingFailed;
  }

 private:
  template <typename F>
  void Set(F&& change) {
    std::lock_guard lock(mutex_);
    change();
    changed_.notify_all();
  }
  std::mutex mutex_;
  std::condition_variable changed_;
  bool signalled_ = false;
  bool lost_ = false;
  std::optional<Error> error_;
};

double SecondsSince(SteadyTime start) { return Seconds(RealClock().Now() - start).count(); }

// The model's own, or the one that was asked for.
Result<std::unique_ptr<ChatTemplate>> MakeChatTemplate(const ServeOptions& options,
                                                       const GgufFile& file) {
  QUERN_ASSIGN(ChatTemplateSource source, ChatTemplateSourceOf(file));
  if (!options.chat_template.empty()) {
    QUERN_ASSIGN(source, ReadChatTemplateFile(options.chat_template, source));
  }
  return ChatTemplate::Make(source, options.chat_template_name);
}

// Without one of its own a model can still complete texts.
Status LoadChatTemplate(const ServeOptions& options, const GgufFile& file, LoadedModel& loaded) {
  auto chat = MakeChatTemplate(options, file);
  if (chat) {
    loaded.chat_template = std::move(chat).value();
    if (const Error* left_out = loaded.chat_template->LeftOut()) {
      spdlog::warn("{}; requests with tools get the template 'default' instead", left_out->message);
    }
    return {};
  }
  if (!options.chat_template.empty() || !options.chat_template_name.empty()) {
    return std::move(chat).error();
  }
  // Clients are told the reason, but not where the file is. What it says of a template may have
  // names from the file.
  std::string_view reason = chat.error().message;
  const std::string where = file.path() + ": ";
  if (reason.starts_with(where)) reason.remove_prefix(where.size());
  loaded.no_chat_reason = Printable(reason, reason.size());
  spdlog::warn("no chat: {}{}; /v1/completions works, and --chat-template takes another template",
               where, loaded.no_chat_reason);
  return {};
}

// File -> a model that answers. Says in `state` and in the log what it is doing.
Result<std::unique_ptr<LoadedModel>> Load(const ServeOptions& options, Ranks* ranks,
                                          ServingState& state, EngineObserver& observer,
                                          RuntimeMetrics& metrics) {
  const SteadyTime start = RealClock().Now();
  auto loaded = std::make_unique<LoadedModel>();
  loaded->served_name = options.served_name;
  loaded->created = std::time(nullptr);

  state.SetLoading("reading the model file");
  spdlog::info("loading {}", options.model);
  QUERN_ASSIGN(auto file, GgufFile::Open(options.model));
  QUERN_TRY(RequireWholeModel(*file));
  state.SetLoading("tokenizer");
  QUERN_ASSIGN(loaded->tokenizer, Tokenizer::FromGguf(*file));
  size_t longest = 4;  // a character without a token of its own becomes one, too
  for (TokenId id = 0; id < loaded->tokenizer->vocab_size(); ++id) {
    longest = std::max(longest, loaded->tokenizer->TokenBytes(id, /*render_special=*/true).size());
  }
  loaded->longest_token_bytes = static_cast<int64_t>(longest);
  loaded->token_sizes = server::TokenSizesOf(*loaded->tokenizer);
  QUERN_TRY(LoadChatTemplate(options, *file, *loaded));
  spdlog::info("tokenizer ready: {} tokens ({:.1f} s)", loaded->tokenizer->vocab_size(),
               SecondsSince(start));

  state.SetLoading("weights");
  file.reset();
  QUERN_ASSIGN(auto model, LoadServed(options, ranks));
  loaded->info = model->info();
  const ModelInfo& info = loaded->info;
  if (const auto gpu = model->gpu()) metrics.SetGpuInfo(gpu->name, gpu->uuid);
  spdlog::info("weights ready: {} {}, {:.0f} M parameters, {}; {} ({:.1f} s)", info.architecture,
               info.quantization, info.parameters / 1e6, server::ShowBytes(info.weight_bytes),
               info.compute, SecondsSince(start));

  state.SetLoading("KV cache");
  QUERN_ASSIGN(loaded->engine, EngineCore::Start(std::move(model), *loaded->tokenizer,
                                                 EngineOptionsOf(options), &observer));
  metrics.SetModelInfo(info.architecture, info.quantization, QUERN_VERSION);
  const EngineStats stats = loaded->engine->Stats();
  loaded->info.kv_dtype = stats.kv_dtype;  // that the engine may have chosen
  metrics.SetComputeInfo(CpuModel(), info.compute);
  metrics.SetTensorParallelSize(info.ranks);
  metrics.SetKvCacheInfo({.dtype = KvDtypeName(stats.kv_dtype),
                          .block_tokens = stats.kv_block_tokens,
                          .blocks = stats.kv_blocks_total,
                          .prefix_cache = options.prefix_cache});
  spdlog::info("ready: '{}', context {} tokens, KV cache {} tokens ({:.1f} s)", options.served_name,
               loaded->engine->max_context_tokens(), stats.kv_blocks_total * stats.kv_block_tokens,
               SecondsSince(start));
  return loaded;
}

// What may be held for all clients together, of each kind: bodies that arrive, bodies that are
// being encoded, answers that wait. A part of the memory, so that all of it stays within what the
// KV cache leaves (memory_plan.cc).
size_t HeldBytes() {
  constexpr int64_t kMebibyte = 1 << 20;
  return static_cast<size_t>(std::clamp(MemoryLimitBytes() / 32, 8 * kMebibyte, 64 * kMebibyte));
}

// Both ports, listening. Returns "host:port" of the API for the log.
Result<std::string> OpenPorts(const ServeOptions& options, http::HttpObserver& observer,
                              server::Api& api, server::SleepSwitch& sleep,
                              http::HttpServer& http) {
  http::ListenOptions listen;
  listen.host = options.host;
  listen.port = options.port;
  listen.observer = &observer;
  listen.limits.max_connections = options.max_connections;
  listen.limits.max_body_bytes = static_cast<size_t>(options.max_body_bytes);
  listen.limits.max_held_body_bytes = listen.limits.max_held_response_bytes = HeldBytes();
  listen.limits.header_timeout = options.header_timeout;
  listen.limits.body_timeout = options.body_timeout;
  listen.limits.write_timeout = options.write_timeout;
  QUERN_ASSIGN(const uint16_t port, http.Listen(listen, api.PublicRouter()));
  http::ListenOptions admin = http::AdminListenOptions(options.admin_host, options.admin_port);
  admin.observer = &observer;
  http::Router admin_router = api.AdminRouter();
  if (options.sleep_mode) sleep.AddRoutes(admin_router);
  QUERN_ASSIGN(const uint16_t admin_port, http.Listen(admin, std::move(admin_router)));
  spdlog::info("listening: API http://{}:{}/v1, metrics http://{}:{}/metrics", options.host, port,
               options.admin_host, admin_port);
  return fmt::format("{}:{}", options.host, port);
}

// After the signal: not ready at once, what runs finishes, everything is flushed. True if all did.
bool DrainAll(const ServeOptions& options, ServingState& state, const server::Api& api,
              http::HttpServer& http) {
  const SteadyTime start = RealClock().Now();
  const SteadyTime deadline = start + options.drain_timeout;
  state.SetDraining();
  http.BeginDrain();
  bool finished = true;
  if (const LoadedModel* model = state.Get().model) {
    const EngineStats stats = model->engine->Stats();
    spdlog::info("draining: {} running, {} waiting, at most {:.1f} s", stats.running, stats.waiting,
                 Seconds(options.drain_timeout).count());
    // What was taken but is still being encoded first goes to the engine.
    finished = api.WaitForPreparing(options.drain_timeout);
    const auto left = std::chrono::duration_cast<Milliseconds>(deadline - RealClock().Now());
    finished = model->engine->Drain(std::max(left, Milliseconds(0))) && finished;
  }
  // The last events may still be on their way to slow clients; they get a moment even when the
  // drain took all of its time.
  const auto left = std::chrono::duration_cast<Milliseconds>(deadline - RealClock().Now());
  const bool flushed = http.Stop(std::max(left, Milliseconds(500)));
  if (finished) {
    spdlog::info("drained in {:.1f} s", SecondsSince(start));
  } else {
    spdlog::warn("the drain timeout of {:.1f} s is over: what still ran was cancelled",
                 Seconds(options.drain_timeout).count());
  }
  if (!flushed) spdlog::info("some connections had to be closed from this side");
  return finished;
}

// After a rank was lost: what runs ends with an error, and is told so. A step that still does not
// end then would keep the process, too: it ends here.
void EndAfterLoss(ServingState& state, http::HttpServer& http, Ranks* ranks) {
  state.SetDraining();
  http.BeginDrain();
  bool finished = true;
  if (const LoadedModel* model = state.Get().model) finished = model->engine->Drain(kLossTimeout);
  http.Stop(Milliseconds(500));
  if (ranks != nullptr) ranks->Kill();  // whatever waits for them goes on
  if (!finished) std::_Exit(1);
}

int Serve(const ServeOptions& options, int argc, char** argv) {
  Wakeup wakeup;
  WatchStopSignals([&wakeup] { wakeup.Signalled(); });
  std::unique_ptr<Ranks> ranks;
  if (options.tensor_parallel_size > 1) {
    auto started = Ranks::Start(options, argc, argv, [&](const Error& error) {
      wakeup.Lost("the ranks can no longer work together", error);
    });
    if (!started) {
      spdlog::error("{}", started.error().message);
      return ExitCode(started.error());
    }
    ranks = std::move(started).value();
  }
  // Destroyed from the last to the first: the engine (in `state`) still posts to `http`'s loop
  // while it ends, so the loop goes after it; its threads have been joined by then.
  RuntimeMetrics metrics(options.served_name, options.metrics_compat);
  server::MetricsEngineObserver engine_observer(
      metrics, [&](const Error& error) { wakeup.Lost("nothing can be computed any more", error); });
  server::MetricsHttpObserver http_observer(metrics);
  http::HttpServer http(/*io_threads=*/1);
  ServingState state;
  server::ApiOptions api_options;
  api_options.stall_timeout = options.stall_timeout;
  api_options.max_preparing_bytes =
      std::max(HeldBytes(), static_cast<size_t>(options.max_body_bytes));
  std::unique_ptr<server::Access> access;
  if (!options.tenants.empty()) {
    auto opened = server::Access::Open(options.tenants, metrics, kTenantsFileInterval);
    if (!opened) {
      spdlog::error("cannot use --tenants: {}", opened.error().message);
      return ExitCode(opened.error());
    }
    access = std::move(opened).value();
  }
  server::Api api(state, metrics, api_options, access.get());

  server::SleepSwitch sleep(
      state,
      [&](EngineCore& engine) -> Status {
        QUERN_ASSIGN(auto model, LoadServed(options, ranks.get()));
        return engine.Wake(std::move(model));
      },
      options.drain_timeout);

  auto opened = OpenPorts(options, http_observer, api, sleep, http);
  if (!opened) {
    spdlog::error("{}", opened.error().message);
    return ExitCode(opened.error());
  }
  http.Start();
  std::thread loader([&] {
    try {
      auto loaded = Load(options, ranks.get(), state, engine_observer, metrics);
      if (!loaded) return wakeup.Failed(std::move(loaded).error());
      state.SetReady(std::move(loaded).value());
    } catch (const std::bad_alloc&) {
      wakeup.Failed(
          MakeError(ErrorCode::kResourceExhausted, "not enough memory to load the model"));
    } catch (const std::exception& error) {
      wakeup.Failed(MakeError(ErrorCode::kInternal, "{}", error.what()));
    }
  });

  std::optional<Error> error;
  const Wakeup::Cause cause = wakeup.Wait(error);
  if (cause == Wakeup::Cause::kLoadingFailed) {
    loader.join();
    http.Stop(Milliseconds(500));
    // Others' programs fetch a model by its name.
    const bool is_there = std::filesystem::exists(options.model);
    spdlog::error("cannot serve {}: {}{}", options.model, error->message,
                  is_there ? "" : "; models are not downloaded here");
    return ExitCode(*error);
  }
  const bool loading = state.Get().phase == ServingState::Phase::kLoading;
  if (cause == Wakeup::Cause::kLost) {
    EndAfterLoss(state, http, ranks.get());
  }
  if (loading) {
    // Nothing runs that could be lost, and loading cannot be stopped half-way.
    if (ranks) ranks->Kill();
    if (cause == Wakeup::Cause::kLost) std::_Exit(1);
    spdlog::info("stopped while loading");
    std::_Exit(0);
  }
  loader.join();
  if (cause == Wakeup::Cause::kLost) {
    if (sleep.busy()) std::_Exit(1);  // as above: a model that is being woken
    return 1;
  }
  const int code = DrainAll(options, state, api, http) ? 0 : 1;
  if (ranks) ranks->EndWithin(code == 0 ? kEndPatience : Milliseconds(0));
  // As above: no request waits for a model that is being woken.
  if (sleep.busy()) std::_Exit(code);
  return code;
}

}  // namespace
}  // namespace quern

int main(int argc, char** argv) {
  if (argc > 1 && std::string_view(argv[1]) == "bench") return quern::BenchMain(argc - 1, argv + 1);
  const bool follows = argc > quern::kFollowerArguments && argv[1] == quern::kFollower;
  const int skipped = follows ? quern::kFollowerArguments : 0;
  const auto parsed = quern::ParseCommandLine(argc - skipped, argv + skipped);
  if (parsed.exit_now) return parsed.exit_code;
  if (auto log = quern::InitLog("quern-serve", parsed.options.log_level, parsed.options.log_format);
      !log) {
    std::fprintf(stderr, "quern-serve: %s\n", log.error().message.c_str());
    return 2;
  }
  try {
    if (follows) return quern::FollowerMain(parsed.options, std::atoi(argv[2]), argv[3]);
    return quern::Serve(parsed.options, argc, argv);
  } catch (const std::exception& error) {
    spdlog::critical("unexpected: {}", error.what());
    return 1;
  }
}
