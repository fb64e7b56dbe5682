#include "kernels/cuda/attention/attention_instances.cuh"

namespace quern::kernels {
QUERN_INSTANTIATE_ATTENTION(__nv_bfloat16, DeviceKvFormat::k16Bit);
}  // namespace quern::kernels
