#pragma once

#include <chrono>
#include <memory>

#include "quern/kernels/activation_type.h"
#include "runtime/backend/backend.h"
#include "runtime/base/result.h"

namespace quern {

class Communicator;
class DeviceCommunicator;

struct CudaOptions {
  int device = 0;  // CUDA's number
  // What activations and a 16-bit KV cache are kept in. binary16 rounds eight times finer, and ends
  // at 65,504: models that were trained in bfloat16 may go beyond (Gemma 3 does).
  kernels::ActivationType activations = kernels::ActivationType::kBF16;
  int threads = 0;     // that lay weights out while loading; 0: DefaultThreads()
  bool graphs = true;  // steps of decoding alone are recorded once for each size and repeated
  // The ranks that a model is split over, a GPU each, which outlive the backend; null: there is
  // one. Sums are of the activations' type, but for the embedding's, and their order is the
  // group's.
  DeviceCommunicator* group = nullptr;
};

// A backend on an NVIDIA GPU of compute capability 8.0 or later. What it gives a sequence depends
// on its own tokens and on how they were cut into steps (docs/cuda.md), not on the others of its
// batch. One thread at a time; it need not be the one that made it. Errors: kUnavailable, when
// there is no driver, none that is new enough (580), or no such device, with what to do;
// kUnsupported for a GPU that is too old.
Result<std::unique_ptr<Backend>> MakeCudaBackend(const CudaOptions& options);

// Makes GPU `first` + `rank` the calling thread's, where there is one for each of `ranks` from
// `first` on. Errors: MakeCudaBackend's.
Status ChooseGpuOfRank(int first, int rank, int ranks);

// The ranks' first calls, a small sum and a large one on the calling thread's GPU, before a model
// depends on them: kernels are loaded and what NCCL still makes by itself is made. An error of one
// rank, or that it is not done within `timeout`, is one of all at once; `gpus` is given up then.
Status MakeFirstCalls(DeviceCommunicator& gpus, Communicator& group,
                      std::chrono::milliseconds timeout);

// The oldest driver that runs programs of CUDA 13 (NVIDIA's CUDA compatibility guide, minor version
// compatibility).
inline constexpr int kLeastCudaDriver = 580;

// Whether a driver that knows `driver`, CUDA's number (12080: 12.8; 0: none there), runs programs
// of `runtime`. kUnavailable says what to install.
Status CheckDriverVersion(int driver, int runtime);

}  // namespace quern
