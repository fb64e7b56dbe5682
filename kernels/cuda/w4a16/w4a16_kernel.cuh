#pragma once

#include "kernels/cuda/common/ptx.cuh"
#include "kernels/cuda/w4a16/w4a16_fragments.cuh"
#include "kernels/cuda/w4a16/w4a16_launch.h"
#include "kernels/cuda/w4a16/w4a16_plan.h"

// y[r, c] = sum over k of x[r, k] * w[c, k] on tensor cores: the weights, widened in registers, are
// mma.sync's A operand (16 rows of w), x its B operand (8 rows of x): fewer rows waste tensor
// cores, which a product bound by memory does not need. All operands come through one pipeline of
// cp.async.
namespace quern::kernels {

template <typename T, W4Format kFormat, int kVariant>
class W4A16Block {
  static constexpr W4Variant kShape = kW4Variants[kVariant];
  static constexpr int kNt = kShape.batch_tiles;
  static constexpr int kMt = kShape.row_tiles;
  static constexpr int kWm = kShape.row_warps;
  static constexpr int kWk = kShape.k_warps;
  static constexpr int kStages = kShape.stages;
  static constexpr int kKt = kShape.col_tiles;
  static constexpr int kRecord = W4RecordBytes(kFormat);
  static constexpr int kPieces = kRecord / 16;  // copies that bring a record
  // Records of one row tile and stage: AWQ's covers two tiles.
  static constexpr int kRecords = kFormat == W4Format::kAwq ? 1 : kKt;
  static constexpr int kScalePieces = kMt * kRecords * kPieces;
  static constexpr int kParts = kMt * kNt;                       // float4 of sums per lane
  static constexpr int kOwnParts = (kParts + kWk - 1) / kWk;     // after the sum over warps
  static constexpr bool kScaleOnce = kFormat == W4Format::kAwq;  // for all columns of a stage
  static constexpr int kUnroll = kNt <= 2 ? 2 * kKt : 1;
  static_assert(kKt == 1 || kKt == 2, "a group of 128 columns is two tiles");
  static_assert(kWm == 1 || kWm % 2 == 0, "two row warps bring the halves of a tile of x");
  static_assert(kScalePieces <= 64, "two copies per lane bring a warp's scales");

  // Shared memory of one stage, for each warp along k, [lane] being 16 bytes: codes [row warp]
  // [row tile][column tile][lane], x [column tile][batch tile][half][lane], records [row warp].
  static constexpr int kCodeBytes = kWm * kMt * kKt * 512;
  static constexpr int kXBytes = kKt * kNt * 1024;
  static constexpr int kSlotBytes = kCodeBytes + kXBytes + kWm * kMt * kKt * kRecord;
  static_assert(kWk * kSlotBytes == kShape.stage_bytes(kRecord));

 public:
  __device__ W4A16Block(const W4A16Launch& launch, uint8_t* shared)
      : launch_(launch),
        shared_(shared),
        lane_(threadIdx.x % 32),
        row_warp_(threadIdx.x / 32 % kWm),
        k_warp_(threadIdx.x / 32 / kWm) {}

  __device__ void Run() {
    const W4Plan& plan = launch_.plan;
    const int begin = plan.Begin(blockIdx.x);
    const int count = plan.Begin(blockIdx.x + 1) - begin;
    int block = begin / plan.chunks;
    int chunk = begin % plan.chunks;

    // Prologue: weights do not depend on the grid before this one, x and the workspace do.
    Source source(*this, block, chunk);
#pragma unroll
    for (int i = 0; i < kStages - 1; ++i) {
      if (i < count) LoadWeights(source, i);
      source.Advance(*this);
    }
    ptx::LetNextGridBegin();
    ptx::WaitForPreviousGrid();
    source = Source(*this, block, chunk);
#pragma unroll
    for (int i = 0; i < kStages - 1; ++i) {
      if (i < count) LoadX(source, i);
      ptx::CommitCopies();
      source.Advance(*this);
    }

    // Main loop: one unit a turn, all of it in the pipeline; where a block of rows ends, its sums
    // leave while the next one's weights are under way.
    int first_chunk = chunk;
    int stage = 0;
    int free_stage = kStages - 1;
    Clear(sums_);
    for (int i = 0; i < count; ++i) {
      ptx::WaitForCopies<kStages - 2>();
      SyncSharers();
      if (i + kStages - 1 < count) {
        LoadWeights(source, free_stage);
        LoadX(source, free_stage);
        source.Advance(*this);
      }
      ptx::CommitCopies();
      Multiply(stage);
      free_stage = stage;
      stage = stage + 1 == kStages ? 0 : stage + 1;
      ++chunk;
      if (chunk == plan.chunks || i + 1 == count) {
        Finish(block, first_chunk, chunk);
        Clear(sums_);
        ++block;
        chunk = first_chunk = 0;
      }
    }
    ptx::WaitForCopies<0>();
  }

 private:
  // Where this lane's next pieces of a unit lie in global memory: moved on, not computed anew.
  struct Source {
    int block;
    int chunk;
    int col;  // of this lane's first piece of x
    const uint8_t* codes;
    const uint8_t* scales;
    const uint16_t* x;

    __device__ Source(const W4A16Block& self, int first_block, int first_chunk)
        : block(first_block), chunk(first_chunk) {
      Find(self);
    }

    __device__ void Find(const W4A16Block& self) {
      const W4A16Launch& launch = self.launch_;
      const int tile = (chunk * kWk + self.k_warp_) * kKt;
      const int64_t row_tile = static_cast<int64_t>(block * kWm + self.row_warp_) * kMt;
      codes = launch.codes + (row_tile * launch.col_tiles + tile) * 512 + self.lane_ * 16;
      scales = launch.scales + row_tile * launch.records * kRecord;
      col = tile * kW4TileCols + self.row_warp_ % 2 * 32 + self.lane_ % 4 * 8;
      x = launch.x + (self.row_warp_ / 2 * 8 + self.lane_ / 4) * launch.x_stride + col;
    }

    __device__ void Advance(const W4A16Block& self) {
      codes += kWk * kKt * 512;
      col += kWk * kKt * kW4TileCols;
      x += kWk * kKt * kW4TileCols;
      if (++chunk == self.launch_.plan.chunks) {
        chunk = 0;
        ++block;
        Find(self);
      }
    }
  };

  // A warp that shares no x with others waits for its own lanes only.
  __device__ void SyncSharers() {
    if constexpr (kWm == 1) {
      __syncwarp();
    } else {
      __syncthreads();
    }
  }

  __device__ uint8_t* Slot(int stage) const {
    return shared_ + (stage * kWk + k_warp_) * kSlotBytes;
  }

  // Tiles beyond the matrix are not read and become zeros, scales and all.
  __device__ void LoadWeights(const Source& source, int stage) {
    const int tile = (source.chunk * kWk + k_warp_) * kKt;
    const int rows_left = launch_.row_tiles - (source.block * kWm + row_warp_) * kMt;
    const int64_t row_stride = static_cast<int64_t>(launch_.col_tiles) * 512;
    uint8_t* codes = Slot(stage) + row_warp_ * kMt * kKt * 512 + lane_ * 16;
#pragma unroll
    for (int i = 0; i < kMt; ++i) {
#pragma unroll
      for (int t = 0; t < kKt; ++t) {
        ptx::CopyAsync16(codes + (i * kKt + t) * 512, source.codes + i * row_stride + t * 512,
                         i < rows_left && tile + t < launch_.col_tiles);
      }
    }
    uint8_t* scales = Slot(stage) + kCodeBytes + kXBytes + row_warp_ * kMt * kKt * kRecord;
    const int record = kFormat == W4Format::kAwq ? tile / 2 : tile;
#pragma unroll
    for (int piece = lane_; piece < (kScalePieces + 31) / 32 * 32; piece += 32) {
      if (kScalePieces % 32 != 0 && piece >= kScalePieces) break;
      const int i = piece / (kRecords * kPieces);
      const int within = piece % (kRecords * kPieces);
      const int64_t at = static_cast<int64_t>(i) * launch_.records + record;
      ptx::CopyAsync16(scales + piece * 16, source.scales + at * kRecord + within * 16,
                       i < rows_left && record + within / kPieces < launch_.records);
    }
  }

  // The rows of x in the B operand's order: lane (g, t) has row g, columns 8 t ... 8 t + 7 of half
  // a tile, which are the fragments of its two steps of 16 as the weights' layout orders them.
  __device__ void LoadX(const Source& source, int stage) {
    uint8_t* slot = Slot(stage) + kCodeBytes + row_warp_ * 512 + lane_ * 16;
    const int row = row_warp_ / 2 * 8 + lane_ / 4;
#pragma unroll
    for (int j = 0; j < (2 * kNt + kWm - 1) / kWm; ++j) {
      if (2 * kNt % kWm != 0 && j * kWm + row_warp_ >= 2 * kNt) break;
      const int down = j * kWm / 2 * 8;
#pragma unroll
      for (int t = 0; t < kKt; ++t) {
        const int right = (kWm == 1 ? j % 2 * 32 : 0) + t * kW4TileCols;
        ptx::CopyAsync16(slot + t * kNt * 1024 + j * kWm * 512,
                         source.x + down * launch_.x_stride + right,
                         row + down < launch_.batch && source.col + right < launch_.cols);
      }
    }
  }

  // Adds the stage's columns, 32 at a time. Where all of them share a scale, their products are
  // added up first. With many rows of x the loop is not unrolled: the compiler would turn its many
  // independent sums into chains of mma.sync that wait for themselves.
  __device__ void Multiply(int stage) {
    const uint8_t* slot = Slot(stage);
    const uint8_t* codes = slot + row_warp_ * kMt * kKt * 512 + lane_ * 16;
    const uint8_t* x = slot + kCodeBytes + lane_ * 16;
    const uint8_t* records = slot + kCodeBytes + kXBytes + row_warp_ * kMt * kKt * kRecord;
    const int swap = lane_ & 8;  // bytes: W4WordSwap
    TileScales<kFormat> scales[kMt];
    float4 parts[kParts];
    if constexpr (kScaleOnce) {
      LoadScales(records, 0, scales);
      Clear(parts);
    }
#pragma unroll kUnroll
    for (int half = 0; half < 2 * kKt; ++half) {
      if constexpr (!kScaleOnce) {
        LoadScales(records, half, scales);
        Clear(parts);
      }
      uint32_t a[kMt][2][4];
#pragma unroll
      for (int i = 0; i < kMt; ++i) {
        const uint2 words = *reinterpret_cast<const uint2*>(codes + (i * kKt + half / 2) * 512 +
                                                            (half % 2 * 8 ^ swap));
        Widen<T>(words.x, scales[i].Zero(0), scales[i].Zero(1), a[i][0]);
        Widen<T>(words.y, scales[i].Zero(0), scales[i].Zero(1), a[i][1]);
      }
      uint4 b[kNt];
#pragma unroll
      for (int n = 0; n < kNt; ++n) {
        const int at = (half / 2 * kNt + n) * 1024 + half % 2 * 512;
        b[n] = *reinterpret_cast<const uint4*>(x + at);
      }
      AddProducts(a, b, parts);
      if constexpr (!kScaleOnce) AddParts(parts, scales);
      if constexpr (kFormat == W4Format::kQ4_1) AddMinima(b, scales);
    }
    if constexpr (kScaleOnce) AddParts(parts, scales);
  }

  __device__ static void Clear(float4 (&values)[kParts]) {
#pragma unroll
    for (int i = 0; i < kParts; ++i) values[i] = make_float4(0, 0, 0, 0);
  }

  __device__ void LoadScales(const uint8_t* records, int half,
                             TileScales<kFormat> (&scales)[kMt]) const {
#pragma unroll
    for (int i = 0; i < kMt; ++i) {
      const int record = kScaleOnce ? i : i * kKt + half / 2;
      scales[i].Load(records + record * kRecord, lane_ / 4, half % 2);
    }
  }

  __device__ static void AddProducts(const uint32_t (&a)[kMt][2][4], const uint4 (&b)[kNt],
                                     float4 (&parts)[kParts]) {
#pragma unroll
    for (int step = 0; step < 2; ++step) {
#pragma unroll
      for (int n = 0; n < kNt; ++n) {
#pragma unroll
        for (int i = 0; i < kMt; ++i) {
          parts[i * kNt + n] = ptx::Mma<T>(a[i][step], step == 0 ? b[n].x : b[n].z,
                                           step == 0 ? b[n].y : b[n].w, parts[i * kNt + n]);
        }
      }
    }
  }

  __device__ void AddParts(const float4 (&parts)[kParts],
                           const TileScales<kFormat> (&scales)[kMt]) {
#pragma unroll
    for (int i = 0; i < kParts; ++i) {
      AddScaled(sums_[i], scales[i / kNt].scale[0], scales[i / kNt].scale[1], parts[i]);
    }
  }

  // Q4_1's minimum times the sum of x, which is a product with ones.
  __device__ void AddMinima(const uint4 (&b)[kNt], const TileScales<kFormat> (&scales)[kMt]) {
    constexpr uint32_t kOne = kOnes<T>;
    const uint32_t ones[4] = {kOne, kOne, kOne, kOne};
#pragma unroll
    for (int n = 0; n < kNt; ++n) {
      float4 x = ptx::Mma<T>(ones, b[n].x, b[n].y, make_float4(0, 0, 0, 0));
      x = ptx::Mma<T>(ones, b[n].z, b[n].w, x);
#pragma unroll
      for (int i = 0; i < kMt; ++i) {
        AddScaled(sums_[i * kNt + n], scales[i].minimum[0], scales[i].minimum[1], x);
      }
    }
  }

  // The sums of a block of rows over the chunks [begin, end): into y if these are all, else into
  // the workspace; the last thread block to bring its part adds the parts up.
  __device__ void Finish(int block, int begin, int end) {
    float4 own[kOwnParts];
    SumOverWarps(own);
    const W4Plan& plan = launch_.plan;
    if (begin != 0 || end != plan.chunks) {
      // A piece that begins inside a block is its thread block's first one, else its last one.
      Store(own, Stored(blockIdx.x, begin > 0));
      const int first = plan.Owner(block * plan.chunks);
      const int last = plan.Owner((block + 1) * plan.chunks - 1);
      if (!IsLastToArrive(first, last - first + 1)) return;
#pragma unroll
      for (int i = 0; i < kOwnParts; ++i) own[i] = make_float4(0, 0, 0, 0);
      for (int cta = first; cta <= last; ++cta) {
        AddStored(Stored(cta, cta > first), own);
      }
    }
    WriteOut(block, own);
  }

  // Which of the warps' parts is this warp's own number i once they are summed.
  __device__ int OwnPart(int i) const { return i * kWk + k_warp_; }
  __device__ static bool IsPart(int part) { return kParts % kWk == 0 || part < kParts; }

  // Adds the sums of the warps that split the columns; each of them gets some of the totals.
  __device__ void SumOverWarps(float4 (&own)[kOwnParts]) {
    if constexpr (kWk == 1) {
#pragma unroll
      for (int i = 0; i < kParts; ++i) own[i] = sums_[i];
    } else {
      float4* all = reinterpret_cast<float4*>(shared_ + kStages * kWk * kSlotBytes);
      __syncthreads();  // the memory's last reader is done
#pragma unroll
      for (int i = 0; i < kParts; ++i) all[k_warp_ * kPartSize + Place(i)] = sums_[i];
      __syncthreads();
#pragma unroll
      for (int i = 0; i < kOwnParts; ++i) {
        own[i] = make_float4(0, 0, 0, 0);
        if (!IsPart(OwnPart(i))) continue;
        const float4* part = all + Place(OwnPart(i));
#pragma unroll
        for (int k = 0; k < kWk; ++k) AddScaled(own[i], 1, 1, part[k * kPartSize]);
      }
    }
  }

  // The sums of a block of rows as float4 [part][row warp][lane], in shared and in global memory.
  static constexpr int kPartSize = kParts * kWm * 32;
  __device__ int Place(int part) const { return (part * kWm + row_warp_) * 32 + lane_; }

  __device__ float4* Stored(int cta, bool first_piece) const {
    return launch_.workspace + (static_cast<int64_t>(cta) * 2 + (first_piece ? 0 : 1)) * kPartSize;
  }

  __device__ void Store(const float4 (&own)[kOwnParts], float4* to) const {
#pragma unroll
    for (int i = 0; i < kOwnParts; ++i) {
      if (IsPart(OwnPart(i))) __stcg(to + Place(OwnPart(i)), own[i]);
    }
  }

  __device__ void AddStored(const float4* from, float4 (&own)[kOwnParts]) const {
#pragma unroll
    for (int i = 0; i < kOwnParts; ++i) {
      if (IsPart(OwnPart(i))) AddScaled(own[i], 1, 1, __ldcg(from + Place(OwnPart(i))));
    }
  }

  // Says that this thread block's part is stored. True for the last of `parts`: it sees all of
  // them. The counter is the first owner's: a thread block is the first owner of one split block at
  // most.
  __device__ bool IsLastToArrive(int first_owner, int parts) {
    __shared__ int arrived;
    __syncthreads();  // all have stored; fences are cumulative (PTX ISA, 8.9), so one thread's do
    if (threadIdx.x == 0) {
      __threadfence();
      arrived = atomicAdd(launch_.counters + first_owner, 1);
      if (arrived + 1 == parts) launch_.counters[first_owner] = 0;  // as the next launch expects it
      __threadfence();
    }
    __syncthreads();
    return arrived + 1 == parts;  // written again only after the next call's first barrier
  }

  __device__ void WriteOut(int block, const float4 (&own)[kOwnParts]) const {
    T* y = reinterpret_cast<T*>(launch_.y);
#pragma unroll
    for (int i = 0; i < kOwnParts; ++i) {
      const int part = OwnPart(i);
      if (!IsPart(part)) continue;
      const int64_t out =
          (static_cast<int64_t>(block) * kWm + row_warp_) * kMt * 16 + part / kNt * 16 + lane_ / 4;
      const int row = part % kNt * 8 + lane_ % 4 * 2;
      const auto put = [&](int r, int64_t c, float value) {
        if (r < launch_.batch && c < launch_.rows)
          y[r * launch_.y_stride + c] = RoundTo(value, T{});
      };
      put(row, out, own[i].x);
      put(row + 1, out, own[i].y);
      put(row, out + 8, own[i].z);
      put(row + 1, out + 8, own[i].w);
    }
  }

  const W4A16Launch& launch_;
  uint8_t* shared_;
  int lane_;
  int row_warp_;
  int k_warp_;
  float4 sums_[kParts];  // [row tile][batch tile]
};

}  // namespace quern::kernels
