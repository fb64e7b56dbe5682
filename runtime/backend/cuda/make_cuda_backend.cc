#include "runtime/backend/cuda/make_cuda_backend.h"

#include <cuda_runtime.h>

#include <future>
#include <optional>

#include "runtime/backend/cuda/cuda_backend.h"
#include "runtime/backend/cuda/cuda_status.h"
#include "runtime/backend/cuda/device_memory.h"
#include "runtime/distributed/agree_in_rounds.h"
#include "runtime/distributed/communicator.h"
#include "runtime/distributed/device_communicator.h"

namespace quern {
namespace {

constexpr size_t kSmallSum = size_t{8} << 10, kLargeSum = size_t{4} << 20;  // bytes

Status CheckDriver() {
  int driver = 0, runtime = 0;
  QUERN_TRY(CudaStatus(cudaDriverGetVersion(&driver), "asking for the NVIDIA driver's version"));
  QUERN_TRY(CudaStatus(cudaRuntimeGetVersion(&runtime), "asking for CUDA's version"));
  return CheckDriverVersion(driver, runtime);
}

// How many there are: at least one.
Result<int> CountGpus() {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess && error != cudaErrorNoDevice) {
    return CudaStatus(error, "counting GPUs").error();
  }
  static_cast<void>(cudaGetLastError());
  if (count > 0) return count;
  return MakeError(ErrorCode::kUnavailable,
                   "the NVIDIA driver shows no GPU: look at nvidia-smi; in a pod, ask for "
                   "nvidia.com/gpu");
}

Status CheckNumber(int device) {
  QUERN_ASSIGN(const int count, CountGpus());
  if (device >= 0 && device < count) return {};
  return MakeError(ErrorCode::kUnavailable, "there is no GPU {}: there are {}, numbered from 0",
                   device, count);
}

Result<cudaDeviceProp> CheckCapability(int device) {
  cudaDeviceProp properties;
  QUERN_TRY(
      CudaStatus(cudaGetDeviceProperties(&properties, device), "asking for the GPU's properties"));
  if (properties.major >= 8) return properties;
  return MakeError(ErrorCode::kUnsupported,
                   "the {} has compute capability {}.{}: the kernels need 8.0 or later (Ampere)",
                   properties.name, properties.major, properties.minor);
}

// "GPU-" and 32 hexadecimal digits in groups of 8, 4, 4, 4 and 12.
std::string UuidText(const cudaUUID_t& uuid) {
  std::string text = "GPU";
  for (size_t i = 0; i < sizeof(uuid.bytes); ++i) {
    if (i == 0 || i == 4 || i == 6 || i == 8 || i == 10) text += '-';
    text += fmt::format("{:02x}", static_cast<unsigned char>(uuid.bytes[i]));
  }
  return text;
}

}  // namespace

Status CheckDriverVersion(int driver, int runtime) {
  if (driver == 0) {
    return MakeError(ErrorCode::kUnavailable,
                     "there is no NVIDIA driver (libcuda.so.1): install {} or later; in a pod it "
                     "comes with the runtime class 'nvidia' and a limit of nvidia.com/gpu",
                     kLeastCudaDriver);
  }
  if (driver / 1000 < runtime / 1000) {
    return MakeError(ErrorCode::kUnavailable,
                     "the NVIDIA driver knows CUDA {}.{}, and this program needs {}.0: install "
                     "driver {} or later",
                     driver / 1000, driver % 1000 / 10, runtime / 1000, kLeastCudaDriver);
  }
  return {};
}

Status ChooseGpuOfRank(int first, int rank, int ranks) {
  QUERN_TRY(CheckDriver());
  QUERN_ASSIGN(const int count, CountGpus());
  if (first > count - ranks) {
    const std::string remedy =
        count >= ranks ? fmt::format("--device cuda:0 to cuda:{} would do", count - ranks)
                       : fmt::format("in a pod, ask for nvidia.com/gpu: {}", ranks);
    return MakeError(ErrorCode::kUnavailable,
                     "--tensor-parallel-size {} needs a GPU for each process, {} to {}, and the "
                     "NVIDIA driver shows {}, numbered from 0; {}",
                     ranks, first, int64_t{first} + ranks - 1, count, remedy);
  }
  QUERN_TRY(CheckCapability(first + rank));
  return CudaStatus(cudaSetDevice(first + rank), "choosing the GPU");
}

Status MakeFirstCalls(DeviceCommunicator& gpus, Communicator& group,
                      std::chrono::milliseconds timeout) {
  int device = 0;
  CudaStream stream;
  CudaEvent done;
  DeviceBuffer numbers;
  Status room = CudaStatus(cudaGetDevice(&device), "asking for the thread's GPU");
  if (room) room = stream.Create();
  if (room) room = numbers.Allocate(kLargeSum, stream.get(), "the GPUs' first sum");
  QUERN_TRY(Agree(group, room));
  // On a thread of their own, as this one asks how the others fare.
  auto calls = std::async(std::launch::async, [&]() -> Status {
    QUERN_TRY(CudaStatus(cudaSetDevice(device), "choosing the GPU"));
    for (const size_t bytes : {kSmallSum, kLargeSum}) {
      const auto count = static_cast<int64_t>(bytes / sizeof(float));
      QUERN_TRY(gpus.AllReduceSum(numbers.as(), count, DeviceNumber::kF32, stream.get()));
    }
    QUERN_TRY(done.Record(stream.get(), CudaWait::kSleeps));
    QUERN_TRY(gpus.Await([&] { return done.Done(); }));
    return done.Synchronize("the GPUs' first sum");
  });
  const Error late = MakeError(ErrorCode::kUnavailable,
                               "the GPUs' first sum was not done within {} ms", timeout.count());
  Status all =
      AgreeInRounds(group, timeout, late,
                    [&](std::chrono::steady_clock::time_point until) -> std::optional<Status> {
                      if (calls.wait_until(until) != std::future_status::ready) return std::nullopt;
                      return calls.get();
                    });
  if (!all.ok()) gpus.Abort();
  if (calls.valid()) calls.wait();
  return all;
}

Result<std::unique_ptr<Backend>> MakeCudaBackend(const CudaOptions& options) {
  QUERN_TRY(CheckDriver());
  QUERN_TRY(CheckNumber(options.device));
  QUERN_ASSIGN(const cudaDeviceProp properties, CheckCapability(options.device));
  QUERN_TRY(CudaStatus(cudaSetDevice(options.device), "choosing the GPU"));
  QUERN_ASSIGN(std::unique_ptr<CudaBackend> backend,
               CudaBackend::Make(options, {properties.name, UuidText(properties.uuid)}));
  return std::unique_ptr<Backend>(std::move(backend));
}

}  // namespace quern
