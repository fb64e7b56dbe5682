#pragma once

#include "kernels/cuda/common/convert.cuh"
#include "kernels/cuda/common/float16.cuh"
#include "kernels/cuda/common/matmul_groups.cuh"
#include "kernels/cuda/common/matmul_launch.h"
#include "kernels/cuda/common/ptx.cuh"
#include "kernels/cuda/common/row_source.cuh"

// y[r, c] = sum over k of x[r, k] * w[c, k] on tensor cores, for every kind of weights: a policy
// `Weights` says how they come from memory and become fragments. The weights are mma.sync's A
// operand (16 rows), x its B operand (8 rows of x): fewer rows waste tensor cores, which a product
// bound by memory does not need. Both come through one pipeline of cp.async that goes on across the
// tiles of y that a thread block works on.
//
// The order of a sum: four slices of the columns, each from its first group to its last, then the
// slices' sums in their order. It depends on the number of columns alone: not on the batch, the
// shape of the kernel, the device or timing. So a row of x gives the same bits in every batch.
//
// Grouped (grouped_matmul.h), each expert's rows of x have weights of their own: the rows that the
// batch tiles are made of, how many tiles there are and where they lie is found on the device. The
// sums are the same.
//
// Weights has
// - Out, y's type where that is not float32, and Acc, float4 or int4;
// - kGroupBytes, in shared memory, of 32 rows and one group of columns;
// - kBlockGroups, how many groups share a record: a slice holds whole blocks;
// - kRecordBytes, where records come apart from the groups (kBlockGroups is 8), else 0;
// - kScales, how many scales a group's sums have: 0, 1, or 2 of half a group each; kMinimum,
// whether
//   it also has a minimum;
// - Source<threads>, where a tile of rows of a matrix comes from: Seek; Load, which brings `count`
// groups, and
// a
//   record where one begins, and goes on to the groups behind them; Skip, which only goes on;
// - Tile, a group's fragments a[row tile][step][4], scale[scales][row tile][upper] and
//   minimum[row tile][upper], by Tile::Load. Row g of a fragment is row 2 g of the row tile, row
//   g + 8 (upper) is row 2 g + 1: so a lane gets neighbours of y;
// - Mma, and Result, which makes y of a sum.
namespace quern::kernels {

// By value: one load of 16 bytes.
__device__ __forceinline__ void Add(float4& sum, float4 part) { AddScaled(sum, 1, 1, part); }
__device__ __forceinline__ void Add(int4& sum, int4 part) {
  sum.x += part.x;
  sum.y += part.y;
  sum.z += part.z;
  sum.w += part.w;
}

template <typename Weights, int kShapeIndex, bool kGrouped>
class MatMulBlock {
  using Acc = typename Weights::Acc;
  using Out = typename Weights::Out;
  static constexpr MatMulShape kShape = kMatMulShapes[kShapeIndex];
  static constexpr int kNt = kShape.batch_tiles;
  static constexpr int kWm = kShape.row_warps;
  static constexpr int kWn = kShape.batch_warps;
  static constexpr int kWk = kShape.k_warps;
  static constexpr int kTeam = kShape.team();
  static constexpr int kGroups = kShape.groups;
  static constexpr int kStages = kShape.stages;
  static constexpr int kSlices = kMatMulSlices / kWk;  // of one warp
  static constexpr int kParts = 2 * kNt;               // [row tile][batch tile]
  static constexpr int kOwnParts = (kParts + kWk - 1) / kWk;
  static constexpr int kRows = kShape.rows();
  static constexpr int kBatch = kShape.batch();
  static constexpr int kXBytes = kShape.x_bytes();
  static constexpr int kTileBytes = kGroups * Weights::kGroupBytes;  // of one row warp
  static constexpr int kSlotBytes = kShape.slot_bytes(Weights::kGroupBytes);
  static constexpr int kRecords = kShape.records();  // of a row warp
  static constexpr int kRecordBytes = kRecords * kWm * Weights::kRecordBytes;
  static_assert(kWk == 1 || kWk == kMatMulSlices);
  static_assert(Weights::kRecordBytes == 0 || Weights::kBlockGroups == 8);

 public:
  __device__ MatMulBlock(const MatMulLaunch& launch, uint8_t* shared)
      : launch_(launch),
        shared_(shared),
        lane_(threadIdx.x % 32),
        row_warp_(threadIdx.x / 32 % kWm),
        batch_warp_(threadIdx.x / 32 / kWm % kWn),
        k_warp_(threadIdx.x / 32 / kTeam) {}

  __device__ void Run() {
    if constexpr (kGrouped) {
      ptx::LetNextGridBegin();
      ptx::WaitForPreviousGrid();
      tiles_ = GroupTilesBefore<kBatch>(launch_, launch_.experts);
      Cursor source(*this);
      for (int i = 0; i < kStages - 1; ++i) {
        LoadNext(source, i);
        ptx::CommitCopies();
      }
      Work(source);
    } else {
      // Weights do not depend on the grid before this one, x does.
      Cursor source(*this);
      Cursor ahead = source;
      for (int i = 0; i < kStages - 1; ++i) LoadNext<true, false>(ahead, i);
      ptx::LetNextGridBegin();
      ptx::WaitForPreviousGrid();
      for (int i = 0; i < kStages - 1; ++i) {
        LoadNext<false, true>(source, i);
        ptx::CommitCopies();
      }
      Work(source);
    }
  }

 private:
  struct Cursor;

  // All tiles of this thread block; the first stages are on their way.
  __device__ __forceinline__ void Work(Cursor& source) const {
    int stage = 0;
    int free_stage = kStages - 1;
    int record = kRecords - 1;
    for (int tile = blockIdx.x; tile < Tiles(); tile += gridDim.x) {
      Acc sums[kParts];
      for (int slice = k_warp_ * kSlices; slice < (k_warp_ + 1) * kSlices; ++slice) {
        Clear(sums);
        const int end = SliceBegin(slice + 1);
        for (int group = SliceBegin(slice); group < end; group += kGroups) {
          ptx::WaitForCopies<kStages - 2>();
          SyncTeam();  // the stage is there for all, and all have left the one before it
          LoadNext(source, free_stage);
          ptx::CommitCopies();
          if (group % Weights::kBlockGroups == 0) record = NextRecord(record);
          Multiply(stage, record, group, min(kGroups, end - group), sums);
          free_stage = stage;
          stage = stage + 1 == kStages ? 0 : stage + 1;
        }
        if constexpr (kWk == 1) AddSlice(tile, slice, sums);
      }
      if constexpr (kWk > 1) SumSlices(tile, sums);
    }
    ptx::WaitForCopies<0>();
  }

  __device__ __forceinline__ int Tiles() const {
    if constexpr (kGrouped) {
      return tiles_;
    } else {
      return launch_.tiles;
    }
  }
  __device__ __forceinline__ MatMulPlace Find(int tile) const {
    if constexpr (kGrouped) {
      return FindGroupTile<kBatch>(launch_, tile, lane_);
    } else {
      const int tiles = launch_.batch_tiles;
      return tiles == 1 ? MatMulPlace{0, tile, 0}
                        : MatMulPlace{0, tile / tiles, tile % tiles * kBatch};
    }
  }
  // Whether row r of y, one of its tiles', is to be written.
  __device__ __forceinline__ bool HasRow(int r) const {
    if constexpr (kGrouped) {
      return launch_.row_pairs[r] >= 0;
    } else {
      return r < launch_.batch;
    }
  }

  // The stages of this warp, one after the other, across slices and tiles.
  struct Cursor {
    int tile;
    int slice;
    int group;
    int end;
    int record = kRecords - 1;
    typename Weights::template Source<32 * kWn> weights;
    std::conditional_t<kGrouped, GatheredRows<kNt * kWn, 32 * kTeam>,
                       RowSource<kNt * kWn, 32 * kTeam, false>>
        x;

    __device__ explicit Cursor(const MatMulBlock& self)
        : tile(blockIdx.x), slice(self.k_warp_ * kSlices - 1), group(0), end(0) {
      FindSlice(self);
    }
    // The next slice that is not empty; beyond the last one `tile` is no tile of y.
    __device__ void FindSlice(const MatMulBlock& self) {
      do {
        if (++slice == (self.k_warp_ + 1) * kSlices) {
          slice = self.k_warp_ * kSlices;
          tile += gridDim.x;
        }
        group = self.SliceBegin(slice);
        end = self.SliceBegin(slice + 1);
      } while (group == end && tile < self.Tiles());
      if (tile >= self.Tiles()) return;
      const MatMulLaunch& launch = self.launch_;
      const MatMulPlace place = self.Find(tile);
      const uint8_t* matrix = launch.weights;
      if constexpr (kGrouped) matrix += place.expert * launch.expert_bytes;
      weights.Seek(launch, matrix, place.row_tile * kWm + self.row_warp_, group,
                   self.WeightThread());
      if constexpr (kGrouped) {
        x.Seek(launch, place.row, group, self.TeamThread());
      } else {
        x.Seek(launch.x, launch.x_stride, place.row, launch.batch, group, launch.row_bytes,
               self.TeamThread());
      }
    }
  };

  __device__ int WeightThread() const { return batch_warp_ * 32 + lane_; }
  __device__ int TeamThread() const { return threadIdx.x % (32 * kTeam); }

  __device__ int SliceBegin(int slice) const {
    constexpr int kBlock = Weights::kBlockGroups;
    return MatMulSliceBegin((launch_.groups + kBlock - 1) / kBlock, slice) * kBlock;
  }

  __device__ void SyncTeam() const {
    if constexpr (kTeam == 1) {
      __syncwarp();
    } else if constexpr (kWk == 1) {
      __syncthreads();
    } else {
      ptx::SyncBarrier(1 + k_warp_, 32 * kTeam);
    }
  }

  // Shared memory of a warp along k: stages of x [group][sub-tile] and weights [row warp], then
  // records [row warp].
  __device__ uint8_t* Slot(int stage) const {
    return shared_ + k_warp_ * (kStages * kSlotBytes + kRecordBytes) + stage * kSlotBytes;
  }
  __device__ uint8_t* Record(int record) const {
    return Slot(kStages) + (record * kWm + row_warp_) * Weights::kRecordBytes;
  }

  __device__ static int NextRecord(int record) { return record + 1 == kRecords ? 0 : record + 1; }

  // Brings a stage, or a part of it: the prologue's weights may come before its x.
  template <bool kWeights = true, bool kX = true>
  __device__ void LoadNext(Cursor& source, int stage) const {
    if (source.tile >= Tiles()) return;
    if (source.group % Weights::kBlockGroups == 0) source.record = NextRecord(source.record);
    const int count = min(kGroups, source.end - source.group);
    uint8_t* slot = Slot(stage);
    if constexpr (kWeights) {
      source.weights.template Load<kGroups>(slot + kXBytes + row_warp_ * kTileBytes,
                                            Record(source.record), source.group, count,
                                            WeightThread());
    } else {
      source.weights.template Skip<kGroups>(source.group);
    }
    if constexpr (kX) {
#pragma unroll
      for (int q = 0; q < kGroups; ++q) {
        if (q < count) source.x.Load(slot + q * (kXBytes / kGroups), q, TeamThread());
      }
    }
    source.x.Advance(kGroups);
    source.group += kGroups;
    if (source.group >= source.end) source.FindSlice(*this);
  }

  // Adds the stage's groups.
  __device__ void Multiply(int stage, int record, int group, int count, Acc (&sums)[kParts]) const {
    const uint8_t* slot = Slot(stage);
    const uint8_t* weights = slot + kXBytes + row_warp_ * kTileBytes;
    const uint8_t* x = slot + batch_warp_ * kNt * 512 + RowPlace(lane_ % 8, lane_ / 8);
#pragma unroll
    for (int q = 0; q < kGroups; ++q) {
      if (q >= count) break;
      typename Weights::Tile tile;
      tile.Load(weights + q * Weights::kGroupBytes, Record(record),
                (group + q) % Weights::kBlockGroups, lane_);
#pragma unroll
      for (int n = 0; n < kNt; ++n) {
        uint32_t b[4];
        ptx::LoadMatrices(b, x + q * (kXBytes / kGroups) + n * 512);
        AddGroup(tile, b, sums[n], sums[kNt + n]);
      }
    }
  }

  // A group's products, of both row tiles with 8 rows of x.
  __device__ static void AddGroup(const typename Weights::Tile& tile, const uint32_t (&b)[4],
                                  Acc& sum0, Acc& sum1) {
    if constexpr (Weights::kScales == 0) {
#pragma unroll
      for (int step = 0; step < 2; ++step) {
        sum0 = Weights::Mma(tile.a[0][step], b[2 * step], b[2 * step + 1], sum0);
        sum1 = Weights::Mma(tile.a[1][step], b[2 * step], b[2 * step + 1], sum1);
      }
    } else {
      Acc* const sums[2] = {&sum0, &sum1};
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        Acc part = {};
#pragma unroll
        for (int step = 0; step < 2; ++step) {
          part = Weights::Mma(tile.a[i][step], b[2 * step], b[2 * step + 1], part);
          if (Weights::kScales == 1 && step == 0) continue;
          const int s = Weights::kScales == 1 ? 0 : step;
          AddScaled(*sums[i], tile.scale[s][i][0], tile.scale[s][i][1], part);
          part = Acc{};
        }
      }
      if constexpr (Weights::kMinimum) {  // times the sum of x, which is a product with ones
        constexpr uint32_t kOne = kOnes<Out>;
        const uint32_t ones[4] = {kOne, kOne, kOne, kOne};
        Acc total = Weights::Mma(ones, b[0], b[1], Acc{});
        total = Weights::Mma(ones, b[2], b[3], total);
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          AddScaled(*sums[i], tile.minimum[i][0], tile.minimum[i][1], total);
        }
      }
    }
  }

  template <int kCount>
  __device__ static void Clear(Acc (&values)[kCount]) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) values[i] = Acc{};
  }

  // Behind the pipeline: sums [k warp][part][thread of the team].
  static constexpr int kPartSize = kTeam * 32;
  __device__ Acc* Sums() const {
    return reinterpret_cast<Acc*>(shared_ + kWk * (kStages * kSlotBytes + kRecordBytes)) +
           TeamThread();
  }

  // Adds a slice's sums to those of the ones before it, which a thread keeps for itself in shared
  // memory: registers are short. The last slice's totals go to y.
  __device__ void AddSlice(int tile, int slice, const Acc (&sums)[kParts]) const {
    MatMulPlace place{};
    if (slice + 1 == kMatMulSlices) place = Find(tile);
#pragma unroll
    for (int i = 0; i < kParts; ++i) {
      Acc total = {};
      if (slice > 0) total = Sums()[i * kPartSize];
      Add(total, sums[i]);
      if (slice + 1 < kMatMulSlices) {
        Sums()[i * kPartSize] = total;
      } else {
        WritePart(place, i, total);
      }
    }
  }

  // Adds the sums of the warps that have a slice each; each of them gets some of the totals.
  __device__ void SumSlices(int tile, const Acc (&sums)[kParts]) const {
    const MatMulPlace place = Find(tile);
    __syncthreads();  // the memory's last reader is done
#pragma unroll
    for (int i = 0; i < kParts; ++i) Sums()[(k_warp_ * kParts + i) * kPartSize] = sums[i];
    __syncthreads();
#pragma unroll
    for (int i = 0; i < kOwnParts; ++i) {
      const int part = i * kWk + k_warp_;
      if (kParts % kWk != 0 && part >= kParts) break;
      Acc total = {};
#pragma unroll
      for (int k = 0; k < kWk; ++k) Add(total, Sums()[(k * kParts + part) * kPartSize]);
      WritePart(place, part, total);
    }
  }

  __device__ void WritePart(const MatMulPlace& place, int part, const Acc& sums) const {
    const int c = place.row_tile * kRows + row_warp_ * 32 + part / kNt * 16 + lane_ / 4 * 2;
    const int r = place.row + batch_warp_ * kNt * 8 + part % kNt * 8 + lane_ % 4 * 2;
    WritePair(r, c, sums.x, sums.z);
    WritePair(r + 1, c, sums.y, sums.w);
  }

  // y[r][c] and the next, in one piece where that is possible.
  template <typename Sum>
  __device__ void WritePair(int r, int c, Sum first, Sum second) const {
    if (c >= launch_.rows || !HasRow(r)) return;
    const int64_t at = r * launch_.y_stride + c;
    const bool alone = c + 1 == launch_.rows;
    const float one = Weights::Result(launch_, r, c, first);
    const float two = alone ? 0 : Weights::Result(launch_, r, c + 1, second);
    if (launch_.y_float32) {
      float* y = static_cast<float*>(launch_.y) + at;
      if (launch_.y_pairs && !alone) {
        *reinterpret_cast<float2*>(y) = make_float2(one, two);
      } else {
        y[0] = one;
        if (!alone) y[1] = two;
      }
    } else {
      Out* y = static_cast<Out*>(launch_.y) + at;
      if (launch_.y_pairs && !alone) {
        *reinterpret_cast<uint32_t*>(y) = NarrowPair<Out>(one, two);
      } else {
        y[0] = RoundTo(one, Out{});
        if (!alone) y[1] = RoundTo(two, Out{});
      }
    }
  }

  const MatMulLaunch& launch_;
  uint8_t* shared_;
  int lane_;
  int row_warp_;
  int batch_warp_;
  int k_warp_;
  int tiles_ = 0;  // grouped: of y, in use
};

}  // namespace quern::kernels
