#pragma once

#include "kernels/cuda/attention/attention_rows.cuh"

// Attention over paged K and V on tensor cores. A warp has 16 rows, each a query head of a query,
// and takes K and V a step of tokens at a time with a running maximum and sum (Dao 2023): scores
// are mma.sync of rows and K, their weights the A operand of the product with V. Nothing but K, V
// and Q passes through shared memory. Decode: four warps share the rows and take the steps in turn,
// each with a pipeline of its own, and meet at the end. Prefill: four warps of different rows share
// the steps.
namespace quern::kernels {

template <typename T, int kHeadDim, DeviceKvFormat kFormat, bool kDecode>
class PagedAttentionBlock {
  using Shape = AttentionShape<T, kHeadDim, kFormat, kDecode>;
  using Keys = typename Shape::Keys;
  using Values = typename Shape::Values;
  static constexpr int kStep = Shape::kStep;
  static constexpr int kStages = Shape::kStages;
  static constexpr int kTokenWarps = Shape::kTokenWarps;
  static constexpr int kLoaders = kDecode ? 32 : Shape::kThreads;  // threads that share a pipeline
  static constexpr int kTiles = kHeadDim / 8;                      // of sums
  static constexpr int kOwnTiles = kTiles / kTokenWarps;           // after the sum over warps

 public:
  __device__ PagedAttentionBlock(const DeviceAttentionLaunch& launch, uint8_t* shared)
      : launch_(launch),
        shared_(shared),
        lane_(static_cast<int>(threadIdx.x) % 32),
        row_warp_(kDecode ? 0 : static_cast<int>(threadIdx.x) / 32),
        token_warp_(kDecode ? static_cast<int>(threadIdx.x) / 32 : 0),
        kv_head_(static_cast<int>(blockIdx.y)) {}

  __device__ void Run() {
    if (!FindWork()) return;
    AttentionRows<T, kHeadDim, kFormat, kDecode> rows(launch_, work_, kv_head_, row_warp_ * 16,
                                                      shared_, token_warp_ == 0);
    if constexpr (Shape::kSharedQ) __syncthreads();
    if (launch_.sinks != nullptr && split_ == 0 && token_warp_ == 0) {
      rows.AddSinks(work_, kv_head_, row_warp_ * 16);
    }

    // This pipeline's steps: every kTokenWarps-th of the split.
    const int all = (work_.end - work_.begin + kStep - 1) / kStep;
    const int count = (all - token_warp_ + kTokenWarps - 1) / kTokenWarps;
    FetchBlocks(0);
#pragma unroll
    for (int i = 0; i < kStages - 1; ++i) {
      if (i < count) Load(i, i);
      ptx::CommitCopies();
    }
    int stage = 0;
    for (int i = 0; i < count; ++i) {
      ptx::WaitForCopies<kStages - 2>();
      SyncLoaders();
      if (i + kStages - 1 < count) {
        Load(i + kStages - 1, stage == 0 ? kStages - 1 : stage - 1);
      }
      ptx::CommitCopies();
      rows.Attend(TokenOf(i), Stage(stage));
      stage = stage + 1 == kStages ? 0 : stage + 1;
    }
    ptx::WaitForCopies<0>();
    rows.AddLanes();
    if constexpr (kTokenWarps == 1) {
      Write(rows.sums, 0);
    } else {
      AttentionSums<kOwnTiles> own;
      Merge(rows.sums, own);
      Write(own, token_warp_ * kOwnTiles);
    }
  }

 private:
  // Which rows and tokens are this thread block's; false: none.
  __device__ bool FindWork() {
    const int index = static_cast<int>(blockIdx.x);
    if constexpr (!kDecode) return work_.Find(launch_, 16 * Shape::kRowWarps, index);
    split_ = index % launch_.max_splits;
    if (!work_.Find(launch_, kDecodeRows, index / launch_.max_splits)) return false;
    const int tokens = SplitTokens(work_.end - work_.begin);
    work_.begin += split_ * tokens;
    work_.end = min(work_.end, work_.begin + tokens);
    return split_ < work_.splits;
  }

  __device__ int TokenOf(int i) const {
    return work_.begin + (i * kTokenWarps + token_warp_) * kStep;
  }

  __device__ void SyncLoaders() {
    if constexpr (kDecode) {
      __syncwarp();
    } else {
      __syncthreads();
    }
  }

  // The blocks of the pipeline's step i, ahead of their use: a table's entry takes as long to come
  // as what it leads to.
  __device__ void FetchBlocks(int i) {
    const int32_t* table = launch_.tables + work_.sequence * launch_.table_stride;
#pragma unroll
    for (int part = 0; part < kStep / 16; ++part) {
      const int token = TokenOf(i) + part * 16;
      blocks_[part] = token < work_.end ? table[token / launch_.block_tokens] : 0;
    }
  }

  __device__ uint8_t* Stage(int stage) const {
    return shared_ + Shape::kQBytes + (token_warp_ * kStages + stage) * Shape::kStageBytes;
  }

  // Starts the copies of step i, whose blocks have been fetched. The 16 tokens of a part are
  // neighbours in their block. Tokens that no row sees are not read and become zeros, scales and
  // all.
  __device__ void Load(int i, int stage) {
    const int token = TokenOf(i);
    uint8_t* keys = Stage(stage);
    uint8_t* values = keys + Shape::kKeyBytes;
    uint8_t* scales = values + Shape::kValueBytes;
    const int loader = static_cast<int>(threadIdx.x) % kLoaders;
#pragma unroll
    for (int part = 0; part < kStep / 16; ++part) {
      const int first = token + part * 16;
      const int64_t row = (static_cast<int64_t>(blocks_[part]) * launch_.kv_heads + kv_head_) *
                              launch_.block_tokens +
                          first % launch_.block_tokens;
      const auto seen = [&](int r) {
        return first + r >= work_.first_token && first + r < work_.end;
      };
      CopyRows<Keys>(keys, part, launch_.k + row * Keys::kRowBytes, loader, seen);
      CopyRows<Values>(values, part, launch_.v + row * Values::kRowBytes, loader, seen);
      if constexpr (Keys::kScaled) {
        constexpr int kBytes = Shape::kScaleBytes;
        const int r = loader % 16;
        if (loader < 32) {
          const uint8_t* from = loader < 16 ? launch_.k_scales : launch_.v_scales;
          uint8_t* to = scales + (loader < 16 ? 0 : Shape::kStepScales);
          ptx::CopyAsync<kBytes>(to + (part * 16 + r) * kBytes, from + (row + r) * kBytes, seen(r));
        }
      }
    }
    FetchBlocks(i + 1);
  }

  template <typename Tile, typename Seen>
  __device__ static void CopyRows(uint8_t* tile, int part, const uint8_t* rows, int loader,
                                  Seen seen) {
    constexpr int kCopies = 16 * Tile::kPieces;
#pragma unroll 2  // each has an address of its own, which takes registers
    for (int first = 0; first < kCopies; first += kLoaders) {
      const int copy = first + loader;
      if (kCopies % kLoaders != 0 && copy >= kCopies) break;
      const int r = copy / Tile::kPieces;
      ptx::CopyAsync16(tile + Tile::Place(part * 16 + r, copy % Tile::kPieces), rows + copy * 16,
                       seen(r));
    }
  }

  // Adds the warps' sums; each of them gets some of the totals.
  __device__ void Merge(const AttentionSums<kTiles>& mine, AttentionSums<kOwnTiles>& own) {
    auto* sums = reinterpret_cast<float4*>(shared_ + Shape::kQBytes);
    auto* stats = reinterpret_cast<float2*>(sums + kTokenWarps * kTiles * 32);
    __syncthreads();  // the pipelines' last readers are done
#pragma unroll
    for (int j = 0; j < kTiles; ++j) sums[(token_warp_ * kTiles + j) * 32 + lane_] = mine.values[j];
    if (lane_ % 4 == 0) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        stats[token_warp_ * 16 + lane_ / 4 + 8 * i] = make_float2(mine.largest[i], mine.weights[i]);
      }
    }
    __syncthreads();
    float factors[kTokenWarps][2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      own.largest[i] = -INFINITY;
      own.weights[i] = 0;
#pragma unroll
      for (int w = 0; w < kTokenWarps; ++w) {
        factors[w][i] = stats[w * 16 + lane_ / 4 + 8 * i].x;
        own.largest[i] = fmaxf(own.largest[i], factors[w][i]);
      }
#pragma unroll
      for (int w = 0; w < kTokenWarps; ++w) {
        factors[w][i] = exp2f(factors[w][i] - AttentionSums<kTiles>::Finite(own.largest[i]));
        own.weights[i] = fmaf(factors[w][i], stats[w * 16 + lane_ / 4 + 8 * i].y, own.weights[i]);
      }
    }
#pragma unroll
    for (int j = 0; j < kOwnTiles; ++j) {
      own.values[j] = make_float4(0, 0, 0, 0);
#pragma unroll
      for (int w = 0; w < kTokenWarps; ++w) {
        float4 part = sums[(w * kTiles + token_warp_ * kOwnTiles + j) * 32 + lane_];
        AttentionSums<kTiles>::Scale(part, factors[w][0], factors[w][1]);
        own.values[j].x += part.x;
        own.values[j].y += part.y;
        own.values[j].z += part.z;
        own.values[j].w += part.w;
      }
    }
  }

  // The tiles from `first` on: into out, or as a part of the row tile's.
  template <int kCount>
  __device__ void Write(const AttentionSums<kCount>& sums, int first) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int row = row_warp_ * 16 + lane_ / 4 + 8 * i;
      if (row >= work_.rows) continue;
      if (!kDecode || work_.splits == 1) {
        float factor = sums.weights[i] > 0 ? 1.0f / sums.weights[i] : sums.weights[i];
        if constexpr (kFormat == DeviceKvFormat::kE4m3) factor *= launch_.v_head_scales[kv_head_];
        uint16_t* out = launch_.out + work_.Query(launch_, row) * launch_.out_stride +
                        work_.Head(launch_, kv_head_, row) * kHeadDim;
        WriteRow(sums.values, first, i, [&](int element, float x, float y) {
          *reinterpret_cast<uint32_t*>(out + element) = NarrowPair<T>(x * factor, y * factor);
        });
      } else {
        const int64_t part = (work_.Parts(launch_, kv_head_) + split_) * 16 + row;
        float* to = launch_.parts + part * kHeadDim;
        WriteRow(sums.values, first, i, [&](int element, float x, float y) {
          *reinterpret_cast<float2*>(to + element) = make_float2(x, y);
        });
        if (token_warp_ == 0 && lane_ % 4 == 0) {
          *reinterpret_cast<float2*>(launch_.stats + part * 2) =
              make_float2(sums.largest[i], sums.weights[i]);
        }
      }
    }
  }

  // Calls write(element, value, next value) for this lane's elements of the row g + 8 i, in
  // ValueTile's order.
  template <int kCount, typename WriteFn>
  __device__ void WriteRow(const float4 (&sums)[kCount], int first, int i, WriteFn write) const {
    const int t = lane_ % 4;
#pragma unroll
    for (int j = 0; j < kCount; j += 2) {
      const float2 a =
          i == 0 ? make_float2(sums[j].x, sums[j].y) : make_float2(sums[j].z, sums[j].w);
      const float2 b = i == 0 ? make_float2(sums[j + 1].x, sums[j + 1].y)
                              : make_float2(sums[j + 1].z, sums[j + 1].w);
      const int element = (first + j) * 8;
      if constexpr (Values::kPaired) {
        write(element + 4 * t, a.x, b.x);
        write(element + 4 * t + 2, a.y, b.y);
      } else {
        write(element + 2 * t, a.x, a.y);
        write(element + 8 + 2 * t, b.x, b.y);
      }
    }
  }

  const DeviceAttentionLaunch& launch_;
  uint8_t* shared_;
  int lane_, row_warp_, token_warp_, kv_head_;
  AttentionWork work_;  // with the tokens of the split
  int split_ = 0;
  int32_t blocks_[kStep / 16];
};

}  // namespace quern::kernels
