#include "kernels/cuda/w4a16/w4a16_instances.cuh"

namespace quern::kernels {
QUERN_INSTANTIATE_W4A16(__half, W4Format::kAwq);
}  // namespace quern::kernels
