#pragma once

#include <cstdint>

#include "quern/kernels/weight_types.h"

namespace quern::kernels {

// A weight matrix [rows, cols] laid out for SIMD: `lanes` rows (8 or 16) are a tile, and a tile's
// weights are interleaved so that one vector load brings the same columns of all its rows. No
// horizontal sums are needed, and a tile is one forward stream through memory. The last tile is
// filled up with zero rows.
//
// In a tile, quantised types go 32 columns (a group) at a time; R = lanes:
//   [d: R x f16] [m: R x f16, Q4_1 and Q5_1] [low: 16R bytes, 4-bit] [high: 4R bytes, the fifth
//   bits] Q8_0: [d: R x f16] [q: 32R signed bytes] K types per 256 columns: [d: R x f16] [dmin: R x
//   f16, not Q6_K], then eight times
//     Q4_K, Q5_K: [sc: R bytes] [mn: R bytes] [low] [high: Q5_K]     Q6_K: [sc: 2 x R bytes] [low]
//     [high: 8R bytes]
// Column pair s (0..15) of a group, row r, is the 16-bit lanes (r, h), h = column within the pair:
//   low: lane (r, h) of vector s / 4, bits 4 (s % 4)...; high: bit s of lane (r, h), or for Q6_K
//   bits 2 (s % 8)... of vector s / 8; q: byte (s, r, h).
// Float types: [col][row] of the stored type.
//
// `planes`, Q8_0 alone: the two halves of each byte lie apart, so that a screen can read the high
// ones alone (head_screen.h). q + 128 = 16 u + l; first come, for each tile, [d: groups x R x f16]
// [u: groups x 16R bytes], u as `low` above; after the last tile, for each, [l: groups x 16R
// bytes], l as `low` but with the nibbles of each byte the other way round, so that a mask alone
// joins them. In all, as many bytes as without.
struct PackedMatrix {
  WeightType type = WeightType::kF32;
  int lanes = 8;
  int64_t rows = 0;
  int64_t cols = 0;
  const uint8_t* data = nullptr;  // PackedBytes(), 64-byte aligned
  bool planes = false;

  int64_t tiles() const { return (rows + lanes - 1) / lanes; }
  // Of `planes`, bytes of a tile in the first part and in the second.
  int64_t high_tile_bytes() const { return cols / 32 * 18 * lanes; }
  int64_t low_tile_bytes() const { return cols / 32 * 16 * lanes; }
  // Where a tile's parts begin in the matrix's memory.
  int64_t high_offset(int64_t tile) const { return tile * high_tile_bytes(); }
  int64_t low_offset(int64_t tile) const {
    return tiles() * high_tile_bytes() + tile * low_tile_bytes();
  }
};

// Bytes of one tile of `lanes` rows and `cols` columns.
int64_t PackedTileBytes(WeightType type, int lanes, int64_t cols);

inline int64_t PackedBytes(const PackedMatrix& matrix) {
  return matrix.tiles() * PackedTileBytes(matrix.type, matrix.lanes, matrix.cols);
}

// Lays tiles [tile_begin, tile_end) out in `out` (the whole matrix's memory; matrix.data is not
// read) from the rows at `source` in GGUF's layout. Loses nothing: the stored numbers are moved,
// not converted. Tiles may be packed in any order and by different threads.
void PackTiles(const PackedMatrix& matrix, const void* source, int64_t tile_begin, int64_t tile_end,
               uint8_t* out);

// One row as float32, bit for bit what ref::DequantizeRow gives on the source. For embedding
// look-ups.
void UnpackRow(const PackedMatrix& matrix, int64_t row, float* out);

}  // namespace quern::kernels
