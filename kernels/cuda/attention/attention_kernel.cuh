#pragma once

#include "kernels/cuda/attention/attention_launch.h"
#include "kernels/cuda/attention/kv_fragments.cuh"

// Attention over paged K and V on tensor cores. A warp has 16 rows, each a query head of a query,
// and takes K and V a step of tokens at a time with a running maximum and sum (Dao 2023): scores
// are mma.sync of rows and K, their weights the A operand of the product with V. Nothing but K, V
// and Q passes through shared memory. Decode: four warps share the rows and take the steps in turn,
// each with a pipeline of its own, and meet at the end. Prefill: four warps of different rows share
// the steps.
namespace quern::kernels {

template <typename T, int kHeadDim, DeviceKvFormat kFormat, bool kDecode>
struct AttentionShape {
  using Keys = KeyTile<T, kFormat, kHeadDim>;
  using Values = ValueTile<T, kFormat, kHeadDim>;
  // Of the widest rows two warps' pipelines are as much as the smaller GPUs' shared memory holds.
  static constexpr bool kWide = kHeadDim == 256 && kFormat == DeviceKvFormat::k16Bit;
  static constexpr int kRowWarps = kDecode ? 1 : 4;
  static constexpr int kTokenWarps = !kDecode ? 1 : kWide ? 2 : 4;
  static constexpr int kThreads = 32 * kRowWarps * kTokenWarps;
  // 32 where registers are enough for the scores of as many.
  static constexpr int kStep =
      kDecode || kHeadDim == 256 || (kHeadDim == 128 && kFormat == DeviceKvFormat::kInt4) ? 16 : 32;
  static constexpr int kScaleBytes = kHeadDim / kKvGroup * 2;         // of a token
  static constexpr int kKeyBytes = kStep * Keys::kRowBytes;
  static constexpr int kValueBytes = kStep * Values::kRowBytes;
  static constexpr int kStepScales = Keys::kScaled ? kStep * kScaleBytes : 0;
  static constexpr int kStageBytes = kKeyBytes + kValueBytes + 2 * kStepScales;
  static constexpr int kStages = kStageBytes < 8 * 1024 ? 3 : 2;
  // Q stays in registers if there are enough of them.
  static constexpr bool kSharedQ = kHeadDim == 256;
  static constexpr int kQBytes = kSharedQ ? kRowWarps * 16 * kHeadDim * 2 : 0;
  static constexpr int kPipelineBytes = kTokenWarps * kStages * kStageBytes;
  static constexpr int kSumBytes = 16 * kHeadDim * 4;  // of a warp
  static constexpr int kMergeBytes = kDecode ? kTokenWarps * (kSumBytes + 16 * 8) : 0;
  static constexpr int kSharedBytes =
      kQBytes + (kPipelineBytes > kMergeBytes ? kPipelineBytes : kMergeBytes);
  // Thread blocks that a multiprocessor's registers are to be enough for; more would spill.
  static constexpr int kResident = kHeadDim == 64                                    ? 3
                                   : kHeadDim == 128 && kDecode && !Keys::kScaled ? 3
                                                                                     : 2;
  static_assert(kSharedBytes <= 99 * 1024, "compute capability 8.6 and 8.9 have no more");
};

template <typename T, int kHeadDim, DeviceKvFormat kFormat, bool kDecode>
class PagedAttentionBlock {
  using Shape = AttentionShape<T, kHeadDim, kFormat, kDecode>;
  using Keys = typename Shape::Keys;
  using Values = typename Shape::Values;
  // 32 where registers are enough for the scores of as many.
  static constexpr int kStep =
      kDecode || kHeadDim == 256 || (kHeadDim == 128 && kFormat == DeviceKvFormat::kInt4) ? 16 : 32;
  static constexpr int kStages = Shape::kStages;
  static constexpr int kTokenWarps = Shape::kTokenWarps;
  static constexpr int kLoaders = kDecode ? 32 : Shape::kThreads;  // threads that share a pipeline
  static constexpr int kBlocks = kHeadDim / 32;                    // steps of two mma.sync over K
  static constexpr int kTiles = kHeadDim / 8;                      // of sums
  static constexpr int kOwnTiles = kTiles / kTokenWarps;           // after the sum over warps
  static constexpr int kRows = 16 * Shape::kRowWarps;
  // With Q in shared memory more of them would only take registers, of which there are too few.
  static constexpr int kUnrolledBlocks = !Shape::kSharedQ ? kBlocks : 1;
  static constexpr float kLog2E = 1.44269504088896341f;

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
    FindRows();
    LoadQ();
    for (int j = 0; j < kTiles; ++j) sums_[j] = make_float4(0, 0, 0, 0);
    StartSoftmax();

    // This pipeline's steps: every kTokenWarps-th of the split.
    const int all = (end_ - begin_ + kStep - 1) / kStep;
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
      Attend(TokenOf(i), stage);
      stage = stage + 1 == kStages ? 0 : stage + 1;
    }
    ptx::WaitForCopies<0>();
    Finish();
  }

 private:
  // Which rows and tokens are this thread block's; false: none.
  __device__ bool FindWork() {
    int index = static_cast<int>(blockIdx.x);
    split_ = 0;
    if constexpr (kDecode) {
      split_ = index % launch_.max_splits;
      index /= launch_.max_splits;
    }
    // Late rows see most: they begin first.
    row_tile_ = launch_.row_tiles - 1 - index % launch_.row_tiles;
    sequence_ = index / launch_.row_tiles;
    queries_ = min(launch_.query_begins[sequence_ + 1] - launch_.query_begins[sequence_],
                   launch_.max_queries);
    const int rows = queries_ * launch_.group - row_tile_ * kRows;
    if (rows <= 0) return false;
    rows_ = min(rows, kRows);
    context_ = min(launch_.contexts[sequence_], launch_.max_context);
    const int first_row = row_tile_ * kRows;
    const int first = PositionOf(first_row);
    first_token_ = launch_.window > 0 ? max(0, first - launch_.window + 1) : 0;
    begin_ = first_token_ / kSplitGranule * kSplitGranule;
    end_ = PositionOf(first_row + rows_ - 1) + 1;
    splits_ = 1;
    if constexpr (kDecode) {
      const int span = end_ - begin_;
      splits_ = min(SplitCount(span), launch_.max_splits);
      if (split_ >= splits_) return false;
      begin_ += split_ * SplitTokens(span);
      end_ = min(end_, begin_ + SplitTokens(span));
    }
    return true;
  }

  // Of a row of the sequence.
  __device__ int PositionOf(int row) const { return context_ - queries_ + row / launch_.group; }

  // The rows g and g + 8 of this warp; those that do not exist see what the last one does.
  __device__ void FindRows() {
    const int first = row_tile_ * kRows;
    const int warp_first = row_warp_ * 16;
    const auto position = [&](int row) { return PositionOf(first + min(row, rows_ - 1)); };
#pragma unroll
    for (int i = 0; i < 2; ++i) position_[i] = position(warp_first + lane_ / 4 + 8 * i);
    least_position_ = position(warp_first);
    most_position_ = warp_first < rows_ ? position(warp_first + 15) : -1;  // -1: sees nothing
  }
  __device__ bool IsRow(int i) const { return row_warp_ * 16 + lane_ / 4 + 8 * i < rows_; }
  __device__ int FirstSeen(int position) const {
    return launch_.window > 0 ? position - launch_.window + 1 : 0;
  }
  // The head of this lane's row g + 8 i, and its query's number in the batch: found again at the end,
  // as there are too few registers to keep it.
  __device__ int HeadOf(int i) const {
    const int row = row_tile_ * kRows + row_warp_ * 16 + lane_ / 4 + 8 * i;
    return kv_head_ * launch_.group + row % launch_.group;
  }
  __device__ int64_t QueryOf(int i) const {
    const int row = row_tile_ * kRows + row_warp_ * 16 + lane_ / 4 + 8 * i;
    return launch_.query_begins[sequence_] + row / launch_.group;
  }

  // Q as mma.sync's A operand in the order in which KeyTile gives K: lane (g, t) has the elements
  // 8 t to 8 t + 7 of each 32.
  __device__ void LoadQ() {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const uint16_t* head =
          launch_.q + QueryOf(i) * launch_.q_stride + HeadOf(i) * kHeadDim + lane_ % 4 * 8;
#pragma unroll
      for (int b = 0; b < kBlocks; ++b) {
        uint4 q = make_uint4(0, 0, 0, 0);
        if (IsRow(i)) q = *reinterpret_cast<const uint4*>(head + b * 32);
        if constexpr (Keys::kBytes) {
          q = make_uint4(__byte_perm(q.x, q.y, 0x5410), __byte_perm(q.x, q.y, 0x7632),
                         __byte_perm(q.z, q.w, 0x5410), __byte_perm(q.z, q.w, 0x7632));
        }
        if constexpr (!Shape::kSharedQ) {
          q_[b * 2 + i] = q;
        } else if (token_warp_ == 0) {
          SharedQ()[(b * 2 + i) * 32] = q;
        }
      }
    }
    if constexpr (Shape::kSharedQ) __syncthreads();
  }
  __device__ uint4* SharedQ() const {
    return reinterpret_cast<uint4*>(shared_) + row_warp_ * kBlocks * 64 + lane_;
  }
  __device__ uint4 Q(int b, int i) const {
    if constexpr (Shape::kSharedQ) return SharedQ()[(b * 2 + i) * 32];
    return q_[b * 2 + i];
  }

  // A sink is a score that is there from the beginning, once.
  __device__ void StartSoftmax() {
    const bool sinks = launch_.sinks != nullptr && split_ == 0 && token_warp_ == 0;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const bool has = sinks && IsRow(i);
      largest_[i] = has ? launch_.sinks[HeadOf(i)] * kLog2E : -INFINITY;
      weights_[i] = has && lane_ % 4 == 0 ? 1.0f : 0.0f;
    }
    if constexpr (kFormat == DeviceKvFormat::kE4m3) key_scale_ = launch_.k_head_scales[kv_head_];
  }

  __device__ int TokenOf(int i) const { return begin_ + (i * kTokenWarps + token_warp_) * kStep; }

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
    const int32_t* table = launch_.tables + sequence_ * launch_.table_stride;
#pragma unroll
    for (int part = 0; part < kStep / 16; ++part) {
      const int token = TokenOf(i) + part * 16;
      blocks_[part] = token < end_ ? table[token / launch_.block_tokens] : 0;
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
      const auto seen = [&](int r) { return first + r >= first_token_ && first + r < end_; };
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

  __device__ void Attend(int token, int stage) {
    if (token > most_position_ || token + kStep <= FirstSeen(least_position_)) {
      return;
    }
    float4 scores[kStep / 8];
    Scores(Stage(stage), scores);
    Weigh(token, scores);
    AddValues(Stage(stage) + Shape::kKeyBytes, scores);
  }

  // Rows times K. Whole numbers are summed up for each group of 32, then scaled.
  __device__ void Scores(const uint8_t* keys, float4 (&scores)[kStep / 8]) {
    const int g = lane_ / 4;
    const int t = lane_ % 4;
    const uint8_t* scales =
        keys + Shape::kKeyBytes + Shape::kValueBytes + 2 * t * Shape::kScaleBytes;
    uint32_t words[kStep / 8][2];
#pragma unroll
    for (int n = 0; n < kStep / 8; ++n) scores[n] = make_float4(0, 0, 0, 0);
#pragma unroll kUnrolledBlocks
    for (int b = 0; b < kBlocks; ++b) {
      const uint4 low = Q(b, 0);
      const uint4 high = Q(b, 1);
      const uint32_t first[4] = {low.x, high.x, low.y, high.y};
      const uint32_t second[4] = {low.z, high.z, low.w, high.w};
#pragma unroll
      for (int n = 0; n < kStep / 8; ++n) {
        uint32_t k[4];
        Keys::Load(keys, n * 8 + g, b, t, k);
        float4 part = Keys::kScaled ? make_float4(0, 0, 0, 0) : scores[n];
        part = ptx::Mma<T>(first, k[0], k[1], part);
        part = ptx::Mma<T>(second, k[2], k[3], part);
        if constexpr (!Keys::kScaled) {
          scores[n] = part;
        } else {
          if (b % 2 == 0) {
#pragma unroll
            for (int i = 0; i < 2; ++i) {
              words[n][i] = *reinterpret_cast<const uint32_t*>(
                  scales + (n * 8 + i) * Shape::kScaleBytes + b * 2);
            }
          }
          const float even = WidenHalf(words[n][0] >> (b % 2 * 16) & 0xffff);
          const float odd = WidenHalf(words[n][1] >> (b % 2 * 16) & 0xffff);
          scores[n].x = fmaf(even, part.x, scores[n].x);
          scores[n].y = fmaf(odd, part.y, scores[n].y);
          scores[n].z = fmaf(even, part.z, scores[n].z);
          scores[n].w = fmaf(odd, part.w, scores[n].w);
        }
      }
    }
  }

  // A score in units of log2.
  __device__ float Scaled(float score) const {
    if constexpr (kFormat == DeviceKvFormat::kE4m3) score *= key_scale_;
    if (launch_.softcap == 0) return score * (launch_.scale * kLog2E);
    return launch_.softcap * kLog2E * tanhf(score * launch_.scale / launch_.softcap);
  }

  // From scores to weights relative to the running maximum, which may move: then what has been
  // summed up shrinks.
  __device__ void Weigh(int token, float4 (&scores)[kStep / 8]) {
    const bool all_seen =
        token + kStep - 1 <= least_position_ && token >= FirstSeen(most_position_);
    float largest[2] = {largest_[0], largest_[1]};
#pragma unroll
    for (int n = 0; n < kStep / 8; ++n) {
      float* score = &scores[n].x;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int at = token + n * 8 + lane_ % 4 * 2 + i % 2;
        score[i] = Scaled(score[i]);
        if (!all_seen && (at > position_[i / 2] || at < FirstSeen(position_[i / 2]))) {
          score[i] = -INFINITY;
        }
        largest[i / 2] = fmaxf(largest[i / 2], score[i]);
      }
    }
    float shrink[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      largest[i] = fmaxf(largest[i], __shfl_xor_sync(0xffffffffu, largest[i], 1));
      largest[i] = fmaxf(largest[i], __shfl_xor_sync(0xffffffffu, largest[i], 2));
      shrink[i] = exp2f(largest_[i] - Finite(largest[i]));
      largest_[i] = largest[i];
    }
    float sums[2] = {0, 0};
#pragma unroll
    for (int n = 0; n < kStep / 8; ++n) {
      float* score = &scores[n].x;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        score[i] = exp2f(score[i] - Finite(largest[i / 2]));
        sums[i / 2] += score[i];
      }
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) weights_[i] = weights_[i] * shrink[i] + sums[i];
    if (__any_sync(0xffffffffu, shrink[0] != 1 || shrink[1] != 1)) {
#pragma unroll
      for (int j = 0; j < kTiles; ++j) Scale(sums_[j], shrink[0], shrink[1]);
    }
  }
  // Where nothing has been seen there is nothing to subtract.
  __device__ static float Finite(float largest) { return largest == -INFINITY ? 0 : largest; }
  __device__ static void Scale(float4& sums, float low, float high) {
    sums.x *= low;
    sums.y *= low;
    sums.z *= high;
    sums.w *= high;
  }

  // Weights, rounded to the activations' type, times V.
  __device__ void AddValues(const uint8_t* values, const float4 (&weights)[kStep / 8]) {
    const int t = lane_ % 4;
    const uint8_t* scales = values + Shape::kValueBytes + Shape::kStepScales;
#pragma unroll
    for (int part = 0; part < kStep / 16; ++part) {
      const float4& left = weights[2 * part];
      const float4& right = weights[2 * part + 1];
      const uint32_t a[4] = {Float16<T>::Pack(left.x, left.y), Float16<T>::Pack(left.z, left.w),
                             Float16<T>::Pack(right.x, right.y),
                             Float16<T>::Pack(right.z, right.w)};
      uint32_t words[4] = {0, 0, 0, 0};  // two groups' scales of the tokens 2 t, + 1, + 8, + 9
#pragma unroll
      for (int piece = 0; piece < Values::kPieces; piece += 2) {
        constexpr int kPiecesOfWord = kFormat == DeviceKvFormat::kInt4 ? 2 : 4;
        if (Values::kScaled && piece % kPiecesOfWord == 0) {
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            const int row = part * 16 + 2 * t + i % 2 + i / 2 * 8;
            words[i] = *reinterpret_cast<const uint32_t*>(scales + row * Shape::kScaleBytes +
                                                          piece / kPiecesOfWord * 4);
          }
        }
        // Or the compiler would load more of V ahead than there are registers for.
        if (Shape::kSharedQ && piece % 4 == 0) __syncwarp();
        uint32_t codes[4];
        ptx::LoadMatricesTransposed(
            codes, values + Values::Place(part * 16 + lane_ % 16, piece + lane_ / 16));
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const bool odd = kFormat == DeviceKvFormat::kInt4 ? half == 1 : piece / 2 % 2 == 1;
          const uint32_t select = odd ? 0x7632 : 0x5410;
          uint32_t b0[Values::kColumns];
          uint32_t b1[Values::kColumns];
          Values::Widen(codes[2 * half], __byte_perm(words[0], words[1], select), b0);
          Values::Widen(codes[2 * half + 1], __byte_perm(words[2], words[3], select), b1);
#pragma unroll
          for (int j = 0; j < Values::kColumns; ++j) {
            float4& sums = sums_[(piece + half) * Values::kColumns + j];
            sums = ptx::Mma<T>(a, b0[j], b1[j], sums);
          }
        }
      }
    }
  }

  __device__ void Finish() {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      weights_[i] += __shfl_xor_sync(0xffffffffu, weights_[i], 1);
      weights_[i] += __shfl_xor_sync(0xffffffffu, weights_[i], 2);
    }
    if constexpr (kTokenWarps == 1) {
      Write(sums_, 0);
    } else {
      float4 own[kOwnTiles];
      Merge(own);
      Write(own, token_warp_ * kOwnTiles);
    }
  }

  // Adds the warps' sums; each of them gets some of the totals, and all largest_ and weights_.
  __device__ void Merge(float4 (&own)[kOwnTiles]) {
    auto* sums = reinterpret_cast<float4*>(shared_ + Shape::kQBytes);
    auto* stats = reinterpret_cast<float2*>(sums + kTokenWarps * kTiles * 32);
    __syncthreads();  // the pipelines' last readers are done
#pragma unroll
    for (int j = 0; j < kTiles; ++j) sums[(token_warp_ * kTiles + j) * 32 + lane_] = sums_[j];
    if (lane_ % 4 == 0) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        stats[token_warp_ * 16 + lane_ / 4 + 8 * i] = make_float2(largest_[i], weights_[i]);
      }
    }
    __syncthreads();
    float factors[kTokenWarps][2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      largest_[i] = -INFINITY;
      weights_[i] = 0;
#pragma unroll
      for (int w = 0; w < kTokenWarps; ++w) {
        factors[w][i] = stats[w * 16 + lane_ / 4 + 8 * i].x;
        largest_[i] = fmaxf(largest_[i], factors[w][i]);
      }
#pragma unroll
      for (int w = 0; w < kTokenWarps; ++w) {
        factors[w][i] = exp2f(factors[w][i] - Finite(largest_[i]));
        weights_[i] = fmaf(factors[w][i], stats[w * 16 + lane_ / 4 + 8 * i].y, weights_[i]);
      }
    }
#pragma unroll
    for (int j = 0; j < kOwnTiles; ++j) {
      own[j] = make_float4(0, 0, 0, 0);
#pragma unroll
      for (int w = 0; w < kTokenWarps; ++w) {
        float4 part = sums[(w * kTiles + token_warp_ * kOwnTiles + j) * 32 + lane_];
        Scale(part, factors[w][0], factors[w][1]);
        own[j].x += part.x;
        own[j].y += part.y;
        own[j].z += part.z;
        own[j].w += part.w;
      }
    }
  }

  // The tiles from `first` on: into out, or as a part of the row tile's.
  template <int kCount>
  __device__ void Write(const float4 (&sums)[kCount], int first) {
    const int64_t part =
        ((static_cast<int64_t>(sequence_) * launch_.row_tiles + row_tile_) * launch_.kv_heads +
         kv_head_) *
            launch_.max_splits +
        split_;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      if (!IsRow(i)) continue;
      if (splits_ == 1) {
        float factor = weights_[i] > 0 ? 1.0f / weights_[i] : weights_[i];
        if constexpr (kFormat == DeviceKvFormat::kE4m3) factor *= launch_.v_head_scales[kv_head_];
        uint16_t* out = launch_.out + QueryOf(i) * launch_.out_stride + HeadOf(i) * kHeadDim;
        WriteRow(sums, first, i, [&](int element, float x, float y) {
          *reinterpret_cast<uint32_t*>(out + element) = Float16<T>::Pack(x * factor, y * factor);
        });
      } else {
        const int64_t row = part * 16 + lane_ / 4 + 8 * i;
        float* to = launch_.parts + row * kHeadDim;
        WriteRow(sums, first, i, [&](int element, float x, float y) {
          *reinterpret_cast<float2*>(to + element) = make_float2(x, y);
        });
        if (token_warp_ == 0 && lane_ % 4 == 0) {
          *reinterpret_cast<float2*>(launch_.stats + row * 2) =
              make_float2(largest_[i], weights_[i]);
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
  int split_, splits_, row_tile_, sequence_;
  int queries_, rows_, context_;
  int first_token_, begin_, end_;  // the first one seen; the tokens of the split
  int position_[2], least_position_, most_position_;
  int32_t blocks_[kStep / 16];
  uint4 q_[Shape::kSharedQ ? 1 : 2 * kBlocks];
  float key_scale_ = 1;
  float largest_[2], weights_[2];
  float4 sums_[kTiles];
};

}  // namespace quern::kernels
