#include "runtime/serve_ranks.h"

#include <fcntl.h>
#include <signal.h>  // NOLINT(modernize-deprecated-headers): kill
#include <spdlog/spdlog.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <string>
#include <system_error>

#include "runtime/base/cgroup.h"
#include "runtime/devices.h"
#include "runtime/formats/gguf.h"
#include "runtime/model/parallel_model.h"

namespace quern {
namespace {

// Of each call and of meeting. Not how a rank that has ended is found, which is at once, but how
// long one may be behind the others: in reading its part of a large model, for one.
constexpr std::chrono::minutes kPatience{10};
// How long the others have to end when they are asked to.
constexpr std::chrono::seconds kGrace{5};
// When the connection says first that a rank was lost, how long the system has to say why.
constexpr std::chrono::milliseconds kExplanation{500};

GlooOptions GroupOptions(int rank, int size, const std::filesystem::path& rendezvous) {
  return {.rank = rank, .size = size, .rendezvous = rendezvous, .timeout = kPatience};
}

// A folder for this user alone. Where the root file system is read-only, as in the pods of an
// endpoint, there is still shared memory.
Result<std::filesystem::path> MakeRendezvous() {
  std::error_code error;
  for (const auto& base :
       {std::filesystem::temp_directory_path(error), std::filesystem::path("/dev/shm")}) {
    std::string name = (base / "quern-ranks-XXXXXX").string();
    if (!base.empty() && mkdtemp(name.data()) != nullptr) return std::filesystem::path(name);
  }
  return MakeError(ErrorCode::kUnavailable,
                   "neither the folder for temporary files nor /dev/shm can be written to, where "
                   "the processes of --tensor-parallel-size find each other: {}",
                   std::strerror(errno));
}

// The rest of a process's life between fork and exec: nothing that takes a lock.
[[noreturn]] void BecomeFollower(pid_t parent, char* const* arguments) {
  // Rank 0 ends them: by a signal of the kernel's if need be, not by one from the terminal.
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(1);
  signal(SIGINT, SIG_IGN);
  signal(SIGTERM, SIG_IGN);
  close_range(3, ~0U, 0);  // sockets among them, which would stay open
  execv("/proc/self/exe", arguments);
  _exit(127);
}

std::string HowItEnded(const siginfo_t& info) {
  if (info.si_code == CLD_EXITED) return fmt::format("ended with exit code {}", info.si_status);
  return fmt::format("was ended by signal {} ({})", info.si_status, strsignal(info.si_status));
}

// This rank's of them, as even as it goes.
int ThreadsOfRank(const ServeOptions& options, int rank) {
  const int all = options.threads > 0 ? options.threads : DefaultThreads();
  const int size = options.tensor_parallel_size;
  return std::max(1, all / size + (rank < all % size ? 1 : 0));
}

}  // namespace

// Before anything that a rank may fail in by itself: the others are waited for.
Status RankPart::Choose() {
  QUERN_ASSIGN(RankDevice device,
               ChooseRankDevice(options_.device, group_, {.timeout = kPatience}));
  const std::lock_guard lock(mutex_);
  device_ = std::move(device);
  if (aborted_ && device_.gpus != nullptr) device_.gpus->Abort();
  chosen_ = true;
  return {};
}

Result<std::unique_ptr<Model>> RankPart::Load() {
  if (!chosen_) QUERN_TRY(Choose());
  QUERN_ASSIGN(auto file, GgufFile::Open(options_.model));
  ModelOptions model = ModelOptionsOf(options_);
  model.threads = ThreadsOfRank(options_, group_.rank());
  model.group = &group_;
  return LoadModelOn(device_.device, std::move(file), model, device_.gpus.get());
}

void RankPart::Abort() {
  const std::lock_guard lock(mutex_);
  aborted_ = true;
  if (device_.gpus != nullptr) device_.gpus->Abort();
}

Result<std::unique_ptr<Ranks>> Ranks::Start(const ServeOptions& options, int argc, char** argv,
                                            std::function<void(const Error&)> on_lost) {
  // NCCL's own connections are between the processes of this machine, too. The others inherit it.
  setenv("NCCL_SOCKET_IFNAME", "=lo", /*overwrite=*/0);
  // All of NCCL's connections are made in its beginning, not in the first call that needs one of
  // them: their memory is taken before the KV cache's is planned.
  setenv("NCCL_RUNTIME_CONNECT", "0", /*overwrite=*/0);
  std::unique_ptr<Ranks> ranks(new Ranks(options, std::move(on_lost)));
  QUERN_ASSIGN(ranks->rendezvous_, MakeRendezvous());
  ranks->others_.reserve(static_cast<size_t>(options.tensor_parallel_size) - 1);
  const pid_t self = getpid();
  for (int rank = 1; rank < options.tensor_parallel_size; ++rank) {
    std::string option(kFollower), number = std::to_string(rank);
    std::string folder = ranks->rendezvous_.string();
    std::vector<char*> arguments = {argv[0], option.data(), number.data(), folder.data()};
    arguments.insert(arguments.end(), argv + 1, argv + argc);
    arguments.push_back(nullptr);
    const auto refused = [&](const char* why) {
      return MakeError(ErrorCode::kUnavailable,
                       "process {} of --tensor-parallel-size {} cannot be started: {}; raise the "
                       "limit of processes and threads (pids), or take fewer",
                       rank + 1, options.tensor_parallel_size, why);
    };
    const pid_t process = fork();
    if (process == 0) BecomeFollower(self, arguments.data());
    if (process < 0) return refused(std::strerror(errno));
    Other& other = ranks->others_.emplace_back();
    other.rank = rank;
    other.process = process;
    try {
      other.watch = std::thread([ranks = ranks.get(), &other] { ranks->Watch(other); });
    } catch (const std::system_error& error) {
      kill(process, SIGKILL);
      waitpid(process, nullptr, 0);
      ranks->others_.pop_back();
      return refused(error.what());
    }
    spdlog::info("rank {} of {} is process {}", rank, options.tensor_parallel_size, process);
  }
  return ranks;
}

// Leaves it unreaped, so that its number stays its own.
void Ranks::Watch(Other& other) {
  siginfo_t info{};
  while (waitid(P_PID, static_cast<id_t>(other.process), &info, WEXITED | WNOWAIT) < 0 &&
         errno == EINTR) {
  }
  bool expected = false;
  {
    const std::lock_guard lock(mutex_);
    other.ended = true;
    expected = ending_;
  }
  changed_.notify_all();
  if (expected) return;
  Lose(MakeError(ErrorCode::kUnavailable, "rank {} of {} (process {}) {}", other.rank, size_,
                 other.process, HowItEnded(info)));
}

void Ranks::Lose(const Error& error) {
  {
    const std::lock_guard lock(mutex_);
    lost_ = true;
    if (part_ != nullptr) part_->Abort();
  }
  on_lost_(error);
}

void Ranks::Kill() {
  const std::lock_guard lock(mutex_);
  ending_ = true;
  // What waits for them on a GPU would not hear of it.
  if (part_ != nullptr) part_->Abort();
  for (const Other& other : others_) {
    if (!other.ended) kill(other.process, SIGKILL);
  }
  std::error_code error;
  std::filesystem::remove_all(rendezvous_, error);
}

void Ranks::EndWithin(std::chrono::milliseconds patience) {
  if (end_.joinable()) return;
  end_ = std::thread([this, patience] {
    {
      std::unique_lock lock(mutex_);
      ending_ = true;
      changed_.wait_for(lock, patience,
                        [this] { return std::ranges::all_of(others_, &Other::ended); });
    }
    Kill();
  });
}

Ranks::~Ranks() {
  bool lost = false;
  {
    std::unique_lock lock(mutex_);
    if (lost_) {
      changed_.wait_for(lock, kExplanation,
                        [this] { return std::ranges::any_of(others_, &Other::ended); });
    }
    lost = lost_;
  }
  if (lost || group_ == nullptr) {
    Kill();
  } else {
    EndWithin(kGrace);
    static_cast<void>(EndFollowers(*group_));  // those that do not hear it are killed
  }
  if (end_.joinable()) end_.join();
  for (Other& other : others_) {
    other.watch.join();
    waitpid(other.process, nullptr, 0);
  }
}

Result<std::unique_ptr<Model>> Ranks::Load(const ServeOptions& options) {
  if (group_ == nullptr) {
    QUERN_ASSIGN(group_, MakeGlooCommunicator(GroupOptions(0, size_, rendezvous_)));
    QUERN_TRY(group_->Barrier());
    std::error_code error;
    std::filesystem::remove_all(rendezvous_, error);
    spdlog::info("tensor parallel: {} processes have met", size_);
    const std::lock_guard lock(mutex_);
    part_ = std::make_unique<RankPart>(options, *group_);
    if (lost_) part_->Abort();
  }
  return LoadParallelModel(
      *group_, [this] { return part_->Load(); }, [this](const Error& error) { Lose(error); });
}

Result<std::unique_ptr<Model>> LoadServed(const ServeOptions& options, Ranks* ranks) {
  if (ranks != nullptr) return ranks->Load(options);
  QUERN_ASSIGN(auto file, GgufFile::Open(options.model));
  return LoadModelOn(options.device, std::move(file), ModelOptionsOf(options));
}

int FollowerMain(const ServeOptions& options, int rank, const std::filesystem::path& rendezvous) {
  const auto group =
      MakeGlooCommunicator(GroupOptions(rank, options.tensor_parallel_size, rendezvous));
  const auto status = [&]() -> Status {
    if (!group) return group.error();
    QUERN_TRY((*group)->Barrier());
    RankPart part(options, **group);
    return FollowParallelModel(**group, [&part] { return part.Load(); });
  }();
  if (status) return 0;
  spdlog::error("rank {}: {}", rank, status.error().message);
  return ExitCode(status.error());
}

}  // namespace quern
