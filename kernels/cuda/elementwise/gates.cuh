#pragma once

#include "kernels/cuda/common/convert.cuh"
#include "quern/kernels/gated_activation.h"

namespace quern::kernels {

// __expf errs by 2 + |1.173 x| units in the last place (CUDA programming guide), which is far below
// what the result's rounding takes; exp(-x) = inf gives 0, as it should.
template <Gate kGate>
__device__ __forceinline__ float Gated(float gate, float up) {
  if constexpr (kGate == Gate::kSilu) {
    return gate / (1.0f + __expf(-gate)) * up;
  } else if constexpr (kGate == Gate::kGeluTanh) {
    constexpr float kLinear = -2 * 0.79788456080286535588f;  // -2 sqrt(2 / pi)
    return gate / (1.0f + __expf(gate * __fmaf_rn(kLinear * 0.044715f * gate, gate, kLinear))) * up;
  } else {
    // Comparisons and not fminf, which would make a number of NaN.
    gate = gate > kGateLimit ? kGateLimit : gate;
    up = up > kGateLimit ? kGateLimit : up < -kGateLimit ? -kGateLimit : up;
    return gate / (1.0f + __expf(-kGateAlpha * gate)) * (up + 1.0f);
  }
}

template <Gate kGate>
__device__ __forceinline__ float4 GatedFour(float4 gate, float4 up) {
  return make_float4(Gated<kGate>(gate.x, up.x), Gated<kGate>(gate.y, up.y),
                     Gated<kGate>(gate.z, up.z), Gated<kGate>(gate.w, up.w));
}

// What a thread makes of loads of 16 bytes without gaps: 8 elements of two matrices, or 4 of one
// with gates and ups in turns.
template <typename T, Gate kGate, bool kTurns>
struct GateRows {
  static constexpr int kElements = kTurns ? 4 : 8;
  const T* gate;
  int64_t gate_stride;
  const T* up;
  int64_t up_stride;

  __device__ __forceinline__ void Load(int64_t token, int vector,
                                       float4 (&v)[kElements / 4]) const {
    const uint4 g = reinterpret_cast<const uint4*>(gate + token * gate_stride)[vector];
    const float4 low = WidenFour<T>(make_uint2(g.x, g.y));
    const float4 high = WidenFour<T>(make_uint2(g.z, g.w));
    if constexpr (kTurns) {
      v[0] = GatedFour<kGate>(make_float4(low.x, low.z, high.x, high.z),
                              make_float4(low.y, low.w, high.y, high.w));
    } else {
      const uint4 u = reinterpret_cast<const uint4*>(up + token * up_stride)[vector];
      v[0] = GatedFour<kGate>(low, WidenFour<T>(make_uint2(u.x, u.y)));
      v[1] = GatedFour<kGate>(high, WidenFour<T>(make_uint2(u.z, u.w)));
    }
  }
};

}  // namespace quern::kernels
