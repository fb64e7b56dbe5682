#include "kernels/cuda/common/ptx.cuh"
#include "tests/cuda/ptx_kernels.h"

// Each lane fetches its elements one by one, as the figures of the PTX ISA number them, and brings
// its results back the same way.
namespace quern::kernels {
namespace {

template <typename Word>
__device__ uint32_t Pack(const Word* elements) {
  uint32_t word = 0;
  for (int i = 0; i < 4 / static_cast<int>(sizeof(Word)); ++i) {
    word |= static_cast<uint32_t>(elements[i]) << (8 * sizeof(Word) * i);
  }
  return word;
}

// "Matrix fragments for mma.m16n8k16 with floating point type": a0 ... a7, b0 ... b3, c0 ... c3.
template <typename T>
__global__ void MmaK16Kernel(const uint16_t* a, const uint16_t* b, float* c) {
  const int group = static_cast<int>(threadIdx.x) >> 2;
  const int in_group = static_cast<int>(threadIdx.x) % 4;
  uint16_t own_a[8];
  for (int i = 0; i < 8; ++i) {
    const int row = i < 2 || (4 <= i && i < 6) ? group : group + 8;
    const int col = in_group * 2 + (i & 1) + (i >= 4 ? 8 : 0);
    own_a[i] = a[row * 16 + col];
  }
  uint16_t own_b[4];
  for (int i = 0; i < 4; ++i) {
    const int row = in_group * 2 + (i & 1) + (i >= 2 ? 8 : 0);
    own_b[i] = b[row * 8 + group];
  }
  const auto at = [&](int i) { return (i < 2 ? group : group + 8) * 8 + in_group * 2 + (i & 1); };
  const uint32_t words[4] = {Pack(own_a), Pack(own_a + 2), Pack(own_a + 4), Pack(own_a + 6)};
  const float4 d = ptx::Mma<T>(words, Pack(own_b), Pack(own_b + 2),
                               make_float4(c[at(0)], c[at(1)], c[at(2)], c[at(3)]));
  c[at(0)] = d.x;
  c[at(1)] = d.y;
  c[at(2)] = d.z;
  c[at(3)] = d.w;
}

// "Matrix fragments for mma.m16n8k8": a0 ... a3, b0, b1.
template <typename T>
__global__ void MmaK8Kernel(const uint16_t* a, const uint16_t* b, float* c) {
  const int group = static_cast<int>(threadIdx.x) >> 2;
  const int in_group = static_cast<int>(threadIdx.x) % 4;
  uint16_t own_a[4];
  for (int i = 0; i < 4; ++i) {
    own_a[i] = a[(i < 2 ? group : group + 8) * 8 + in_group * 2 + (i & 1)];
  }
  uint16_t own_b[2];
  for (int i = 0; i < 2; ++i) own_b[i] = b[(in_group * 2 + i) * 8 + group];
  const auto at = [&](int i) { return (i < 2 ? group : group + 8) * 8 + in_group * 2 + (i & 1); };
  const uint32_t words[2] = {Pack(own_a), Pack(own_a + 2)};
  const float4 d =
      ptx::MmaK8<T>(words, Pack(own_b), make_float4(c[at(0)], c[at(1)], c[at(2)], c[at(3)]));
  c[at(0)] = d.x;
  c[at(1)] = d.y;
  c[at(2)] = d.z;
  c[at(3)] = d.w;
}

// "Matrix fragments for mma.m16n8k32": a0 ... a15, b0 ... b7.
struct ByteFragments {
  uint32_t a[4];
  uint32_t b[2];

  __device__ ByteFragments(const uint8_t* from_a, const uint8_t* from_b) {
    const int group = static_cast<int>(threadIdx.x) >> 2;
    const int in_group = static_cast<int>(threadIdx.x) % 4;
    uint8_t own_a[16];
    for (int i = 0; i < 16; ++i) {
      const int row = i < 4 || (8 <= i && i < 12) ? group : group + 8;
      const int col = in_group * 4 + (i & 3) + (i >= 8 ? 16 : 0);
      own_a[i] = from_a[row * 32 + col];
    }
    uint8_t own_b[8];
    for (int i = 0; i < 8; ++i) {
      own_b[i] = from_b[(in_group * 4 + (i & 3) + (i >= 4 ? 16 : 0)) * 8 + group];
    }
    for (int i = 0; i < 4; ++i) a[i] = Pack(own_a + 4 * i);
    for (int i = 0; i < 2; ++i) b[i] = Pack(own_b + 4 * i);
  }

  __device__ static int At(int i) {
    const int group = static_cast<int>(threadIdx.x) >> 2;
    return (i < 2 ? group : group + 8) * 8 + static_cast<int>(threadIdx.x) % 4 * 2 + (i & 1);
  }
};

__global__ void MmaS8Kernel(const uint8_t* a, const uint8_t* b, int* c) {
  const ByteFragments own(a, b);
  const auto at = ByteFragments::At;
  const int4 d =
      ptx::MmaS8(own.a, own.b[0], own.b[1], make_int4(c[at(0)], c[at(1)], c[at(2)], c[at(3)]));
  c[at(0)] = d.x;
  c[at(1)] = d.y;
  c[at(2)] = d.z;
  c[at(3)] = d.w;
}

__global__ void MmaE4m3Kernel(const uint8_t* a, const uint8_t* b, float* c) {
  const ByteFragments own(a, b);
  const auto at = ByteFragments::At;
  const float4 d =
      ptx::MmaE4m3(own.a, own.b[0], own.b[1], make_float4(c[at(0)], c[at(1)], c[at(2)], c[at(3)]));
  c[at(0)] = d.x;
  c[at(1)] = d.y;
  c[at(2)] = d.z;
  c[at(3)] = d.w;
}

__global__ void MmaRegistersKernel(testing::MmaOp op, const uint32_t* a, const uint32_t* b,
                                   uint32_t* c) {
  using testing::MmaOp;
  a += threadIdx.x * 4;
  b += threadIdx.x * 2;
  c += threadIdx.x * 4;
  const uint32_t four[4] = {a[0], a[1], a[2], a[3]};
  const uint32_t two[2] = {a[0], a[1]};
  const float4 sums = make_float4(__uint_as_float(c[0]), __uint_as_float(c[1]),
                                  __uint_as_float(c[2]), __uint_as_float(c[3]));
  float4 d = sums;
  if (op == MmaOp::kF16K16) d = ptx::Mma<__half>(four, b[0], b[1], sums);
  if (op == MmaOp::kBf16K16) d = ptx::Mma<__nv_bfloat16>(four, b[0], b[1], sums);
  if (op == MmaOp::kF16K8) d = ptx::MmaK8<__half>(two, b[0], sums);
  if (op == MmaOp::kBf16K8) d = ptx::MmaK8<__nv_bfloat16>(two, b[0], sums);
  if (op == MmaOp::kE4m3K32) d = ptx::MmaE4m3(four, b[0], b[1], sums);
  c[0] = __float_as_uint(d.x);
  c[1] = __float_as_uint(d.y);
  c[2] = __float_as_uint(d.z);
  c[3] = __float_as_uint(d.w);
  if (op == MmaOp::kS8K32) {
    const int4 whole = ptx::MmaS8(four, b[0], b[1],
                                  make_int4(__float_as_int(sums.x), __float_as_int(sums.y),
                                            __float_as_int(sums.z), __float_as_int(sums.w)));
    c[0] = static_cast<uint32_t>(whole.x);
    c[1] = static_cast<uint32_t>(whole.y);
    c[2] = static_cast<uint32_t>(whole.z);
    c[3] = static_cast<uint32_t>(whole.w);
  }
}

template <int kMatrices, bool kTransposed>
__global__ void LoadMatricesKernel(const uint16_t* from, uint32_t* result) {
  __shared__ __align__(16) uint16_t tiles[kMatrices * 64];
  for (int i = static_cast<int>(threadIdx.x); i < kMatrices * 64; i += 32) tiles[i] = from[i];
  __syncwarp();
  // The addresses of lanes beyond the last matrix are not used.
  const void* row = tiles + threadIdx.x % (8 * kMatrices) * 8;
  uint32_t words[kMatrices];
  if constexpr (kTransposed) {
    ptx::LoadMatricesTransposed(words, row);
  } else {
    ptx::LoadMatrices(words, row);
  }
  for (int m = 0; m < kMatrices; ++m) {
    result[static_cast<int>(threadIdx.x) * kMatrices + m] = words[m];
  }
}

template <int kBytes>
__global__ void CopyAsyncKernel(const uint8_t* from, uint8_t* result) {
  __shared__ __align__(16) uint8_t copies[32 * kBytes];
  const int at = static_cast<int>(threadIdx.x) * kBytes;
  for (int i = 0; i < kBytes; ++i) copies[at + i] = 0xff;
  ptx::CopyAsync<kBytes>(copies + at, from + at, threadIdx.x % 3 != 0);
  ptx::CommitCopies();
  ptx::WaitForCopies<0>();
  for (int i = 0; i < kBytes; ++i) result[at + i] = copies[at + i];
}

__global__ void E4m3ToHalvesKernel(uint32_t* result) {
  for (int i = static_cast<int>(threadIdx.x); i < 256; i += 32) {
    result[i] = ptx::E4m3ToHalves(static_cast<uint16_t>(i | (255 - i) << 8));
  }
}

__global__ void BytePermKernel(const uint32_t* from, uint32_t* result) {
  const uint32_t* own = from + 3 * threadIdx.x;
  result[threadIdx.x] = __byte_perm(own[0], own[1], own[2]);
}

template <typename... P, typename... A>
cudaError_t StartWarp(void (*kernel)(P...), A... arguments) {
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(1);
  config.blockDim = dim3(32);
  return cudaLaunchKernelEx(&config, kernel, arguments...);
}

}  // namespace

namespace testing {

cudaError_t RunMma(MmaOp op, const void* a, const void* b, void* c) {
  const auto* a16 = static_cast<const uint16_t*>(a);
  const auto* b16 = static_cast<const uint16_t*>(b);
  const auto* a8 = static_cast<const uint8_t*>(a);
  const auto* b8 = static_cast<const uint8_t*>(b);
  switch (op) {
    case MmaOp::kF16K16:
      return StartWarp(MmaK16Kernel<__half>, a16, b16, static_cast<float*>(c));
    case MmaOp::kBf16K16:
      return StartWarp(MmaK16Kernel<__nv_bfloat16>, a16, b16, static_cast<float*>(c));
    case MmaOp::kF16K8:
      return StartWarp(MmaK8Kernel<__half>, a16, b16, static_cast<float*>(c));
    case MmaOp::kBf16K8:
      return StartWarp(MmaK8Kernel<__nv_bfloat16>, a16, b16, static_cast<float*>(c));
    case MmaOp::kS8K32:
      return StartWarp(MmaS8Kernel, a8, b8, static_cast<int*>(c));
    case MmaOp::kE4m3K32:
      return StartWarp(MmaE4m3Kernel, a8, b8, static_cast<float*>(c));
  }
  return cudaErrorInvalidValue;
}

cudaError_t RunMmaRegisters(MmaOp op, const uint32_t* a, const uint32_t* b, uint32_t* c) {
  return StartWarp(MmaRegistersKernel, op, a, b, c);
}

cudaError_t RunLoadMatrices(int matrices, bool transposed, const uint16_t* from, uint32_t* result) {
  const auto start = [&](auto plain, auto other) {
    return StartWarp(transposed ? other : plain, from, result);
  };
  if (matrices == 1) return start(LoadMatricesKernel<1, false>, LoadMatricesKernel<1, true>);
  if (matrices == 2) return start(LoadMatricesKernel<2, false>, LoadMatricesKernel<2, true>);
  return start(LoadMatricesKernel<4, false>, LoadMatricesKernel<4, true>);
}

cudaError_t RunCopyAsync(int bytes, const uint8_t* from, uint8_t* result) {
  const auto kernel = bytes == 4   ? CopyAsyncKernel<4>
                      : bytes == 8 ? CopyAsyncKernel<8>
                                   : CopyAsyncKernel<16>;
  return StartWarp(kernel, from, result);
}

cudaError_t RunE4m3ToHalves(uint32_t* result) { return StartWarp(E4m3ToHalvesKernel, result); }

cudaError_t RunBytePerm(const uint32_t* from, uint32_t* result) {
  return StartWarp(BytePermKernel, from, result);
}

}  // namespace testing
}  // namespace quern::kernels
