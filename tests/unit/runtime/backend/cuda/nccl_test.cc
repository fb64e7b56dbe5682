// NcclCommunicator, over the emulated NCCL (docs/simt.md) between the emulated devices of
// processes.
#include <cuda_runtime.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <random>
#include <thread>

#include "quern/kernels/numeric_types.h"
#include "runtime/backend/cuda/device_memory.h"
#include "runtime/backend/cuda/make_cuda_backend.h"
#include "runtime/distributed/device_communicator.h"
#include "tests/unit/runtime/distributed/gloo_ranks.h"

namespace quern::testing {
namespace {

using std::chrono::milliseconds;
using ::testing::AllOf;
using ::testing::Each;
using ::testing::HasSubstr;

// Far more than a test may take: what ends sooner has not waited for it.
constexpr std::chrono::hours kForEver{1};

size_t SizeOf(DeviceNumber type) { return type == DeviceNumber::kF32 ? 4 : 2; }

// Random numbers of the type, as its bytes; seeds of one rank each.
std::vector<std::byte> Numbers(DeviceNumber type, size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, 1);
  std::vector<std::byte> bytes(count * SizeOf(type));
  for (size_t i = 0; i < count; ++i) {
    const float value = normal(random);
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    if (type == DeviceNumber::kBF16) bits >>= 16;
    if (type == DeviceNumber::kF16) bits = kernels::FloatToHalf(value);
    std::memcpy(bytes.data() + i * SizeOf(type), &bits, SizeOf(type));
  }
  return bytes;
}

double Number(DeviceNumber type, const std::vector<std::byte>& bytes, size_t i) {
  if (type == DeviceNumber::kF32) {
    float value;
    std::memcpy(&value, bytes.data() + i * 4, sizeof value);
    return value;
  }
  uint16_t bits;
  std::memcpy(&bits, bytes.data() + i * 2, sizeof bits);
  return type == DeviceNumber::kF16 ? kernels::HalfToFloat(bits) : kernels::Bf16ToFloat(bits);
}

// Half a unit of the last place, relative.
double Rounding(DeviceNumber type) {
  if (type == DeviceNumber::kF32) return 0x1p-24;
  return type == DeviceNumber::kF16 ? 0x1p-11 : 0x1p-8;
}

// A rank's GPU: memory with the numbers, and a stream.
struct OnGpu {
  CudaStream stream;
  DeviceBuffer memory;

  Status Upload(const std::vector<std::byte>& bytes, size_t room) {
    if (stream.get() == nullptr) QUERN_TRY(stream.Create());
    QUERN_TRY(memory.Allocate(room, stream.get(), "the test"));
    return Again(bytes);
  }
  Status Again(const std::vector<std::byte>& bytes) const {
    static_cast<void>(cudaMemcpyAsync(memory.as<std::byte>(), bytes.data(), bytes.size(),
                                      cudaMemcpyHostToDevice, stream.get()));
    return stream.Synchronize("the test");
  }
  std::vector<std::byte> Download(size_t bytes) const {
    std::vector<std::byte> got(bytes);
    static_cast<void>(
        cudaMemcpy(got.data(), memory.as<std::byte>(), bytes, cudaMemcpyDeviceToHost));
    return got;
  }
  Status Await(DeviceCommunicator& gpus) const {
    CudaEvent event;
    QUERN_TRY(event.Record(stream.get(), CudaWait::kSleeps));
    QUERN_TRY(gpus.Await([&] { return event.Done(); }));
    return event.Synchronize("the test");
  }
};

class EmulatedNccl : public GlooTest {
 protected:
  void SetUp() override {
    GlooTest::SetUp();
    setenv("QUERN_SIMT_DEVICES", "4", 1);
    const auto program = std::filesystem::read_symlink("/proc/self/exe");
    library_ = program.parent_path().parent_path() / "emulated-nccl" / "libnccl.so.2";
    options_ = {.library = library_.c_str(), .connect_timeout = kForEver, .timeout = kForEver};
  }

  using OnRank = std::function<std::string(Communicator&, DeviceCommunicator&)>;

  // `body` on each rank, once they are connected; "" or what went wrong.
  std::vector<std::string> RunConnected(int size, const OnRank& body) {
    return Run(size, [&](Communicator& group) -> std::string {
      const auto gpus = Connect(group);
      if (!gpus) return gpus.error().message;
      const std::string said = body(group, **gpus);
      // One that has said its word ends, which must not be while another still needs it.
      static_cast<void>(group.Barrier());
      return said;
    });
  }

  Result<std::unique_ptr<DeviceCommunicator>> Connect(Communicator& group) const {
    if (cudaSetDevice(group.rank()) != cudaSuccess) {
      return MakeError(ErrorCode::kInternal, "there is no device for the rank");
    }
    return MakeNcclCommunicator(group, options_);
  }

  // What connecting says, with what else a rank does before.
  std::vector<std::string> RunUnconnected(int size, const std::function<void(int rank)>& before) {
    return Run(size, [&](Communicator& group) -> std::string {
      before(group.rank());
      const auto made = Connect(group);
      if (made) return "it was made";
      // The group is whole, whoever failed.
      const Status after = group.Barrier();
      return after ? made.error().message : after.error().message;
    });
  }

  std::filesystem::path library_;
  NcclOptions options_;
};

std::string SumIsRight(Communicator& group, DeviceCommunicator& gpus, DeviceNumber type,
                       size_t count, unsigned seed) {
  const auto rank = static_cast<unsigned>(group.rank());
  const size_t bytes = count * SizeOf(type);
  OnGpu gpu;
  Status status = gpu.Upload(Numbers(type, count, seed + rank), bytes);
  if (status) {
    status =
        gpus.AllReduceSum(gpu.memory.as(), static_cast<int64_t>(count), type, gpu.stream.get());
  }
  if (status) status = gpu.Await(gpus);
  if (!status) return status.error().message;
  const std::vector<std::byte> got = gpu.Download(bytes);
  std::vector<std::vector<std::byte>> given;
  for (int other = 0; other < group.size(); ++other) {
    given.push_back(Numbers(type, count, seed + static_cast<unsigned>(other)));
  }
  for (size_t i = 0; i < count; ++i) {
    double sum = 0, magnitude = 0;
    for (const auto& numbers : given) {
      sum += Number(type, numbers, i);
      magnitude += std::abs(Number(type, numbers, i));
    }
    // size - 1 additions in float32, and the result's own rounding.
    const double bound = (group.size() * 0x1p-24 + Rounding(type)) * magnitude;
    if (std::abs(Number(type, got, i) - sum) > bound) return fmt::format("sum {} is wrong", i);
  }
  std::vector<std::byte> zeros = got;
  if (!group.Broadcast(zeros, 0)) return "the group";
  return zeros == got ? "" : "other bits than rank 0's";
}

TEST_F(EmulatedNccl, SumsAreRightAndTheSameBitsOnEveryRank) {
  const unsigned seed = std::random_device()();
  SCOPED_TRACE(seed);
  for (const int size : {2, 4}) {
    const auto results = RunConnected(size, [&](Communicator& group, DeviceCommunicator& gpus) {
      std::string wrong;
      for (const auto type : {DeviceNumber::kF32, DeviceNumber::kF16, DeviceNumber::kBF16}) {
        for (const size_t count : {1u, 7u, 1000u, 600'001u}) {
          if (wrong.empty()) wrong = SumIsRight(group, gpus, type, count, seed);
        }
      }
      return wrong;
    });
    EXPECT_THAT(results, Each("")) << size << " ranks";
  }
}

TEST_F(EmulatedNccl, GathersInTheOrderOfRanks) {
  const unsigned seed = std::random_device()();
  SCOPED_TRACE(seed);
  for (const int size : {2, 4}) {
    const auto results =
        RunConnected(size, [&](Communicator& group, DeviceCommunicator& gpus) -> std::string {
          for (const size_t count : {3u, 300'000u}) {
            const size_t bytes = count * 4;
            std::vector<std::byte> all;
            for (int rank = 0; rank < size; ++rank) {
              const auto part =
                  Numbers(DeviceNumber::kF32, count, seed + static_cast<unsigned>(rank));
              all.insert(all.end(), part.begin(), part.end());
            }
            OnGpu mine, gathered;
            const auto own =
                Numbers(DeviceNumber::kF32, count, seed + static_cast<unsigned>(group.rank()));
            if (!mine.Upload(own, bytes) || !gathered.stream.Create() ||
                !gathered.memory.Allocate(all.size(), mine.stream.get(), "the test")) {
              return "memory";
            }
            Status status =
                gpus.AllGather(mine.memory.as(), gathered.memory.as(), static_cast<int64_t>(count),
                               DeviceNumber::kF32, mine.stream.get());
            if (status) status = mine.Await(gpus);
            if (!status) return status.error().message;
            if (gathered.Download(all.size()) != all) return "gathered otherwise";
            gathered.memory = {};
            if (!mine.stream.Synchronize("the test")) return "freeing";
          }
          return "";
        });
    EXPECT_THAT(results, Each("")) << size << " ranks";
  }
}

// What decoding does: the calls are recorded once and repeated.
TEST_F(EmulatedNccl, CallsAreRecordedAndRepeated) {
  const auto results =
      RunConnected(2, [](Communicator& group, DeviceCommunicator& gpus) -> std::string {
        const float mine = group.rank() == 0 ? 1 : 10;
        std::vector<std::byte> bytes(sizeof mine);
        std::memcpy(bytes.data(), &mine, sizeof mine);
        OnGpu gpu;
        if (!gpu.Upload(bytes, sizeof mine)) return "memory";
        const auto call = [&] {
          return gpus.AllReduceSum(gpu.memory.as(), 1, DeviceNumber::kF32, gpu.stream.get());
        };
        cudaGraph_t graph = nullptr;
        cudaGraphExec_t recorded = nullptr;
        if (cudaStreamBeginCapture(gpu.stream.get(), cudaStreamCaptureModeThreadLocal) !=
                cudaSuccess ||
            !call() || !call() || cudaStreamEndCapture(gpu.stream.get(), &graph) != cudaSuccess ||
            cudaGraphInstantiate(&recorded, graph, 0) != cudaSuccess) {
          return "it was not recorded";
        }
        // 11, 22, and 44, 88, of each the ranks' sum again.
        for (int i = 0; i < 2; ++i) static_cast<void>(cudaGraphLaunch(recorded, gpu.stream.get()));
        if (const Status done = gpu.Await(gpus); !done) return done.error().message;
        float got;
        std::memcpy(&got, gpu.Download(sizeof got).data(), sizeof got);
        static_cast<void>(cudaGraphExecDestroy(recorded));
        static_cast<void>(cudaGraphDestroy(graph));
        return got == 88 ? "" : fmt::format("{} rather than 88", got);
      });
  EXPECT_THAT(results, Each(""));
}

// A sum of `gpu`'s, recorded and launched.
cudaGraphExec_t LaunchRecordedSum(DeviceCommunicator& gpus, const OnGpu& gpu) {
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t recorded = nullptr;
  const cudaStream_t stream = gpu.stream.get();
  if (cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal) != cudaSuccess ||
      !gpus.AllReduceSum(gpu.memory.as(), 16, DeviceNumber::kF32, stream) ||
      cudaStreamEndCapture(stream, &graph) != cudaSuccess ||
      cudaGraphInstantiate(&recorded, graph, 0) != cudaSuccess ||
      cudaGraphLaunch(recorded, stream) != cudaSuccess) {
    return nullptr;
  }
  static_cast<void>(cudaGraphDestroy(graph));
  return recorded;
}

// Rank 0 waits for a sum that rank 1 never gives to.
std::string WaitInVain(DeviceCommunicator& gpus) {
  OnGpu gpu;
  const std::vector<std::byte> bytes(64);
  if (!gpu.Upload(bytes, bytes.size())) return "memory";
  const auto call = [&] {
    return gpus.AllReduceSum(gpu.memory.as(), 16, DeviceNumber::kF32, gpu.stream.get());
  };
  if (const Status put = call(); !put) return put.error().message;
  const Status done = gpu.Await(gpus);
  if (done) return "no error";
  // The stream goes on, and later calls say the same.
  if (!gpu.stream.Synchronize("the test")) return "the stream is stuck";
  const Status later = call();
  if (later || later.error().message != done.error().message) return "it went on";
  return done.error().message;
}

TEST_F(EmulatedNccl, ARankThatHasEndedIsGivenUpWhenThatIsSaid) {
  const auto results = Run(2, [this](Communicator& group) -> std::string {
    const auto gpus = Connect(group);
    if (!gpus) return gpus.error().message;
    if (group.rank() == 1) _exit(0);
    std::thread watch([&] {
      std::this_thread::sleep_for(milliseconds(100));
      (*gpus)->Abort();
    });
    std::string said = WaitInVain(**gpus);
    watch.join();
    return said;
  });
  EXPECT_EQ(results[0], "rank 0 of 2, NCCL: a rank has ended");
}

// ncclCommAbort waits for the graphs to go, which whoever waits here has.
TEST_F(EmulatedNccl, GivingUpDoesNotWaitForRecordedGraphs) {
  options_.timeout = milliseconds(200);
  const auto results =
      RunConnected(2, [](Communicator& group, DeviceCommunicator& gpus) -> std::string {
        if (group.rank() == 1) return "";
        OnGpu gpu;
        const std::vector<std::byte> bytes(64);
        if (!gpu.Upload(bytes, bytes.size())) return "memory";
        const cudaGraphExec_t recorded = LaunchRecordedSum(gpus, gpu);
        if (recorded == nullptr) return "it was not recorded";
        const Status done = gpu.Await(gpus);
        if (!gpu.stream.Synchronize("the test")) return "the stream is stuck";
        static_cast<void>(cudaGraphExecDestroy(recorded));
        return done ? "no error" : done.error().message;
      });
  EXPECT_EQ(results[0], "rank 0 of 2, NCCL: another rank was not there within 200 ms");
}

// A graph that outlives the communicator costs its memory, and not the process's end.
TEST_F(EmulatedNccl, ACommunicatorEndsThoughARecordedGraphIsThere) {
  const auto results = Run(2, [this](Communicator& group) -> std::string {
    OnGpu gpu;
    const std::vector<std::byte> bytes(64);
    {
      const auto gpus = Connect(group);
      if (!gpus) return gpus.error().message;
      if (!gpu.Upload(bytes, bytes.size())) return "memory";
      if (LaunchRecordedSum(**gpus, gpu) == nullptr) return "it was not recorded";
      if (const Status done = gpu.Await(**gpus); !done) return done.error().message;
      static_cast<void>(group.Barrier());
    }
    return "";
  });
  EXPECT_THAT(results, Each(""));
}

TEST_F(EmulatedNccl, ARankThatHangsIsGivenUpAfterTheTimeout) {
  options_.timeout = milliseconds(300);
  const auto results =
      RunConnected(2, [](Communicator& group, DeviceCommunicator& gpus) -> std::string {
        return group.rank() == 1 ? "" : WaitInVain(gpus);
      });
  EXPECT_EQ(results[0], "rank 0 of 2, NCCL: another rank was not there within 300 ms");
}

TEST_F(EmulatedNccl, ARankThatCannotBeginIsAnErrorOfAllAtOnce) {
  const auto results = RunUnconnected(3, [](int rank) {
    if (rank == 1) setenv("QUERN_SIMT_NCCL_FAULT", "init", 1);
  });
  const std::string why =
      "NCCL cannot connect the ranks' GPUs: unhandled system error: the test's fault; it needs an "
      "NVIDIA driver and a GPU for each rank";
  EXPECT_EQ(results[0], "rank 1 of 3: " + why);
  EXPECT_EQ(results[1], why);
  EXPECT_EQ(results[2], "rank 1 of 3: " + why);
}

// What their first sums say, of which rank 1 may do something else before.
std::string FirstCalls(Communicator& group, DeviceCommunicator& gpus, milliseconds timeout) {
  const Status made = MakeFirstCalls(gpus, group, timeout);
  // The group is whole, whoever failed.
  const Status after = group.Barrier();
  if (!after) return after.error().message;
  return made ? "" : made.error().message;
}

TEST_F(EmulatedNccl, FirstSumsAreMadeByAll) {
  const auto results = RunConnected(3, [](Communicator& group, DeviceCommunicator& gpus) {
    return FirstCalls(group, gpus, kForEver);
  });
  EXPECT_THAT(results, Each(""));
}

TEST_F(EmulatedNccl, ARankThatFailsInTheFirstSumsIsAnErrorOfAllAtOnce) {
  const auto results = RunConnected(3, [](Communicator& group, DeviceCommunicator& gpus) {
    if (group.rank() == 1) setenv("QUERN_SIMT_NCCL_FAULT", "sum", 1);
    return FirstCalls(group, gpus, kForEver);
  });
  const std::string why = "NCCL: an all-reduce failed: unhandled system error: the test's fault";
  EXPECT_EQ(results[0], "rank 1 of 3: rank 1 of 3, " + why);
  EXPECT_EQ(results[1], "rank 1 of 3, " + why);
  EXPECT_EQ(results[2], "rank 1 of 3: rank 1 of 3, " + why);
}

TEST_F(EmulatedNccl, FirstSumsThatNeverEndAreAnErrorOfAllAfterTheTimeout) {
  const auto results =
      RunConnected(2, [](Communicator& group, DeviceCommunicator& gpus) -> std::string {
        // Another number of calls than rank 0's: the last of them has no partner.
        OnGpu gpu;
        if (group.rank() == 1 && !gpu.Upload(std::vector<std::byte>(64), 64)) return "memory";
        if (group.rank() == 1 &&
            !gpus.AllReduceSum(gpu.memory.as(), 16, DeviceNumber::kF32, gpu.stream.get())) {
          return "an early sum";
        }
        return FirstCalls(group, gpus, milliseconds(400));
      });
  EXPECT_THAT(results, Each(HasSubstr("the GPUs' first sum was not done within 400 ms")));
}

TEST_F(EmulatedNccl, ARankThatDoesNotComeIsAnErrorOfAllAfterTheTimeout) {
  options_.connect_timeout = milliseconds(400);
  const auto results = RunUnconnected(3, [](int rank) {
    if (rank == 2) setenv("QUERN_SIMT_NCCL_FAULT", "silent", 1);
  });
  EXPECT_THAT(results, Each(HasSubstr("NCCL cannot connect the ranks' GPUs: one was not there "
                                      "within 400 ms")));
}

TEST_F(EmulatedNccl, ARankThatEndsWhileTheyConnectIsAnErrorOfTheOthers) {
  const auto results = Run(3, [this](Communicator& group) -> std::string {
    if (group.rank() == 2) {
      setenv("QUERN_SIMT_NCCL_FAULT", "silent", 1);
      std::thread([] {
        std::this_thread::sleep_for(milliseconds(300));
        _exit(0);
      }).detach();
    }
    const auto made = Connect(group);
    return made ? "it was made" : made.error().message;
  });
  for (size_t rank : {0, 1}) EXPECT_THAT(results[rank], HasSubstr("another rank has ended"));
}

TEST_F(EmulatedNccl, TwoRanksOnOneGpuAreRefused) {
  const auto results = Run(2, [this](Communicator& group) -> std::string {
    const auto made = MakeNcclCommunicator(group, options_);
    return made ? "it was made" : made.error().message;
  });
  EXPECT_THAT(results, Each(AllOf(HasSubstr("invalid usage"), HasSubstr("Duplicate GPU"))));
}

}  // namespace
}  // namespace quern::testing
