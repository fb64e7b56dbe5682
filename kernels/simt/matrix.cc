#include <array>
#include <bit>
#include <cstring>

#include "kernels/simt/float_formats.h"
#include "kernels/simt/machine.h"

// ldmatrix and mma.sync: fragments as the PTX ISA lays them out (9.7.14.5).
namespace quern::simt {
namespace {

constexpr int kRows = 16;      // of A and C
constexpr int kCols = 8;       // of B and C
constexpr int kMaxDepth = 32;  // columns of A

struct MmaShape {
  int depth;
  int bytes;  // of an element of A and B

  int per_register() const { return 4 / bytes; }
};

constexpr MmaShape ShapeOf(MmaKind kind) {
  switch (kind) {
    case MmaKind::kF16K8:
    case MmaKind::kBf16K8:
      return {8, 2};
    case MmaKind::kF16K16:
    case MmaKind::kBf16K16:
      return {16, 2};
    case MmaKind::kS8K32:
    case MmaKind::kE4m3K32:
      return {32, 1};
  }
  return {};
}

// Calls fn(row, column, register, element) for the lane's part of A: [16][depth].
template <typename Fn>
void ForA(MmaShape shape, int lane, Fn fn) {
  const int per = shape.per_register();
  const int steps = shape.depth / (4 * per);  // 1 or 2
  for (int i = 0; i < 2 * steps; ++i) {
    for (int j = 0; j < per; ++j) {
      fn(lane / 4 + i % 2 * 8, i / 2 * 4 * per + lane % 4 * per + j, i, j);
    }
  }
}

// Of B: [depth][8].
template <typename Fn>
void ForB(MmaShape shape, int lane, Fn fn) {
  const int per = shape.per_register();
  for (int i = 0; i < shape.depth / (4 * per); ++i) {
    for (int j = 0; j < per; ++j) fn(i * 4 * per + lane % 4 * per + j, lane / 4, i, j);
  }
}

uint32_t Element(MmaShape shape, uint32_t word, int j) {
  return shape.bytes == 2 ? word >> (16 * j) & 0xffffu : word >> (8 * j) & 0xffu;
}

struct MmaLane {
  MmaKind kind;
  MmaOperands* operands;
};

MmaOperands& OperandsOf(const Meeting& meeting, int lane) {
  return *static_cast<MmaLane*>(meeting.operands[static_cast<size_t>(lane)])->operands;
}

// C[row][column] of a lane's register i.
constexpr int RowOfC(int lane, int i) { return lane / 4 + i / 2 * 8; }
constexpr int ColOfC(int lane, int i) { return lane % 4 * 2 + i % 2; }

// Exact products, summed in float64 and rounded to float32 once. Tensor cores sum in an order and a
// width of their own: see docs/simt.md.
template <MmaKind kKind, FloatFormat kFormat>
void FinishFloat(Warp& /*warp*/, const Meeting& meeting) {
  constexpr MmaShape kShape = ShapeOf(kKind);
  std::array<std::array<double, kMaxDepth>, kRows> a;
  std::array<std::array<double, kCols>, kMaxDepth> b;
  for (int lane = 0; lane < kWarpLanes; ++lane) {
    const MmaOperands& one = OperandsOf(meeting, lane);
    ForA(kShape, lane, [&](int row, int col, int i, int j) {
      a[row][col] = static_cast<double>(Widen(kFormat, Element(kShape, one.a[i], j)));
    });
    ForB(kShape, lane, [&](int row, int col, int i, int j) {
      b[row][col] = static_cast<double>(Widen(kFormat, Element(kShape, one.b[i], j)));
    });
  }
  std::array<std::array<double, kCols>, kRows> sums{};
  for (int row = 0; row < kRows; ++row) {
    for (int k = 0; k < kShape.depth; ++k) {
      for (int col = 0; col < kCols; ++col) sums[row][col] += a[row][k] * b[k][col];
    }
  }
  for (int lane = 0; lane < kWarpLanes; ++lane) {
    for (int i = 0; i < 4; ++i) {
      uint32_t& c = OperandsOf(meeting, lane).c[i];
      c = std::bit_cast<uint32_t>(static_cast<float>(sums[RowOfC(lane, i)][ColOfC(lane, i)] +
                                                     static_cast<double>(std::bit_cast<float>(c))));
    }
  }
  ++Machine::Get().counts().mma;
}

// Sums wrap around, as without .satfinite.
void FinishInt8(Warp& /*warp*/, const Meeting& meeting) {
  constexpr MmaShape kShape = ShapeOf(MmaKind::kS8K32);
  std::array<std::array<int, kMaxDepth>, kRows> a;
  std::array<std::array<int, kCols>, kMaxDepth> b;
  for (int lane = 0; lane < kWarpLanes; ++lane) {
    const MmaOperands& one = OperandsOf(meeting, lane);
    ForA(kShape, lane, [&](int row, int col, int i, int j) {
      a[row][col] = static_cast<int8_t>(Element(kShape, one.a[i], j));
    });
    ForB(kShape, lane, [&](int row, int col, int i, int j) {
      b[row][col] = static_cast<int8_t>(Element(kShape, one.b[i], j));
    });
  }
  for (int lane = 0; lane < kWarpLanes; ++lane) {
    for (int i = 0; i < 4; ++i) {
      int sum = 0;
      for (int k = 0; k < kShape.depth; ++k) sum += a[RowOfC(lane, i)][k] * b[k][ColOfC(lane, i)];
      OperandsOf(meeting, lane).c[i] += static_cast<uint32_t>(sum);
    }
  }
  ++Machine::Get().counts().mma;
}

struct LoadLane {
  uint32_t* result;
  uintptr_t row;
  int matrices;
  bool transposed;
  Site site;
};

void FinishLoad(Warp& warp, const Meeting& meeting) {
  Machine& machine = Machine::Get();
  const auto lane_of = [&](int lane) -> LoadLane& {
    return *static_cast<LoadLane*>(meeting.operands[static_cast<size_t>(lane)]);
  };
  const LoadLane& any = lane_of(0);
  std::array<SharedLayout::Place, kWarpLanes> rows;
  for (int lane = 0; lane < 8 * any.matrices; ++lane) {
    const LoadLane& one = lane_of(lane);
    if (!machine.IsShared(one.row)) {
      machine.Fail(Fault::kOutOfBounds,
                   "ldmatrix: the row of lane " + std::to_string(lane) + " is not in shared memory",
                   one.site);
    }
    machine.CheckAligned(one.row, 16, Touch::kRead, one.site);
    rows[lane] = machine.FindShared(one.row, 16, Touch::kRead, one.site);
    if (machine.counts_traffic()) {
      warp.traffic.Add(lane, one.site, Space::kShared, false,
                       static_cast<uint64_t>(rows[lane].offset), 16);
    }
  }
  for (int lane = 0; lane < kWarpLanes; ++lane) {
    LoadLane& one = lane_of(lane);
    Thread& thread = *warp.lanes[static_cast<size_t>(lane)];
    for (int m = 0; m < any.matrices; ++m) {
      uint32_t word = 0;
      for (int j = 0; j < 2; ++j) {
        const int row = any.transposed ? lane % 4 * 2 + j : lane / 4;
        const int col = any.transposed ? lane / 4 : lane % 4 * 2 + j;
        const SharedLayout::Place& place = rows[m * 8 + row];
        machine.TouchShared(thread, place.offset + col * 2, 2, Touch::kRead, one.site);
        uint16_t element;
        std::memcpy(&element, place.memory + col * 2, 2);
        word |= uint32_t{element} << (16 * j);
      }
      one.result[m] = word;
    }
  }
  ++machine.counts().ldmatrix;
}

}  // namespace

void LoadMatrices(uint32_t* result, int matrices, bool transposed, const void* row, Where where) {
  LoadLane lane{result, reinterpret_cast<uintptr_t>(row), matrices, transposed,
                Program::SiteOf(__builtin_return_address(0))};
  Machine::Get().Meet(WarpOp::kLoadMatrix, 0xffffffffu, &lane, FinishLoad, "ldmatrix", where);
}

void Mma(MmaKind kind, MmaOperands& operands, Where where) {
  using FinishFn = void (*)(Warp&, const Meeting&);
  constexpr std::array<FinishFn, 6> kFinish = {
      FinishFloat<MmaKind::kF16K8, FloatFormat::kF16>,
      FinishFloat<MmaKind::kF16K16, FloatFormat::kF16>,
      FinishFloat<MmaKind::kBf16K8, FloatFormat::kBf16>,
      FinishFloat<MmaKind::kBf16K16, FloatFormat::kBf16>,
      FinishInt8,
      FinishFloat<MmaKind::kE4m3K32, FloatFormat::kE4m3>,
  };
  MmaLane lane{kind, &operands};
  Machine::Get().Meet(WarpOp::kMma, 0xffffffffu, &lane, kFinish[static_cast<size_t>(kind)],
                      "mma.sync", where);
}

}  // namespace quern::simt
