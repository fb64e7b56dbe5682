#pragma once

#include <functional>
#include <memory>

#include "quern/kernels/activation_type.h"
#include "runtime/backend/backend.h"
#include "runtime/base/result.h"

namespace quern {

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

// The ranks' first calls, of sums as small and as large as a step's, on the calling thread's GPU:
// NCCL connects GPUs by each of its ways when that is taken first, which takes time and memory.
// `agree` makes every rank's status that of the first which has an error.
Status MakeFirstCalls(DeviceCommunicator& gpus, const std::function<Status(const Status&)>& agree);

// The oldest driver that runs programs of CUDA 13 (NVIDIA's CUDA compatibility guide, minor version
// compatibility).
inline constexpr int kLeastCudaDriver = 580;

// Whether a driver that knows `driver`, CUDA's number (12080: 12.8; 0: none there), runs programs
// of `runtime`. kUnavailable says what to install.
Status CheckDriverVersion(int driver, int runtime);

}  // namespace quern
