#pragma once

#include <memory>
#include <string_view>

#include "quern/kernels/activation_type.h"
#include "runtime/base/result.h"
#include "runtime/distributed/device_communicator.h"
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

// What a rank of several computes on.
struct RankDevice {
  Device device{Device::Kind::kCpu};         // not kAuto
  std::unique_ptr<DeviceCommunicator> gpus;  // of all ranks; null on CPUs
};

// This rank's device, all ranks' alike: GPUs from wanted.number on, one for each rank, or CPUs. All
// ranks call it at the same time, and get an error or none together; kAuto takes the CPUs then,
// with the reason in rank 0's log where this build could use GPUs. Errors: kUnsupported, when GPUs
// are asked for of a build without CUDA; kUnavailable, where there are fewer than ranks; those of
// MakeNcclCommunicator and of the group.
Result<RankDevice> ChooseRankDevice(const Device& wanted, Communicator& group,
                                    const NcclOptions& nccl);

// Model::Load on the device; of a part of a model (options.group) on one that ChooseRankDevice
// gave, with its `gpus`, which outlive the model. Says in the log why kAuto took the CPU where this
// build could use a GPU. Errors: also kUnsupported, when a GPU is asked for of a build without
// CUDA, and MakeCudaBackend's.
Result<std::unique_ptr<Model>> LoadModelOn(const Device& device, std::unique_ptr<GgufFile> file,
                                           const ModelOptions& options,
                                           DeviceCommunicator* gpus = nullptr);

}  // namespace quern
