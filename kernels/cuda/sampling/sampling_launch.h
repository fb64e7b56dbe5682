#pragma once

#include <cuda_runtime.h>

#include "quern/kernels/sample_tokens.h"

// The steps of sampling, and the workspace that they share.
namespace quern::kernels {

inline constexpr int kSampleThreads = 256;
inline constexpr int kSampleTile = 2048;  // logits that a thread block reads at once
inline constexpr int kMaxSampleTiles = static_cast<int>(kMaxSampledVocab / kSampleTile);

// A search for the last token to keep looks at a rank's 31 bits in three steps, of 11, 10 and 10
// bits; the first one's histogram is the same for top_k and top_p.
enum CutStep { kFirst, kTopKSecond, kTopKThird, kTopPSecond, kTopPThird };
inline constexpr int kCutSteps = 5;
inline constexpr int kFirstBins = 2048;
inline constexpr int kLaterBins = 1024;
inline constexpr int kBinsOfAll = kFirstBins + (kCutSteps - 1) * kLaterBins;

// What a search knows before its next step: the higher bits of the last token's rank, how much of
// the count or weight is left to find there, and the weight that ranks before.
struct CutState {
  uint32_t prefix;
  uint32_t found;  // 0: the row has less than is searched for, so nothing is cut
  unsigned long long left;
  unsigned long long weight_before;
};

// Kept are the tokens with ranks below `last`, and of those with it the `ties` with the lowest ids.
struct RankCut {
  uint32_t last;
  uint32_t ties;
  unsigned long long weight;  // of all kept
};

struct SampleLaunch {
  const float* logits;
  int64_t stride;
  int32_t vocab;
  int32_t rows;
  int32_t tiles;   // of a row
  int32_t blocks;  // thread blocks of a row
  bool any_draw;   // SampleTokensArgs'; what is not there is done for no row
  bool any_top_k;
  bool any_top_p;
  const SampleRow* params;  // of row / rows_per_params; positions go up with the rows
  int32_t rows_per_params;
  int32_t* ids;
  // The workspace.
  unsigned long long* maxima;        // [rows][blocks]
  unsigned long long* bin_weights;   // [rows][kBinsOfAll]
  uint32_t* bin_counts;              // [rows][kBinsOfAll]
  CutState* states;                  // [rows][kCutSteps]
  RankCut* cuts;                     // [rows]
  unsigned long long* tile_weights;  // [rows][tiles]: of ranks below the cut's
  uint32_t* tile_ties;               // [rows][tiles]: tokens with the cut's rank
};

// What SampleLaunch needs beyond its workspace and ids.
struct SampleShape {
  const float* logits;
  int64_t stride;
  int64_t vocab;
  int64_t rows;
  int64_t rows_per_params;
  int64_t thread_blocks;  // per row
  const SampleRow* params;
  bool any_draw;
  bool any_top_k;
  bool any_top_p;
};

constexpr int64_t SampleTiles(int64_t vocab) { return (vocab + kSampleTile - 1) / kSampleTile; }

// Hands out parts of the workspace, 16-byte aligned; with a null one it counts.
class SampleWorkspace {
 public:
  explicit SampleWorkspace(void* memory) : memory_(static_cast<uint8_t*>(memory)) {}
  template <typename T>
  T* Take(int64_t count) {
    T* part = memory_ == nullptr ? nullptr : reinterpret_cast<T*>(memory_ + used_);
    used_ += (static_cast<size_t>(count) * sizeof(T) + 15) / 16 * 16;
    return part;
  }
  size_t used() const { return used_; }

 private:
  uint8_t* memory_;
  size_t used_ = 0;
};

SampleLaunch MakeSampleLaunch(const SampleShape& shape, SampleWorkspace& workspace);
// Thread blocks per row with which `rows` are done best.
int64_t SampleThreadBlocks(int64_t rows, int64_t vocab, int multiprocessors);

// All steps but the last.
cudaError_t StartSampleSteps(const SampleLaunch& launch, cudaStream_t stream);

// Each row's greatest logit in `blocks` parts; clears the histograms where `clear`.
cudaError_t StartSampleMax(const SampleLaunch& launch, bool clear, cudaStream_t stream);
// The histogram of one step of a search.
cudaError_t StartSampleCut(const SampleLaunch& launch, CutStep step, cudaStream_t stream);
// The cut, and the tiles' sums under it.
cudaError_t StartSampleTiles(const SampleLaunch& launch, cudaStream_t stream);
// The tokens.
cudaError_t StartSampleDraw(const SampleLaunch& launch, cudaStream_t stream);

}  // namespace quern::kernels
