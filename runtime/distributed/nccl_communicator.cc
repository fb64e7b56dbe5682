#include <atomic>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>

#include "runtime/distributed/agree_in_rounds.h"
#include "runtime/distributed/communicator.h"
#include "runtime/distributed/device_communicator.h"
#include "runtime/distributed/nccl_library.h"

namespace quern {
namespace {

using std::chrono::steady_clock;

// Between two looks at work on the GPU: a step takes milliseconds.
constexpr std::chrono::microseconds kGlance{20};
// Looks without a pause for a call that has begun: a thread of NCCL's launches a kernel meanwhile.
constexpr int kEagerGlances = 10'000;
// What has been given up leaves the GPU within so long, with the rest of a step that comes after
// it.
constexpr std::chrono::seconds kLeaving{1};
// ncclCommAbort's, in which threads of NCCL's end.
constexpr std::chrono::seconds kAborting{2};
// Between two questions for NCCL's errors, each of which takes a lock there.
constexpr int kGlancesPerQuestion = 50;

nccl::DataType NcclType(DeviceNumber type) {
  switch (type) {
    case DeviceNumber::kF16:
      return nccl::kFloat16;
    case DeviceNumber::kBF16:
      return nccl::kBfloat16;
    case DeviceNumber::kF32:
      break;
  }
  return nccl::kFloat32;
}

// ncclCommAbort on a thread of its own: its first act has kernels leave the GPU, but it does not
// return while a recorded CUDA graph has calls of the communicator's, and whoever waits for such a
// kernel may be the one who has the graphs.
class Aborting {
 public:
  void Begin(const NcclLibrary& nccl, nccl::Communicator communicator) {
    try {
      std::thread([nccl, communicator, ended = ended_] {
        nccl.comm_abort(communicator);  // frees it, too
        const std::lock_guard lock(ended->mutex);
        ended->is = true;
        ended->changed.notify_all();
      }).detach();
    } catch (const std::system_error&) {
      // No more threads: the communicator stays, and its kernels until the process ends.
    }
  }
  // Until it has returned, but no longer than its time; it goes on alone then.
  void Await() {
    std::unique_lock lock(ended_->mutex);
    ended_->changed.wait_for(lock, kAborting, [this] { return ended_->is; });
  }

 private:
  struct Ended {
    std::mutex mutex;
    std::condition_variable changed;
    bool is = false;
  };
  std::shared_ptr<Ended> ended_ = std::make_shared<Ended>();
};

// A communicator of NCCL's that does not block ("Group calls with non-blocking communicators" and
// "Fault tolerance" in NVIDIA's documentation): a call may return before its work is on the stream,
// and is asked for until it is.
class NcclCommunicator : public DeviceCommunicator {
 public:
  NcclCommunicator(const NcclLibrary& library, nccl::Communicator communicator, int rank, int size,
                   std::chrono::milliseconds timeout)
      : nccl_(library), communicator_(communicator), rank_(rank), size_(size), timeout_(timeout) {}
  // Nothing is left to be done, and destroying it instead would wait for the other ranks.
  ~NcclCommunicator() override {
    if (communicator_ != nullptr) aborting_.Begin(nccl_, communicator_);
    aborting_.Await();
  }

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  bool recordable() const override { return true; }

  Status AllReduceSum(void* values, int64_t count, DeviceNumber type,
                      CUstream_st* stream) override {
    if (broken_) return *broken_;
    return Put("an all-reduce",
               nccl_.all_reduce(values, values, static_cast<size_t>(count), NcclType(type),
                                nccl::kSum, communicator_, stream));
  }

  Status AllGather(const void* mine, void* all, int64_t count, DeviceNumber type,
                   CUstream_st* stream) override {
    if (broken_) return *broken_;
    return Put("an all-gather", nccl_.all_gather(mine, all, static_cast<size_t>(count),
                                                 NcclType(type), communicator_, stream));
  }

  // A kernel of NCCL's waits on the GPU for the other ranks and would for ever.
  Status Await(const std::function<bool()>& done) override {
    if (!broken_) {
      const Status waited = WaitFor(done);
      if (waited.ok()) return waited;
    }
    const auto left = steady_clock::now() + kLeaving;
    while (!done() && steady_clock::now() < left) std::this_thread::sleep_for(kGlance);
    return *broken_;
  }

  void Abort() override { abort_ = true; }

 private:
  // Or an error, with which the communicator has been given up.
  Status WaitFor(const std::function<bool()>& done) {
    const auto deadline = steady_clock::now() + timeout_;
    for (int glance = 1; !done(); ++glance) {
      QUERN_TRY(StillHopeful(deadline));
      if (glance % kGlancesPerQuestion == 0) {
        nccl::Outcome error = nccl::kSuccess;
        QUERN_TRY(Check("asking for errors", nccl_.comm_get_async_error(communicator_, &error)));
        if (error != nccl::kInProgress) QUERN_TRY(Check("work between GPUs", error));
      }
      std::this_thread::sleep_for(kGlance);
    }
    return {};
  }

  // Of a call, until its work is on the stream: what is put there next must come after it. The
  // first call may connect the GPUs, and wait for the other ranks' first calls.
  Status Put(const char* what, nccl::Outcome outcome) {
    const auto deadline = steady_clock::now() + timeout_;
    for (int glance = 1; outcome == nccl::kInProgress; ++glance) {
      QUERN_TRY(StillHopeful(deadline));
      if (glance > kEagerGlances) std::this_thread::sleep_for(kGlance);
      QUERN_TRY(Check("asking for errors", nccl_.comm_get_async_error(communicator_, &outcome)));
    }
    return Check(what, outcome);
  }

  Status StillHopeful(steady_clock::time_point deadline) {
    if (abort_) return GiveUp("a rank has ended");
    if (steady_clock::now() <= deadline) return {};
    return GiveUp(fmt::format("another rank was not there within {} ms", timeout_.count()));
  }

  Status Check(const char* what, nccl::Outcome outcome) {
    if (outcome == nccl::kSuccess) return {};
    return GiveUp(fmt::format("{} failed: {}", what, nccl_.Describe(outcome, communicator_)));
  }

  Status GiveUp(std::string_view why) {
    broken_ = MakeError(ErrorCode::kUnavailable, "rank {} of {}, NCCL: {}", rank_, size_, why);
    aborting_.Begin(nccl_, std::exchange(communicator_, nullptr));
    return *broken_;
  }

  const NcclLibrary nccl_;
  nccl::Communicator communicator_;  // null once it was given up
  const int rank_;
  const int size_;
  const std::chrono::milliseconds timeout_;
  std::atomic<bool> abort_{false};
  std::optional<Error> broken_;
  Aborting aborting_;
};

// The connection of a rank's GPU to the others' while it is made; given up unless it is taken.
class Connecting {
 public:
  Connecting(const NcclLibrary& nccl, Communicator& group, const nccl::UniqueId& id) : nccl_(nccl) {
    nccl::Config config;
    outcome_ = nccl_.comm_init_rank_config(&communicator_, group.size(), id, group.rank(), &config);
  }
  ~Connecting() {
    if (communicator_ != nullptr) nccl_.comm_abort(communicator_);
  }
  Connecting(const Connecting&) = delete;
  Connecting& operator=(const Connecting&) = delete;

  // kInProgress while it is made and `until` has not come.
  nccl::Outcome WaitUntil(steady_clock::time_point until) {
    while (outcome_ == nccl::kInProgress && steady_clock::now() < until) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      const nccl::Outcome asked = nccl_.comm_get_async_error(communicator_, &outcome_);
      if (asked != nccl::kSuccess) outcome_ = asked;
    }
    return outcome_;
  }
  nccl::Communicator communicator() const { return communicator_; }
  nccl::Communicator Take() { return std::exchange(communicator_, nullptr); }

 private:
  const NcclLibrary& nccl_;
  nccl::Communicator communicator_ = nullptr;
  nccl::Outcome outcome_ = nccl::kSuccess;
};

Status Explained(const NcclLibrary& nccl, const char* what, nccl::Outcome outcome,
                 nccl::Communicator communicator) {
  if (outcome == nccl::kSuccess) return {};
  return MakeError(ErrorCode::kUnavailable,
                   "NCCL cannot {}: {}; it needs an NVIDIA driver and a GPU for each rank", what,
                   nccl.Describe(outcome, communicator));
}

// In rounds, so that a rank that fails is not waited for.
Status Connect(const NcclLibrary& nccl, Communicator& group, const NcclOptions& options,
               Connecting& connecting) {
  const Error late =
      MakeError(ErrorCode::kUnavailable,
                "NCCL cannot connect the ranks' GPUs: one was not there within {} ms",
                options.connect_timeout.count());
  return AgreeInRounds(group, options.connect_timeout, late,
                       [&](steady_clock::time_point until) -> std::optional<Status> {
                         const auto outcome = connecting.WaitUntil(until);
                         if (outcome == nccl::kInProgress) return std::nullopt;
                         return Explained(nccl, "connect the ranks' GPUs", outcome,
                                          connecting.communicator());
                       });
}

}  // namespace

Result<std::unique_ptr<DeviceCommunicator>> MakeNcclCommunicator(Communicator& group,
                                                                 const NcclOptions& options) {
  const auto library = NcclLibrary::Open(options.library);
  // Before NCCL waits for those that will not come.
  QUERN_TRY(Agree(group, library ? Status() : library.error()));
  nccl::UniqueId id{};
  Status begun;
  if (group.rank() == 0) begun = Explained(*library, "begin", library->get_unique_id(&id), nullptr);
  QUERN_TRY(Agree(group, begun));
  QUERN_TRY(group.Broadcast(std::as_writable_bytes(std::span(&id, 1)), 0));
  Connecting connecting(*library, group, id);
  QUERN_TRY(Connect(*library, group, options, connecting));
  return std::unique_ptr<DeviceCommunicator>(std::make_unique<NcclCommunicator>(
      *library, connecting.Take(), group.rank(), group.size(), options.timeout));
}

}  // namespace quern
