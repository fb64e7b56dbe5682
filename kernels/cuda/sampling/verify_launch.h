#pragma once

#include "kernels/cuda/sampling/sampling_launch.h"
#include "quern/kernels/verify_drafts.h"

namespace quern::kernels {

enum DraftFate : int32_t { kRefused, kAccepted, kNoDraft };

struct VerifyLaunch {
  SampleLaunch target;  // [sequences, drafts + 1] rows
  SampleLaunch draft;   // [sequences, drafts] rows
  int32_t sequences;
  int32_t drafts;
  const int32_t* draft_tokens;
  int32_t* accepted;
  int32_t* tokens;
  int32_t* fates;                    // [sequences, drafts]
  unsigned long long* tile_weights;  // [sequences, tiles] of max(0, p - q)
};

// After all of the target's steps and draws (target.ids).
cudaError_t StartMatchDrafts(const VerifyLaunch& launch, cudaStream_t stream);
// After all of the target's and the drafts' steps.
cudaError_t StartJudgeDrafts(const VerifyLaunch& launch, cudaStream_t stream);

}  // namespace quern::kernels
