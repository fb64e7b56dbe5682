#pragma once

#include <cstdint>
#include <memory>

#include "quern/kernels/activation_type.h"
#include "runtime/backend/backend.h"

namespace quern::testing {

// The CPU's backend, whose activations are rounded to `type` wherever a GPU's backend keeps them in
// 16 bits: what it gives is off from float32 as far as the format makes it. Each seed rounds
// another way: half a unit in the last place, up or down, is added first.
std::unique_ptr<Backend> MakeRoundingBackend(kernels::ActivationType type, uint64_t seed);

}  // namespace quern::testing
