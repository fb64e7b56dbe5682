#include "quern/kernels/embedding_gather.h"

#include <limits>

namespace quern::kernels::ref {

void EmbeddingGather(const float* table, int64_t vocab, int64_t hidden, int32_t id, float scale,
                     float* out) {
  for (int64_t i = 0; i < hidden; ++i) {
    out[i] = id < 0 || id >= vocab ? std::numeric_limits<float>::quiet_NaN()
                                   : table[id * hidden + i] * scale;
  }
}

}  // namespace quern::kernels::ref
