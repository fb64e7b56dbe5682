#pragma once

#include "kernels/cuda/attention/attention_shape.cuh"
#include "kernels/cuda/attention/attention_work.cuh"

namespace quern::kernels {

// Of a lane's rows g and g + 8: the running maximum of the scores in units of log2, the sum of the
// weights relative to it, and sums of weighted values.
template <int kTiles>
struct AttentionSums {
  float largest[2], weights[2];
  float4 values[kTiles];

  // Where nothing has been seen there is nothing to subtract.
  __device__ static float Finite(float largest) { return largest == -INFINITY ? 0 : largest; }
  __device__ static void Scale(float4& sums, float low, float high) {
    sums.x *= low;
    sums.y *= low;
    sums.z *= high;
    sums.w *= high;
  }
};

// What a warp does with its 16 rows: Q, and a step of K and V after the other.
template <typename T, int kHeadDim, DeviceKvFormat kFormat, bool kDecode>
class AttentionRows {
  using Shape = AttentionShape<T, kHeadDim, kFormat, kDecode>;
  using Keys = typename Shape::Keys;
  using Values = typename Shape::Values;
  static constexpr int kStep = Shape::kStep;
  static constexpr int kBlocks = kHeadDim / 32;  // steps of two mma.sync over K
  static constexpr int kTiles = kHeadDim / 8;    // of sums
  static constexpr float kLog2E = 1.44269504088896341f;
  // With Q in shared memory more of them would only take registers, of which there are too few.
  static constexpr int kUnrolledBlocks = !Shape::kSharedQ ? kBlocks : 1;

 public:
  using Sums = AttentionSums<kTiles>;
  Sums sums;

  // The 16 rows from `first` of the tile on; those that do not exist see what the last one does.
  // `shared_q`: Shape::kQBytes of shared memory for all row warps. With `store_q` this warp puts Q
  // there; others may read it after a barrier.
  __device__ AttentionRows(const DeviceAttentionLaunch& launch, const AttentionWork& work,
                           int kv_head, int first, uint8_t* shared_q, bool store_q)
      : launch_(launch),
        lane_(static_cast<int>(threadIdx.x) % 32),
        shared_q_(reinterpret_cast<uint4*>(shared_q) + first / 16 * kBlocks * 64 + lane_) {
    const auto position = [&](int row) { return work.Position(launch, min(row, work.rows - 1)); };
#pragma unroll
    for (int i = 0; i < 2; ++i) position_[i] = position(first + lane_ / 4 + 8 * i);
    least_position_ = position(first);
    most_position_ = first < work.rows ? position(first + 15) : -1;  // -1: sees nothing
    LoadQ(work, kv_head, first, store_q);
    if constexpr (kFormat == DeviceKvFormat::kE4m3) key_scale_ = launch.k_head_scales[kv_head];
#pragma unroll
    for (int j = 0; j < kTiles; ++j) sums.values[j] = make_float4(0, 0, 0, 0);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      sums.largest[i] = -INFINITY;
      sums.weights[i] = 0;
    }
  }

  // A sink is a score that is there from the beginning, once.
  __device__ void AddSinks(const AttentionWork& work, int kv_head, int first) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int row = first + lane_ / 4 + 8 * i;
      if (row >= work.rows) continue;
      sums.largest[i] = launch_.sinks[work.Head(launch_, kv_head, row)] * kLog2E;
      sums.weights[i] = lane_ % 4 == 0 ? 1.0f : 0.0f;
    }
  }

  // The step from `token` on, whose K, V and scales lie at `stage`.
  __device__ void Attend(int token, const uint8_t* stage) {
    if (token > most_position_ || token + kStep <= FirstSeen(least_position_)) {
      return;
    }
    float4 scores[kStep / 8];
    Scores(stage, scores);
    Weigh(token, scores);
    AddValues(stage + Shape::kKeyBytes, scores);
  }

  // The lanes of a row have the sums of weights of their own columns: adds them up.
  __device__ void AddLanes() {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      sums.weights[i] += __shfl_xor_sync(0xffffffffu, sums.weights[i], 1);
      sums.weights[i] += __shfl_xor_sync(0xffffffffu, sums.weights[i], 2);
    }
  }

 private:
  // Q as mma.sync's A operand in the order in which KeyTile gives K: lane (g, t) has the elements
  // 8 t to 8 t + 7 of each 32.
  __device__ void LoadQ(const AttentionWork& work, int kv_head, int first, bool store) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int row = first + lane_ / 4 + 8 * i;
      const uint16_t* head = launch_.q + work.Query(launch_, row) * launch_.q_stride +
                             work.Head(launch_, kv_head, row) * kHeadDim + lane_ % 4 * 8;
#pragma unroll
      for (int b = 0; b < kBlocks; ++b) {
        uint4 q = make_uint4(0, 0, 0, 0);
        if (row < work.rows) q = *reinterpret_cast<const uint4*>(head + b * 32);
        if constexpr (Keys::kBytes) {
          q = make_uint4(__byte_perm(q.x, q.y, 0x5410), __byte_perm(q.x, q.y, 0x7632),
                         __byte_perm(q.z, q.w, 0x5410), __byte_perm(q.z, q.w, 0x7632));
        }
        if constexpr (!Shape::kSharedQ) {
          q_[b * 2 + i] = q;
        } else if (store) {
          shared_q_[(b * 2 + i) * 32] = q;
        }
      }
    }
  }
  __device__ uint4 Q(int b, int i) const {
    if constexpr (Shape::kSharedQ) return shared_q_[(b * 2 + i) * 32];
    return q_[b * 2 + i];
  }

  __device__ int FirstSeen(int position) const {
    return launch_.window > 0 ? position - launch_.window + 1 : 0;
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
    float largest[2] = {sums.largest[0], sums.largest[1]};
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
      shrink[i] = exp2f(sums.largest[i] - Sums::Finite(largest[i]));
      sums.largest[i] = largest[i];
    }
    float added[2] = {0, 0};
#pragma unroll
    for (int n = 0; n < kStep / 8; ++n) {
      float* score = &scores[n].x;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        score[i] = exp2f(score[i] - Sums::Finite(largest[i / 2]));
        added[i / 2] += score[i];
      }
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) sums.weights[i] = sums.weights[i] * shrink[i] + added[i];
    if (__any_sync(0xffffffffu, shrink[0] != 1 || shrink[1] != 1)) {
#pragma unroll
      for (int j = 0; j < kTiles; ++j) Sums::Scale(sums.values[j], shrink[0], shrink[1]);
    }
  }

  // Weights, rounded to the activations' type, times V.
  __device__ void AddValues(const uint8_t* values, const float4 (&weights)[kStep / 8]) {
    const int t = lane_ % 4;
    const uint8_t* scales = values + Shape::kValueBytes + Shape::kStepScales;
#pragma unroll
    for (int part = 0; part < kStep / 16; ++part) {
      const float4& left = weights[2 * part];
      const float4& right = weights[2 * part + 1];
      const uint32_t a[4] = {NarrowPair<T>(left.x, left.y), NarrowPair<T>(left.z, left.w),
                             NarrowPair<T>(right.x, right.y), NarrowPair<T>(right.z, right.w)};
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
        if (kHeadDim > 64 && piece % 4 == 0) __syncwarp();
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
            float4& tile = sums.values[(piece + half) * Values::kColumns + j];
            tile = ptx::Mma<T>(a, b0[j], b1[j], tile);
          }
        }
      }
    }
  }

  const DeviceAttentionLaunch& launch_;
  int lane_;
  uint4* shared_q_;
  uint4 q_[Shape::kSharedQ ? 1 : 2 * kBlocks];
  int position_[2], least_position_, most_position_;
  float key_scale_ = 1;
};

}  // namespace quern::kernels
