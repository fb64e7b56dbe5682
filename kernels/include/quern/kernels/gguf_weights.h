#pragma once

#include <cstdint>
#include <string>

#include "quern/kernels/weight_types.h"

namespace quern::kernels {

inline constexpr int kGgufTileRows = 32;

// A weight matrix [rows, cols] of one of GGUF's types Q4_0, Q4_1, Q5_0, Q8_0, Q4_K, Q6_K in the
// order in which GgufMatMul reads it: the same numbers in the same number of bytes, only that rows
// are filled up to a multiple of 32 with weights of zero. 16-byte pieces bring fragments of
// mma.sync's A operand (the idea is Marlin's, Frantar et al. 2024).
//
// data    [row tile of 32][block], a block being 32 columns, or 256 for Q4_K and Q6_K: the codes of
//         each group of 32 columns, then the block's record.
//
// Codes of a group. Row R and column C of it are row tile i = R / 16, g = R / 2 % 8, u = R % 2, and
// step s = C / 16, h = C / 8 % 2, t = C / 2 % 4, e = C % 2; the lane is 4 g + t, and r = u + 2 h.
//   8 bits  byte  512 i + 16 lane + 8 s + 4 h + u + 2 e
//   low 4   byte  16 lane + 4 (2 i + s) + r / 2 + 2 e, its nibble r % 2
//   5th     of the uint32 at 512 + 4 lane, bit 8 i + 4 s + r + 16 e
//   5th, 6th  of the uint32 at 512 + 8 lane + 4 i, bits 8 s + 2 r + 16 e and the next
// Record. P[i][g] is a pair of binary16, of the rows 16 i + 2 g and the next; B[g] four bytes, of
// the rows 2 g, 2 g + 1, 2 g + 16, 2 g + 17.
//   Q4_0, Q5_0, Q8_0  P d          Q4_1  P d, P m
//   Q4_K  P d, P dmin; for each of 8 groups B (scale % 16 + minimum % 16 * 16); for each of 4 pairs
//   of
//         groups B: two bits each of the first one's scale / 16, minimum / 16, and the second one's
//   Q6_K  for each of 8 groups, for each 16 columns, B scale; P d
struct GgufMatrix {
  WeightType type = WeightType::kQ8_0;
  int64_t rows = 0;
  int64_t cols = 0;
  const uint8_t* data = nullptr;  // 16-byte aligned, GgufBytes(*this) long

  int64_t row_tiles() const { return (rows + kGgufTileRows - 1) / kGgufTileRows; }
};

// What is wrong with the type and shape, or "": cols must be a multiple of 32, or 256 for Q4_K and
// Q6_K, and both at least 1 and below 2^29.
std::string CheckGgufShape(const GgufMatrix& matrix);

// Bytes of a matrix whose shape is right: as in GGUF, of rows filled up to a multiple of 32.
int64_t GgufBytes(const GgufMatrix& matrix);

// Lays row tiles [tile_begin, tile_end) out in `data` (the whole matrix's memory; matrix.data is
// not read); `source` holds [rows, cols] in GGUF's layout. No GPU is needed; nothing is lost. Tiles
// may be done in any order and by different threads. The shape is right.
void PackGgufTiles(const GgufMatrix& matrix, const void* source, int64_t tile_begin,
                   int64_t tile_end, uint8_t* data);

// One row as float32 [cols]; bit for bit what ref::DequantizeRow gives on the source. Host memory.
void UnpackGgufRow(const GgufMatrix& matrix, int64_t row, float* out);

}  // namespace quern::kernels
