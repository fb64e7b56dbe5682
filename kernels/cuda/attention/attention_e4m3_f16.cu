#include "kernels/cuda/attention/attention_instances.cuh"

namespace quern::kernels {
QUERN_INSTANTIATE_ATTENTION(__half, DeviceKvFormat::kE4m3);
}  // namespace quern::kernels
