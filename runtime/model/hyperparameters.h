#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "runtime/base/result.h"
#include "runtime/formats/gguf.h"
#include "runtime/model/model.h"

namespace quern {

// Sizes of a decoder-only transformer, from a GGUF file's "<architecture>.*" metadata, checked
// against each other.
struct Hyperparameters {
  std::string architecture;
  int layers = 0;
  int width = 0;  // of the residual stream
  int ffn_width = 0;
  int heads = 0;
  int kv_heads = 0;
  int head_dim = 0;
  int context_tokens = 0;
  int vocab_size = 0;
  float epsilon = 1e-5f;  // of the RMS norms
  int rope_dims = 0;      // elements of a head that are rotated
  double rope_base = 10000;
  double rope_linear_factor = 1;  // positions are divided by it
  float logit_softcap = 0;
  float attention_softcap = 0;
  int window = 0;        // of sliding-window layers
  int experts = 0;       // of a layer; 0: its feed-forward half is one network
  int experts_used = 0;  // of a token
  int expert_ffn_width = 0;
  bool expert_weights_sum_to_one = true;  // of the experts used; else those of all do
  float expert_weights_scale = 1;
  std::optional<Pooling> pooling = Pooling::kLast;
};

// Errors: kInvalidArgument or kDataLoss for a key that is missing, mistyped or makes no sense (by
// name, with what would be right); kUnsupported for what this build cannot do (kinds of RoPE
// scaling, different K and V sizes, shared experts).
Result<Hyperparameters> ReadHyperparameters(const GgufFile& file);

// Rotation speed of each pair, in radians a token: base^(-2i / dims) / linear_factor / factors[i]
// (factors may be empty).
std::vector<double> RopeFrequencies(double base, int dims, double linear_factor,
                                    const std::vector<float>& factors);

}  // namespace quern
