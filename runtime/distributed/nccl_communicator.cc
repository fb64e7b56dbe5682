#include <algorithm>
#include <array>
#include <atomic>
#include <optional>
#include <string_view>
#include <thread>

#include "runtime/distributed/communicator.h"
#include "runtime/distributed/device_communicator.h"
#include "runtime/distributed/nccl_library.h"

namespace quern {
namespace {

using std::chrono::steady_clock;

// Between two looks at work on the GPU: a step takes milliseconds.
constexpr std::chrono::microseconds kGlance{20};
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

class NcclCommunicator : public DeviceCommunicator {
 public:
  NcclCommunicator(const NcclLibrary& library, nccl::Communicator communicator, int rank, int size,
                   std::chrono::milliseconds timeout)
      : nccl_(library), communicator_(communicator), rank_(rank), size_(size), timeout_(timeout) {}
  ~NcclCommunicator() override {
    if (communicator_ != nullptr) nccl_.comm_destroy(communicator_);
  }

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  bool recordable() const override { return true; }

  Status AllReduceSum(void* values, int64_t count, DeviceNumber type,
                      CUstream_st* stream) override {
    if (broken_) return *broken_;
    return Check("an all-reduce",
                 nccl_.all_reduce(values, values, static_cast<size_t>(count), NcclType(type),
                                  nccl::kSum, communicator_, stream));
  }

  Status AllGather(const void* mine, void* all, int64_t count, DeviceNumber type,
                   CUstream_st* stream) override {
    if (broken_) return *broken_;
    return Check("an all-gather", nccl_.all_gather(mine, all, static_cast<size_t>(count),
                                                   NcclType(type), communicator_, stream));
  }

  // A kernel of NCCL's waits on the GPU for the other ranks and would for ever.
  Status Await(const std::function<bool()>& done) override {
    if (broken_) return *broken_;
    const auto deadline = steady_clock::now() + timeout_;
    for (int glance = 1; !done(); ++glance) {
      if (abort_) return GiveUp("a rank has ended");
      if (glance % kGlancesPerQuestion == 0) {
        nccl::Outcome error = nccl::kSuccess;
        const nccl::Outcome asked = nccl_.comm_get_async_error(communicator_, &error);
        QUERN_TRY(Check("asking for errors", asked));
        if (error != nccl::kInProgress) QUERN_TRY(Check("work between GPUs", error));
        if (steady_clock::now() > deadline) {
          return GiveUp(fmt::format("another rank was not there within {} ms", timeout_.count()));
        }
      }
      std::this_thread::sleep_for(kGlance);
    }
    return {};
  }

  void Abort() override { abort_ = true; }

 private:
  Status Check(const char* what, nccl::Outcome outcome) {
    if (outcome == nccl::kSuccess) return {};
    return GiveUp(fmt::format("{} failed: {}", what, nccl_.Describe(outcome, communicator_)));
  }

  Status GiveUp(std::string_view why) {
    broken_ = MakeError(ErrorCode::kUnavailable, "rank {} of {}, NCCL: {}", rank_, size_, why);
    nccl_.comm_abort(communicator_);  // frees it, too
    communicator_ = nullptr;
    return *broken_;
  }

  const NcclLibrary nccl_;
  nccl::Communicator communicator_;  // null once it was given up
  const int rank_;
  const int size_;
  const std::chrono::milliseconds timeout_;
  std::atomic<bool> abort_{false};
  std::optional<Error> broken_;
};

// Whether all ranks are `ok`. Else this one's error, or that of whoever had one is told.
Status AllAre(Communicator& group, const Status& mine) {
  std::array<float, 1> failed = {mine.ok() ? 0.0f : 1.0f};
  QUERN_TRY(group.AllReduceSum(failed));
  if (!mine.ok()) return mine;
  if (failed[0] == 0) return {};
  return MakeError(ErrorCode::kUnavailable,
                   "rank {} of {} can use NCCL, but {} of the others cannot: their logs say why",
                   group.rank(), group.size(), static_cast<int>(failed[0]));
}

}  // namespace

Result<std::unique_ptr<DeviceCommunicator>> MakeNcclCommunicator(Communicator& group,
                                                                 const NcclOptions& options) {
  const auto library = NcclLibrary::Open(options.library);
  // Before NCCL waits for those that will not come.
  QUERN_TRY(AllAre(group, library ? Status() : library.error()));
  const auto failed = [&](const char* what, nccl::Outcome outcome) -> Status {
    if (outcome == nccl::kSuccess) return {};
    return MakeError(ErrorCode::kUnavailable,
                     "rank {} of {}: NCCL cannot {}: {}; it needs an NVIDIA driver and a GPU for "
                     "each rank",
                     group.rank(), group.size(), what, library->Describe(outcome, nullptr));
  };
  nccl::UniqueId id{};
  Status made;
  if (group.rank() == 0) made = failed("begin", library->get_unique_id(&id));
  QUERN_TRY(AllAre(group, made));
  QUERN_TRY(group.Broadcast(std::as_writable_bytes(std::span(&id, 1)), 0));
  nccl::Communicator communicator = nullptr;
  made = failed("connect the ranks",
                library->comm_init_rank(&communicator, group.size(), id, group.rank()));
  const Status all = AllAre(group, made);
  if (!all.ok()) {
    if (made.ok()) library->comm_abort(communicator);
    return all.error();
  }
  return std::unique_ptr<DeviceCommunicator>(std::make_unique<NcclCommunicator>(
      *library, communicator, group.rank(), group.size(), options.timeout));
}

}  // namespace quern
