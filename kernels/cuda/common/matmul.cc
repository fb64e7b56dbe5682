#include <algorithm>
#include <cstdint>
#include <limits>
#include <map>
#include <mutex>
#include <tuple>

#include "kernels/cuda/common/check.h"
#include "kernels/cuda/common/device.h"
#include "kernels/cuda/common/matmul_launch.h"

namespace quern::kernels {
namespace {

constexpr int64_t kMaxExtent = int64_t{1} << 29;

// Thread blocks of a kernel on one multiprocessor; CUDA is asked once for each device, kind of
// weights and shape. "" or why there are none.
std::string FindResidency(const std::string& who, const MatMulKernels& kernels, int device,
                          int shape, int* blocks) {
  static std::mutex mutex;
  static std::map<std::tuple<decltype(kernels.start), int, int>, int> all;
  const std::lock_guard<std::mutex> lock(mutex);
  int& known = all[{kernels.start, device, shape}];
  if (known == 0) {
    const cudaError_t error = kernels.blocks_per_sm(shape, &known);
    if (error != cudaSuccess) {
      known = 0;
      return CudaErrorText((who + "no kernel for this device (it needs a build for its compute "
                                  "capability, QUERN_CUDA_ARCHITECTURES, and the shape's shared "
                                  "memory)")
                               .c_str(),
                           error);
    }
  }
  *blocks = known;
  return known == 0 ? who + "the kernel does not fit this device" : "";
}

// The current device, if it has the compute capability; "" or what is wrong.
std::string FindDevice(const MatMulOperands& operands, int least_capability, CudaDevice* device) {
  const std::string who = std::string(operands.who) + ": ";
  if (std::string wrong = FindCudaDevice(device); !wrong.empty()) return who + wrong;
  if (device->capability >= least_capability) return "";
  return who + "the device has compute capability " + std::to_string(device->capability / 10) +
         "." + std::to_string(device->capability % 10) + "; it needs " +
         std::to_string(least_capability / 10) + "." + std::to_string(least_capability % 10) +
         " or later";
}

// Fills in what every launch has, for tiles of the shape, and starts it.
std::string StartTiles(const MatMulOperands& operands, const MatMulChoice& choice,
                       const CudaDevice& device, int shape, const MatMulKernels& kernels,
                       MatMulLaunch launch, cudaStream_t stream) {
  const std::string who = std::string(operands.who) + ": ";
  const int64_t tiles = MatMulTiles(kMatMulShapes[shape], operands.rows, operands.batch);
  if (tiles > std::numeric_limits<int32_t>::max()) {
    return who + "a product of " + std::to_string(operands.rows) + " x " +
           std::to_string(operands.batch) + " has too many tiles; split its batch";
  }
  int per_sm = 0;
  if (std::string wrong = FindResidency(who, kernels, device.number, shape, &per_sm);
      !wrong.empty()) {
    return wrong;
  }
  launch.x = static_cast<const uint8_t*>(operands.x);
  launch.y = operands.y;
  launch.x_stride = operands.x_stride * operands.x_element_bytes;
  launch.y_stride = operands.y_stride;
  launch.y_float32 = operands.y_float32;
  launch.y_pairs = IsAligned(operands.y, operands.y_float32 ? 8 : 4) && operands.y_stride % 2 == 0;
  launch.rows = static_cast<int32_t>(operands.rows);
  launch.row_bytes = static_cast<int32_t>(operands.cols * operands.x_element_bytes);
  launch.groups = (launch.row_bytes + kMatMulGroupBytes - 1) / kMatMulGroupBytes;
  launch.tiles = static_cast<int32_t>(tiles);
  launch.batch_tiles = static_cast<int32_t>(MatMulTiles(kMatMulShapes[shape], 1, operands.batch));
  const int64_t resident = choice.thread_blocks > 0 ? int64_t{choice.thread_blocks}
                                                    : int64_t{device.multiprocessors} * per_sm;
  const cudaError_t error = kernels.start(shape, static_cast<int>(std::min(tiles, resident)),
                                          choice.overlap, launch, stream);
  return error == cudaSuccess
             ? ""
             : CudaErrorText((who + "the kernel could not be started").c_str(), error);
}

}  // namespace

std::string CheckMatMul(const MatMulOperands& operands, const MatMulChoice& choice) {
  const std::string who = std::string(operands.who) + ": ";
  if (operands.rows < 1 || operands.cols < 1 || operands.rows >= kMaxExtent ||
      operands.cols >= kMaxExtent) {
    return who + "a matrix of " + std::to_string(operands.rows) + " x " +
           std::to_string(operands.cols) + "; rows and columns must be from 1 to 2^29 - 1";
  }
  if (!IsAligned(operands.weights, 16) || !IsAligned(operands.x, 16)) {
    return who + "weights and x must be 16-byte aligned device memory";
  }
  const uintptr_t y_bytes = operands.y_float32 ? 4 : 2;
  if (!IsAligned(operands.y, y_bytes)) {
    return who + "y must be device memory with " + std::to_string(y_bytes) + "-byte alignment";
  }
  if (operands.batch < 1 || operands.batch > std::numeric_limits<int32_t>::max()) {
    return who + "a batch of " + std::to_string(operands.batch) + "; from 1 to 2^31 - 1 is right";
  }
  const int step = 16 / operands.x_element_bytes;
  if (operands.x_stride < operands.cols || operands.x_stride % step != 0) {
    return who + "x_stride is " + std::to_string(operands.x_stride) +
           "; it must be a multiple of " + std::to_string(step) + " and at least " +
           std::to_string(operands.cols);
  }
  if (operands.y_stride < operands.rows) {
    return who + "y_stride is " + std::to_string(operands.y_stride) + "; it must be at least " +
           std::to_string(operands.rows);
  }
  if (choice.shape < -1 || choice.shape >= kMatMulShapeCount) {
    return who + "there is no shape " + std::to_string(choice.shape) + "; -1 to " +
           std::to_string(kMatMulShapeCount - 1) + " are right";
  }
  if (choice.thread_blocks < 0) return who + "thread_blocks is negative";
  return "";
}

std::string CheckMatMulRows(const MatMulOperands& operands, int64_t stride) {
  const std::string who = std::string(operands.who) + ": ";
  const int step = 16 / operands.x_element_bytes;
  if (operands.cols % step != 0) {
    return who + std::to_string(operands.cols) + " columns; they must be a multiple of " +
           std::to_string(step);
  }
  if (stride < operands.cols || stride % step != 0) {
    return who + "w_stride is " + std::to_string(stride) + "; it must be a multiple of " +
           std::to_string(step) + " and at least " + std::to_string(operands.cols);
  }
  return "";
}

std::string StartMatMul(const MatMulOperands& operands, const MatMulChoice& choice,
                        int least_capability, const MatMulKernels& kernels, MatMulLaunch launch,
                        cudaStream_t stream) {
  CudaDevice device{};
  if (std::string wrong = FindDevice(operands, least_capability, &device); !wrong.empty()) {
    return wrong;
  }
  const int shape = choice.shape >= 0
                        ? choice.shape
                        : ChooseMatMulShape(operands.rows, operands.batch, device.multiprocessors,
                                            device.shared_bytes, kernels.shared_bytes);
  launch.batch = static_cast<int32_t>(operands.batch);
  return StartTiles(operands, choice, device, shape, kernels, launch, stream);
}

std::string StartGroupedMatMul(const MatMulOperands& operands, const MatMulGroups& groups,
                               const MatMulChoice& choice, const MatMulKernels& kernels,
                               MatMulLaunch launch, cudaStream_t stream) {
  const std::string who = std::string(operands.who) + ": ";
  if (choice.shape >= 0 && (!IsGroupedMatMulShape(choice.shape) ||
                            groups.tile % kMatMulShapes[choice.shape].batch() != 0)) {
    return who + "shape " + std::to_string(choice.shape) + " is none for a tile of " +
           std::to_string(groups.tile) +
           "; 0, 1, 2 and 4 are right where their batch (8, 16, 32, 64) divides it";
  }
  if (groups.pairs == 0) return "";
  CudaDevice device{};
  if (std::string wrong = FindDevice(operands, 80, &device); !wrong.empty()) return wrong;
  const int shape = choice.shape >= 0 ? choice.shape
                                      : ChooseGroupedMatMulShape(groups.tile, device.shared_bytes,
                                                                 kernels.shared_bytes);
  launch.offsets = groups.offsets;
  launch.row_pairs = groups.row_pairs;
  launch.experts = static_cast<int32_t>(groups.experts);
  launch.top_k = static_cast<int32_t>(groups.top_k);
  launch.row_tiles = static_cast<int32_t>(MatMulTiles(kMatMulShapes[shape], operands.rows, 1));
  return StartTiles(operands, choice, device, shape, kernels, launch, stream);
}

}  // namespace quern::kernels
