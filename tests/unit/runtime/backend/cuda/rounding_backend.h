#pragma once

#include <memory>

#include "quern/kernels/activation_type.h"
#include "runtime/backend/backend.h"

namespace quern::testing {

// The CPU's backend with float32 weights, whose activations are rounded to `type` wherever a GPU's
// backend keeps them in 16 bits: what it gives is off from float32 as far as the format makes it.
std::unique_ptr<Backend> MakeRoundingBackend(kernels::ActivationType type);

}  // namespace quern::testing
