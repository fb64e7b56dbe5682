#pragma once

#include <cuda_runtime.h>

#include <cstdint>

// One warp that carries out one instruction of kernels/cuda/common/ptx.cuh on whole matrices.
namespace quern::kernels::testing {

enum class MmaOp { kF16K16, kBf16K16, kF16K8, kBf16K8, kS8K32, kE4m3K32 };

// c[16][8] += a[16][k] * b[k][8], row by row; elements of two bytes, or of one for k = 32, and
// float32 or int32 sums. Device memory.
cudaError_t RunMma(MmaOp op, const void* a, const void* b, void* c);

// The same of registers as they are: a[lane][4], b[lane][2], c[lane][4].
cudaError_t RunMmaRegisters(MmaOp op, const uint32_t* a, const uint32_t* b, uint32_t* c);

// result[lane][m]: what ldmatrix gives each lane of the matrices [m][8][8] of 16-bit elements.
cudaError_t RunLoadMatrices(int matrices, bool transposed, const uint16_t* from, uint32_t* result);

// result[i]: from[i], which a cp.async of `bytes` (4, 8 or 16) brings through shared memory, or 0
// where that of its lane is told not to: each third lane. 32 * bytes bytes.
cudaError_t RunCopyAsync(int bytes, const uint8_t* from, uint8_t* result);

// result[i]: E4M3's i and 255 - i as a pair of binary16.
cudaError_t RunE4m3ToHalves(uint32_t* result);

// result[i]: __byte_perm of from[3 i], from[3 i + 1] and the selector from[3 i + 2]; of 32.
cudaError_t RunBytePerm(const uint32_t* from, uint32_t* result);

}  // namespace quern::kernels::testing
