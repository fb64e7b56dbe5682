#include "runtime/devices.h"

#include <spdlog/spdlog.h>

#include <charconv>

#include "runtime/distributed/communicator.h"
#include "runtime/formats/file_signature.h"
#ifdef QUERN_WITH_CUDA
#include "runtime/backend/cuda/make_cuda_backend.h"
#endif

namespace quern {
namespace {

#ifndef QUERN_WITH_CUDA
Error NoCuda(int number) {
  return MakeError(ErrorCode::kUnsupported,
                   "GPU {} is asked for, but this build has no CUDA: use --device cpu, the image "
                   "quern-serve-cuda, or build with -DQUERN_CUDA=ON",
                   number);
}
#endif

Result<std::unique_ptr<Backend>> MakeGpuBackend(const Device& device, const ModelOptions& options,
                                                DeviceCommunicator* gpus) {
#ifdef QUERN_WITH_CUDA
  CudaOptions cuda{
      .device = device.number, .activations = options.activations, .threads = options.threads};
  cuda.group = gpus;
  return MakeCudaBackend(cuda);
#else
  static_cast<void>(options);
  static_cast<void>(gpus);
  return NoCuda(device.number);
#endif
}

Result<std::unique_ptr<Backend>> MakeBackend(const Device& device, const ModelOptions& options,
                                             DeviceCommunicator* gpus) {
  const bool either = device.kind == Device::Kind::kAuto;
  if (device.kind == Device::Kind::kCpu || (either && !BuiltWithCuda())) {
    return MakeCpuBackend(options.threads, options.group);
  }
  auto backend = MakeGpuBackend(device, options, gpus);
  if (backend.ok() || !either) return backend;
  spdlog::info("computing on the CPU: {}", backend.error().message);
  return MakeCpuBackend(options.threads, options.group);
}

// This rank's of the GPUs from `first` on, and the others with it.
Result<RankDevice> ChooseGpus(int first, Communicator& group, const NcclOptions& nccl) {
#ifdef QUERN_WITH_CUDA
  QUERN_TRY(Agree(group, ChooseGpuOfRank(first, group.rank(), group.size())));
  RankDevice chosen{{Device::Kind::kCuda, first + group.rank()}, nullptr};
  QUERN_ASSIGN(chosen.gpus, MakeNcclCommunicator(group, nccl));
  QUERN_TRY(MakeFirstCalls(*chosen.gpus, group, nccl.connect_timeout));
  spdlog::info("rank {} of {} computes on GPU {}", group.rank(), group.size(),
               chosen.device.number);
  return chosen;
#else
  static_cast<void>(group);
  static_cast<void>(nccl);
  return NoCuda(first);
#endif
}

}  // namespace

bool BuiltWithCuda() {
#ifdef QUERN_WITH_CUDA
  return true;
#else
  return false;
#endif
}

Result<Device> ParseDevice(std::string_view text) {
  if (text == "auto") return Device{};
  if (text == "cpu") return Device{Device::Kind::kCpu};
  if (text == "cuda") return Device{Device::Kind::kCuda};
  constexpr std::string_view kPrefix = "cuda:";
  if (text.starts_with(kPrefix)) {
    Device device{Device::Kind::kCuda};
    const char* const end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data() + kPrefix.size(), end, device.number);
    if (error == std::errc() && stop == end && device.number >= 0) return device;
  }
  return MakeError(ErrorCode::kInvalidArgument,
                   "'{}' is no device: use auto, cpu, cuda, or cuda:1 for a GPU by its number",
                   Printable(text));
}

Result<kernels::ActivationType> ParseActivations(std::string_view text) {
  if (text == "f16") return kernels::ActivationType::kF16;
  if (text == "bf16") return kernels::ActivationType::kBF16;
  return MakeError(ErrorCode::kInvalidArgument, "'{}' is no type of activations: use f16 or bf16",
                   Printable(text));
}

Result<RankDevice> ChooseRankDevice(const Device& wanted, Communicator& group,
                                    const NcclOptions& nccl) {
  const bool either = wanted.kind == Device::Kind::kAuto;
  if (wanted.kind == Device::Kind::kCpu || (either && !BuiltWithCuda())) return RankDevice{};
  auto chosen = ChooseGpus(wanted.number, group, nccl);
  if (chosen.ok() || !either) return chosen;
  // Not where the group itself is lost, which is nothing that CPUs help with.
  QUERN_TRY(group.Barrier());
  if (group.rank() == 0) spdlog::info("computing on the CPU: {}", chosen.error().message);
  return RankDevice{};
}

Result<std::unique_ptr<Model>> LoadModelOn(const Device& device, std::unique_ptr<GgufFile> file,
                                           const ModelOptions& options, DeviceCommunicator* gpus) {
  QUERN_ASSIGN(auto backend, MakeBackend(device, options, gpus));
  return Model::Load(std::move(file), options, std::move(backend));
}

}  // namespace quern
