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

Result<std::unique_ptr<Backend>> MakeGpuBackend(const Device& device, const ModelOptions& options) {
#ifdef QUERN_WITH_CUDA
  return MakeCudaBackend(
      {.device = device.number, .activations = options.activations, .threads = options.threads});
#else
  static_cast<void>(options);
  return MakeError(ErrorCode::kUnsupported,
                   "GPU {} is asked for, but this build has no CUDA: use --device cpu, the image "
                   "quern-serve-cuda, or build with -DQUERN_CUDA=ON",
                   device.number);
#endif
}

Result<std::unique_ptr<Backend>> MakeBackend(const Device& device, const ModelOptions& options) {
  const bool either = device.kind == Device::Kind::kAuto;
  if (options.group != nullptr && device.kind == Device::Kind::kCuda) {
    return MakeError(ErrorCode::kUnsupported,
                     "this version computes on one GPU: leave out --tensor-parallel-size (of an "
                     "InferenceEndpoint: tensorParallel and limits['nvidia.com/gpu'] of 1), or use "
                     "--device cpu");
  }
  if (options.group != nullptr && options.group->rank() == 0 && either && BuiltWithCuda()) {
    spdlog::info("computing on the CPU: --tensor-parallel-size does not use GPUs yet");
  }
  if (options.group != nullptr || device.kind == Device::Kind::kCpu ||
      (either && !BuiltWithCuda())) {
    return MakeCpuBackend(options.threads, options.group);
  }
  auto backend = MakeGpuBackend(device, options);
  if (backend.ok() || !either) return backend;
  spdlog::info("computing on the CPU: {}", backend.error().message);
  return MakeCpuBackend(options.threads);
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

Result<std::unique_ptr<Model>> LoadModelOn(const Device& device, std::unique_ptr<GgufFile> file,
                                           const ModelOptions& options) {
  QUERN_ASSIGN(auto backend, MakeBackend(device, options));
  return Model::Load(std::move(file), options, std::move(backend));
}

}  // namespace quern
