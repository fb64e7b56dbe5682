#include "runtime/backend/cuda/cuda_limits.h"

#include <limits>

#include "quern/kernels/add_rms_norm.h"
#include "quern/kernels/sample_tokens.h"

namespace quern {

Status CheckSizesForCuda(const ModelSizes& sizes, int ranks) {
  if (sizes.width > kernels::kMaxNormHidden) {
    return MakeError(ErrorCode::kUnsupported,
                     "a width of {}: norms on a GPU take up to {} (--device cpu takes any)",
                     sizes.width, kernels::kMaxNormHidden);
  }
  // Ranks gather their logits on the CPU, which draws.
  if (ranks == 1 && sizes.vocabulary > kernels::kMaxSampledVocab) {
    return MakeError(ErrorCode::kUnsupported,
                     "a vocabulary of {} tokens: drawing on a GPU takes up to {} (--device cpu "
                     "takes any)",
                     sizes.vocabulary, kernels::kMaxSampledVocab);
  }
  return CheckHeadsForCuda(sizes.head_dim);
}

Status CheckHeadsForCuda(int head_dim) {
  if (head_dim == 64 || head_dim == 128 || head_dim == 256) return {};
  return MakeError(ErrorCode::kUnsupported,
                   "heads of {} elements: attention on a GPU takes 64, 128 or 256 "
                   "(--device cpu takes any)",
                   head_dim);
}

Status CheckStepForCuda(int64_t tokens, int64_t width) {
  constexpr int64_t kMost = int64_t{4} * std::numeric_limits<int32_t>::max();  // GatedProduct's
  if (tokens <= kMost / width) return {};
  return MakeError(ErrorCode::kUnsupported,
                   "steps of {} tokens: with activations {} wide a GPU takes up to {} "
                   "(--max-batch-tokens)",
                   tokens, width, kMost / width);
}

}  // namespace quern
