#pragma once

namespace quern::kernels {

// What activations are kept in on a GPU: IEEE 754 binary16 or bfloat16.
enum class ActivationType { kF16, kBF16 };

}  // namespace quern::kernels
