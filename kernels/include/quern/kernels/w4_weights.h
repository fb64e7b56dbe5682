#pragma once

#include <cstdint>
#include <string>

namespace quern::kernels {

// 4-bit weights for the GPU: which numbers a code q in 0..15 stands for.
enum class W4Format {
  kAwq,   // w = s * (q - z), groups of 128 columns, s binary16, z in 0..15 (AWQ, Lin et al. 2023)
  kQ4_0,  // w = d * (q - 8), groups of 32 columns, d binary16 (GGUF)
  kQ4_1,  // w = d * q + m, groups of 32 columns, d and m binary16 (GGUF)
};

inline constexpr int kW4TileRows = 16;
inline constexpr int kW4TileCols = 64;

constexpr int W4GroupCols(W4Format format) { return format == W4Format::kAwq ? 128 : 32; }

// Eight of sixteen lanes have their words' halves the other way round: where all read 8 of their 16
// bytes, sixteen of them meet every bank of shared memory once.
constexpr int W4WordSwap(int lane) { return lane & 8 ? 2 : 0; }

// A weight matrix [rows, cols] in the order in which W4A16MatMul reads it, so that a warp's 16-byte
// loads bring fragments of mma.sync's A operand, ready to be widened (the idea is Marlin's, Frantar
// et al. 2024). Tiles of 16 rows and 64 columns; the last ones are filled up with zero weights.
//
// codes   [row tile][column tile][lane: 32][word: 4] of uint32. With g = lane / 4, t = lane % 4,
//         word w ^ W4WordSwap(lane) holds the columns c = 32 (w / 2) + 8 t + 4 (w % 2) +
//         {0, 1, 2, 3} of its tile in nibbles p (even column) and p + 4 (odd column):
//         p = 0: row g, c + {0, 1}; p = 1: row g + 8, c + {0, 1}; p = 2: row g, c + {2, 3};
//         p = 3: row g + 8, c + {2, 3}.
// scales  records of uint16 per row tile, g = 0..7, the row r being g or g + 8:
//         kAwq   [group of 128][g] {s(g), z(g), s(g + 8), z(g + 8)}, z as an integer
//         kQ4_0  [column tile][g] {d(g), d(g + 8)} of its first 32 columns, then of its second
//         kQ4_1  [column tile][g] {d(g), m(g), d(g + 8), m(g + 8)} likewise
//
// The memory is the caller's: 16-byte aligned, W4CodeBytes and W4ScaleBytes long.
struct W4Matrix {
  W4Format format = W4Format::kQ4_0;
  int64_t rows = 0;
  int64_t cols = 0;
  const uint8_t* codes = nullptr;
  const uint16_t* scales = nullptr;

  int64_t row_tiles() const { return (rows + kW4TileRows - 1) / kW4TileRows; }
  int64_t col_tiles() const { return (cols + kW4TileCols - 1) / kW4TileCols; }
};

// What is wrong with the matrix's format and size, or "": cols must be a multiple of the group,
// and both at least 1 and below 2^30.
std::string CheckW4Shape(const W4Matrix& matrix);

// Of a matrix whose shape is right.
int64_t W4CodeBytes(const W4Matrix& matrix);
int64_t W4ScaleBytes(const W4Matrix& matrix);

// A layer as AutoAWQ's "gemm" version stores it: qweight [cols, rows / 8] and qzeros
// [cols / 128, rows / 8] with eight rows in an int32, row 8 j + {0, 2, 4, 6, 1, 3, 5, 7}[i] in bits
// 4 i; scales [cols / 128, rows] binary16. rows is a multiple of 8.
struct AwqTensors {
  const uint32_t* qweight;
  const uint32_t* qzeros;
  const uint16_t* scales;
};

// Lay row tiles [tile_begin, tile_end) out in `codes` and `scales` (the whole matrix's memory;
// matrix.codes and matrix.scales are not read). No GPU is needed. Nothing is lost: stored numbers
// are moved, not converted. Tiles may be done in any order and by different threads. The shape is
// right (CheckW4Shape), and for AWQ rows is a multiple of 8.
void RepackAwq(const W4Matrix& matrix, const AwqTensors& source, int64_t tile_begin,
               int64_t tile_end, uint8_t* codes, uint16_t* scales);
// `source` holds [rows, cols] in GGUF's layout of Q4_0 or Q4_1, as matrix.format says.
void RepackGguf(const W4Matrix& matrix, const void* source, int64_t tile_begin, int64_t tile_end,
                uint8_t* codes, uint16_t* scales);

// One row as float32 [cols]; of GGUF's formats bit for bit what ref::DequantizeRow gives on the
// source. Host memory.
void UnpackW4Row(const W4Matrix& matrix, int64_t row, float* out);

}  // namespace quern::kernels
