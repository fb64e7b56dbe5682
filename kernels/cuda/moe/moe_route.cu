#include "kernels/cuda/common/reduce.cuh"
#include "kernels/cuda/common/sort_key.cuh"
#include "kernels/cuda/moe/moe_launch.h"

namespace quern::kernels {

constexpr int kRouteWarps = 4;

// One warp per token; a lane has the experts that are 32 apart from its own number on, as sort
// keys. The greatest is found and taken out top_k times: the lanes' greatest keys by one reduction,
// the lowest id that has it by another.
template <int kPerLane>
__global__ void __launch_bounds__(kRouteWarps * 32)
    MoeRouteKernel(const __grid_constant__ MoeRouteArgs args) {
  constexpr unsigned kAll = 0xffffffffu;
  const int64_t token = static_cast<int64_t>(blockIdx.x) * kRouteWarps + threadIdx.x / 32;
  if (token >= args.tokens) return;
  const int lane = threadIdx.x % 32;
  const int experts = static_cast<int>(args.experts);
  const int top_k = static_cast<int>(args.top_k);
  if (args.used_tokens != nullptr && token >= __ldg(args.used_tokens)) {
    if (lane >= top_k) return;
    args.expert_ids[token * top_k + lane] = -1;
    args.weights[token * top_k + lane] = 0;
    return;
  }
  const float* logits = args.logits + token * args.logits_stride;
  const float* low = args.low_logits;
  if (low != nullptr) low += token * args.logits_stride;
  uint32_t keys[kPerLane];
  uint32_t greatest = 0;
  bool any_nan = false;
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    const int expert = i * 32 + lane;
    keys[i] = kNoSortKey;
    if (expert < experts) {
      float logit = __ldg(logits + expert);
      if (low != nullptr) logit += __ldg(low + expert);
      keys[i] = SortKey(logit);
    }
    greatest = max(greatest, keys[i]);
    any_nan = any_nan || keys[i] == kNanSortKey;
  }
  any_nan = __any_sync(kAll, any_nan);
  const float top = SortKeyValue(__reduce_max_sync(kAll, greatest));

  float sum = 0;
  if (args.norm == RouterNorm::kAllExperts) {
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
      if (i * 32 + lane < experts) sum += expf(SortKeyValue(keys[i]) - top);
    }
    sum = WarpSum(sum);
  }

  int chosen = 0;  // of the slot that is this lane's number
  float weight = 0;
  for (int slot = 0; slot < top_k; ++slot) {
    const uint32_t key = __reduce_max_sync(kAll, greatest);
    int own = experts;  // the lowest of this lane's experts with the key
#pragma unroll
    for (int i = kPerLane - 1; i >= 0; --i) own = keys[i] == key ? i * 32 + lane : own;
    const int expert = static_cast<int>(__reduce_min_sync(kAll, static_cast<unsigned>(own)));
    greatest = 0;
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
      if (i * 32 + lane == expert) keys[i] = kNoSortKey;
      greatest = max(greatest, keys[i]);
    }
    const float share = expf(SortKeyValue(key) - top);
    if (args.norm == RouterNorm::kChosenExperts) sum += share;
    if (lane == slot) {
      chosen = expert;
      weight = share;
    }
  }
  if (lane >= top_k) return;
  const int64_t at = token * top_k + lane;
  args.expert_ids[at] = chosen;
  args.weights[at] = any_nan ? __int_as_float(0x7fffffff) : weight / sum * args.scale;
}

cudaError_t StartMoeRoute(const MoeRouteArgs& args, cudaStream_t stream) {
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>((args.tokens + kRouteWarps - 1) / kRouteWarps));
  config.blockDim = dim3(kRouteWarps * 32);
  config.stream = stream;
  const int64_t per_lane = (args.experts + 31) / 32;
  return cudaLaunchKernelEx(&config,
                            per_lane <= 1   ? MoeRouteKernel<1>
                            : per_lane <= 4 ? MoeRouteKernel<4>
                            : per_lane <= 8 ? MoeRouteKernel<8>
                                            : MoeRouteKernel<16>,
                            args);
}

}  // namespace quern::kernels
