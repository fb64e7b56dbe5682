#pragma once

#include <cstdint>
#include <string>

struct CUstream_st;  // what cudaStream_t points to: the header needs no CUDA

namespace quern::kernels {

// What the chosen experts' weights are a share of.
enum class RouterNorm {
  kAllExperts,  // softmax over all experts: the weights of a token sum to less than 1
  // Softmax over the chosen ones (GPT-OSS), which is also the softmax over all, divided by the
  // chosen ones' sum (Mixtral, Qwen3's norm_topk_prob): the weights sum to 1.
  kChosenExperts,
};

inline constexpr int64_t kMaxRoutedExperts = 512;
inline constexpr int64_t kMaxChosenExperts = 32;

// The `top_k` experts of each token with the greatest router logits, the greatest first, among
// equals the lower id first, and their weights (Shazeer et al. 2017). On an NVIDIA GPU of compute
// capability 8.0 or later; all pointers are to the current device's memory. A token of which a
// logit is NaN gets NaN as its weights and the ids that are greatest when NaN is least.
struct MoeRouteArgs {
  const float* logits;    // [tokens, experts], 4-byte aligned
  int64_t logits_stride;  // elements from row to row, at least experts
  int64_t tokens;         // from 0 (nothing is done) to 2^31 - 1
  int64_t experts;        // from 1 to kMaxRoutedExperts
  int64_t top_k;          // from 1 to kMaxChosenExperts, at most experts
  RouterNorm norm;
  float scale;          // of all weights: 1, or a model's routed_scaling_factor
  int32_t* expert_ids;  // [tokens, top_k]
  float* weights;       // [tokens, top_k]
  // [tokens, experts] with the stride of `logits`, added to them in float32: a router's weights in
  // two 16-bit parts give two products. Null: nothing is added.
  const float* low_logits = nullptr;
  // One number: tokens from it on fill up a batch and get no expert (ids -1, weights 0, whatever
  // their logits). Null: there are none.
  const int32_t* used_tokens = nullptr;
};

// Starts it on `stream` of the current device and returns "", or what is wrong with the arguments;
// then nothing is started. Each token is one warp's, and sums are added in a fixed order. May be
// called by several threads, and captured into a graph.
[[nodiscard]] std::string MoeRoute(const MoeRouteArgs& args, CUstream_st* stream);

namespace ref {
// The same of one token, in float64.
void MoeRoute(const float* logits, int64_t experts, int64_t top_k, RouterNorm norm, double scale,
              int32_t* expert_ids, double* weights);
}  // namespace ref
}  // namespace quern::kernels
