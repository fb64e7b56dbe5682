#pragma once

#include <type_traits>

#include "kernels/cuda/common/convert.cuh"
#include "kernels/cuda/common/ptx.cuh"
#include "kernels/cuda/common/words.cuh"
#include "quern/kernels/device_kv.h"

// From the cache's codes, as words of shared memory, to pairs of 16-bit floats for mma.sync's B
// operand.
namespace quern::kernels {

template <typename T>
__device__ __forceinline__ uint32_t SubtractPairs(uint32_t a, uint32_t b) {
  using Pair = Pair16<T>;
  const Pair result = __hsub2(*reinterpret_cast<Pair*>(&a), *reinterpret_cast<Pair*>(&b));
  return *reinterpret_cast<const uint32_t*>(&result);
}
template <typename T>
__device__ __forceinline__ uint32_t MultiplyPairs(uint32_t a, uint32_t b) {
  using Pair = Pair16<T>;
  const Pair result = __hmul2(*reinterpret_cast<Pair*>(&a), *reinterpret_cast<Pair*>(&b));
  return *reinterpret_cast<const uint32_t*>(&result);
}

// Four signed bytes as whole numbers: (0, 2) and (1, 3). A 16-bit float with a fixed exponent
// carries a small integer in its mantissa (Kim et al. 2022, section 3).
template <typename T>
__device__ __forceinline__ void WidenInt8(uint32_t codes, uint32_t (&pairs)[2]) {
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const uint32_t bytes = codes >> (8 * i);
    if constexpr (std::is_same_v<T, __half>) {
      // 1024 + 128 + code, less 1152.
      pairs[i] =
          SubtractPairs<T>(ptx::AndOr(bytes ^ 0x00800080, 0x00ff00ff, 0x64006400), 0x64806480);
    } else {
      // 128 + its low seven bits, less 128, or 256 where the eighth one is set, which is the lowest
      // bit of the exponent.
      pairs[i] = SubtractPairs<T>(ptx::AndOr(bytes, 0x007f007f, 0x43004300),
                                  ptx::AndOr(bytes, 0x00800080, 0x43004300));
    }
  }
}

// Whether the GPU converts E4M3 itself. The emulator takes the way of those that do not.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
inline constexpr bool kConvertsE4m3 = true;
#else
inline constexpr bool kConvertsE4m3 = false;
#endif

// Four numbers of E4M3: (0, 2) and (1, 3). Its exponent and fraction, moved to where a wider format
// has its own, are the number times a power of two, subnormals included.
template <typename T>
__device__ __forceinline__ void WidenE4m3(uint32_t codes, uint32_t (&pairs)[2]) {
  if constexpr (kConvertsE4m3) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const uint32_t bytes = __byte_perm(codes, 0, i == 0 ? 0x4420 : 0x4431);
      pairs[i] = ptx::E4m3ToHalves(static_cast<uint16_t>(bytes));
      if constexpr (!std::is_same_v<T, __half>) {
        const float2 values = WidenPair<__half>(pairs[i]);
        pairs[i] = NarrowPair<T>(values.x, values.y);
      }
    }
    return;
  }
  constexpr bool kHalf = std::is_same_v<T, __half>;
  constexpr uint32_t kFactor = kHalf ? 0x5c005c00 : 0x7b807b80;  // 2^8, 2^120
  const uint32_t nans = ((codes & 0x7f7f7f7f) + 0x01010101) & 0x80808080;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const uint32_t bytes = i == 0 ? codes << 8 : codes;
    const uint32_t magnitude = (bytes & 0x7f007f00) >> (kHalf ? 1 : 4);
    pairs[i] = MultiplyPairs<T>(ptx::AndOr(bytes, 0x80008000, magnitude), kFactor);
    if (nans != 0) {
      const uint32_t nan = (i == 0 ? nans << 8 : nans) & 0x80008000;
      pairs[i] |= (nan >> 15) * 0x7fff;
    }
  }
}

// Four bytes of two indices of kInt4Levels each as whole numbers: the low halves of the bytes (0,
// 2), of (1, 3), and the high ones of both. A level's sign is its index's fourth bit.
template <typename T>
__device__ __forceinline__ void WidenInt4(uint32_t codes, uint32_t (&pairs)[4]) {
  constexpr uint32_t kLow = 0x2c1f1206;                                           // 6, 18, 31, 44
  constexpr uint32_t kHigh = 0x7f604b3a;                                          // 58, 75, 96, 127
  constexpr uint32_t kOne = std::is_same_v<T, __half> ? 0x64006400 : 0x43004300;  // 1024, 128
  const uint32_t negative = ~codes;
  // 7 - index below 8, index - 8 from there on.
  const uint32_t index = (codes ^ ((negative >> 3 & 0x11111111) * 7)) & 0x77777777;
  const uint32_t first = __byte_perm(kLow, kHigh, index);  // of bytes 0 and 1: low, high, low, high
  const uint32_t second = __byte_perm(kLow, kHigh, index >> 16);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int byte = i % 2 * 2 + i / 2;
    const uint32_t both = __byte_perm(first, second, static_cast<uint32_t>((4 + byte) << 8 | byte));
    const uint32_t sign = negative << (12 - 8 * (i % 2) - 4 * (i / 2)) & 0x80008000;
    pairs[i] = SubtractPairs<T>(ptx::AndOr(both, 0x00ff00ff, kOne), kOne) ^ sign;
  }
}

// Whole numbers times a pair of binary16 scales, rounded once.
template <typename T>
__device__ __forceinline__ uint32_t ScalePairs(uint32_t codes, uint32_t scales) {
  if constexpr (std::is_same_v<T, __half>) {
    return MultiplyPairs<T>(codes, scales);
  } else {
    const float2 values = WidenPair<T>(codes);
    return NarrowPair<T>(values.x * WidenHalf(scales & 0xffff), values.y * WidenHalf(scales >> 16));
  }
}

// How a tile of K lies in shared memory: rows of codes, whose pieces of 16 bytes change places so
// that lanes that read together meet no bank twice. Lane (g, t) reads, of token g and each 32
// elements, those from 8 t on, which are the B operands of two steps: elements 4 s and 4 s + 1 of
// them (4 s and 4 s + 2 of 8-bit codes), then the other two.
template <typename T, DeviceKvFormat kFormat, int kHeadDim>
struct KeyTile {
  static constexpr DeviceKvFormat kKey = DeviceKeyFormat(kFormat);
  static constexpr int kRowBytes = DeviceKvRowBytes(kKey, kHeadDim);
  static constexpr int kPieces = kRowBytes / 16;
  static constexpr bool kScaled = HasGroupScales(kKey);
  static constexpr bool kBytes = kKey != DeviceKvFormat::k16Bit;

  __device__ static int Place(int row, int piece) {
    int swap;
    if constexpr (!kBytes) {
      swap = row % 2 * 4;
    } else if constexpr (kHeadDim == 64) {
      swap = row / 2 % 2 * 2;
    } else {
      swap = row % 4 * 2;
    }
    return row * kRowBytes + (piece ^ swap) * 16;
  }

  __device__ static void Load(const uint8_t* tile, int row, int block, int t, uint32_t (&b)[4]) {
    if constexpr (!kBytes) {
      LoadBytes<16>(tile + Place(row, block * 4 + t), b);
    } else {
      uint32_t codes[2];
      LoadBytes<8>(tile + Place(row, block * 2 + t / 2) + t % 2 * 8, codes);
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        uint32_t pairs[2];
        if constexpr (kScaled) {
          WidenInt8<T>(codes[i], pairs);
        } else {
          WidenE4m3<T>(codes[i], pairs);
        }
        b[2 * i] = pairs[0];
        b[2 * i + 1] = pairs[1];
      }
    }
  }
};

// A tile of V: matrices of 8 tokens by 16 bytes, which ldmatrix transposes in units of 16 bits; one
// holds kColumns tiles of 8 columns. Column c of such a tile j is element 8 j + c for 16 bits; of
// narrower codes the tiles 2 p and 2 p + 1 share 16 elements, 2 c and 2 c + 1 of them.
template <typename T, DeviceKvFormat kFormat, int kHeadDim>
struct ValueTile {
  static constexpr int kRowBytes = DeviceKvRowBytes(kFormat, kHeadDim);
  static constexpr int kPieces = kRowBytes / 16;
  static constexpr bool kScaled = HasGroupScales(kFormat);
  static constexpr int kColumns = kHeadDim / 8 / kPieces;
  static constexpr bool kPaired = kColumns > 1;

  __device__ static int Place(int row, int piece) {
    constexpr int kRowsPerLine = kRowBytes >= 128 ? 1 : 128 / kRowBytes;
    constexpr int kSwaps = kPieces < 8 ? kPieces : 8;
    return row * kRowBytes + (piece ^ (row / kRowsPerLine % kSwaps)) * 16;
  }

  // One register of a transposed matrix, tokens 2 t and 2 t + 1, as pairs for each of its tiles.
  __device__ static void Widen(uint32_t codes, uint32_t scales, uint32_t (&b)[kColumns]) {
    if constexpr (kFormat == DeviceKvFormat::k16Bit) {
      b[0] = codes;
    } else if constexpr (kFormat == DeviceKvFormat::kE4m3) {
      WidenE4m3<T>(codes, b);
    } else {
      if constexpr (kFormat == DeviceKvFormat::kInt8) WidenInt8<T>(codes, b);
      if constexpr (kFormat == DeviceKvFormat::kInt4) WidenInt4<T>(codes, b);
#pragma unroll
      for (int j = 0; j < kColumns; ++j) b[j] = ScalePairs<T>(b[j], scales);
    }
  }
};

}  // namespace quern::kernels
