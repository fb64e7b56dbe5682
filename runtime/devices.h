#pragma once

#include <memory>
#include <string_view>

#include "quern/kernels/activation_type.h"
#include "runtime/base/result.h"
#include "runtime/formats/gguf.h"
#include "runtime/model/model.h"

namespace quern {

// What a model is computed on.
struct Device {
  enum class Kind {
    kAuto,  // a GPU where this build and the machine have one, else the CPU
    kCpu,
    kCuda,
  };
  Kind kind = Kind::kAuto;
  int number = 0;  // of the GPU, CUDA's
};

// Whether this build has a backend for GPUs.
bool BuiltWithCuda();

// "auto", "cpu", "cuda" or "cuda:1". kInvalidArgument says which there are.
Result<Device> ParseDevice(std::string_view text);
// "f16" or "bf16". The same.
Result<kernels::ActivationType> ParseActivations(std::string_view text);

// Model::Load on the device. Says in the log why kAuto took the CPU where this build could use a
// GPU. Errors: also kUnsupported, when a GPU is asked for of a build without CUDA, and
// MakeCudaBackend's.
Result<std::unique_ptr<Model>> LoadModelOn(const Device& device, std::unique_ptr<GgufFile> file,
                                           const ModelOptions& options);

}  // namespace quern
