#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <string>

#include "kernels/cuda/common/matmul_plan.h"

namespace quern::kernels {

// What matmul_block.cuh's kernel is told: arguments, checked, and their plan.
struct MatMulLaunch {
  const uint8_t* weights;
  const uint8_t* x;
  void* y;
  const float* weight_scales;  // [rows]; W8A8 and FP8
  const float* x_scales;       // [batch]
  int64_t weight_stride;       // bytes from row to row, of weights that lie in rows
  int64_t x_stride;            // bytes
  int64_t y_stride;            // elements
  bool y_float32;              // else y has the kernel's 16-bit type
  bool y_pairs;                // two neighbours of y may be written at once
  int32_t rows;                // of the weights
  int32_t batch;               // rows of x
  int32_t row_bytes;           // of a row of x, a multiple of 16
  int32_t groups;              // of 64 bytes of a row of x
  int32_t tiles;               // of y, of the shape's size
  int32_t batch_tiles;         // of them, next to each other in the order of work
  // A grouped product's (grouped_matmul.h), whose tiles and batch only the device knows.
  const int32_t* offsets;
  const int32_t* row_pairs;
  int64_t expert_bytes;  // from one expert's weights to the next one's
  int32_t experts;
  int32_t top_k;
  int32_t row_tiles;  // of one expert's weights, of the shape's size
};

// The kernels of one kind of weights; `shape` is an index of kMatMulShapes.
struct MatMulKernels {
  int shared_bytes[kMatMulShapeCount];
  // Thread blocks that one multiprocessor of the current device holds; allows the kernel its shared
  // memory.
  cudaError_t (*blocks_per_sm)(int shape, int* blocks);
  cudaError_t (*start)(int shape, int thread_blocks, bool overlap, const MatMulLaunch& launch,
                       cudaStream_t stream);
};

// How it is done.
struct MatMulChoice {
  int shape = -1;         // of kMatMulShapes; -1: the best for the batch
  int thread_blocks = 0;  // that share the work; 0: as many as are best
  bool overlap = false;   // may begin before the stream's grid before it ends
};

// The operands that all products have. `who` begins every message.
struct MatMulOperands {
  const char* who;
  const void* weights;
  int64_t rows, cols;  // of the weights
  const void* x;
  int64_t x_stride;  // elements
  int x_element_bytes;
  void* y;
  int64_t y_stride;  // elements
  int64_t batch;
  bool y_float32 = false;
};

// "" or what is wrong with the operands or the choice.
[[nodiscard]] std::string CheckMatMul(const MatMulOperands& operands, const MatMulChoice& choice);

// The same of weights that lie in rows of `stride` elements of x's size: both must be whole pieces
// of 16 bytes.
[[nodiscard]] std::string CheckMatMulRows(const MatMulOperands& operands, int64_t stride);

// Plans and starts a product whose operands have been checked; fills the rest of `launch`, in which
// the weights, their stride and scales are set. `least_capability`: 80, 89.
[[nodiscard]] std::string StartMatMul(const MatMulOperands& operands, const MatMulChoice& choice,
                                      int least_capability, const MatMulKernels& kernels,
                                      MatMulLaunch launch, cudaStream_t stream);

// The same of a grouped product (grouped_matmul.h); operands.batch is MoePermuteRows. Nothing is
// started where there are no pairs.
struct MatMulGroups {
  const int32_t* offsets;
  const int32_t* row_pairs;
  int64_t pairs, experts, tile, top_k;
};
[[nodiscard]] std::string StartGroupedMatMul(const MatMulOperands& operands,
                                             const MatMulGroups& groups, const MatMulChoice& choice,
                                             const MatMulKernels& kernels, MatMulLaunch launch,
                                             cudaStream_t stream);

}  // namespace quern::kernels
