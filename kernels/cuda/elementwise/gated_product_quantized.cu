#include "kernels/cuda/elementwise/gated_product_launch.h"
#include "kernels/cuda/elementwise/gates.cuh"
#include "kernels/cuda/elementwise/quantize_rows.cuh"

namespace quern::kernels {

template <typename T, Gate kGate, bool kTurns>
static cudaError_t StartQuantizedGates(const GatedProductArgs& args, cudaStream_t stream) {
  const GateRows<T, kGate, kTurns> rows{static_cast<const T*>(args.gate), args.gate_stride,
                                        static_cast<const T*>(args.up), args.up_stride};
  return args.output == RowOutput::kInt8
             ? StartQuantizeRows<RowOutput::kInt8>(rows, args.tokens, args.inner, args.y,
                                                   args.y_stride, args.y_scale, stream)
             : StartQuantizeRows<RowOutput::kE4m3>(rows, args.tokens, args.inner, args.y,
                                                   args.y_stride, args.y_scale, stream);
}

template <typename T, Gate kGate>
static cudaError_t StartQuantizedGates(const GatedProductArgs& args, cudaStream_t stream) {
  return args.up == nullptr ? StartQuantizedGates<T, kGate, true>(args, stream)
                            : StartQuantizedGates<T, kGate, false>(args, stream);
}

template <typename T>
static cudaError_t StartQuantizedGates(const GatedProductArgs& args, cudaStream_t stream) {
  switch (args.gate_kind) {
    case Gate::kGeluTanh:
      return StartQuantizedGates<T, Gate::kGeluTanh>(args, stream);
    case Gate::kSiluClamped:
      return StartQuantizedGates<T, Gate::kSiluClamped>(args, stream);
    default:
      return StartQuantizedGates<T, Gate::kSilu>(args, stream);
  }
}

cudaError_t StartQuantizedGatedProduct(const GatedProductArgs& args, cudaStream_t stream) {
  return args.type == ActivationType::kF16 ? StartQuantizedGates<__half>(args, stream)
                                           : StartQuantizedGates<__nv_bfloat16>(args, stream);
}

}  // namespace quern::kernels
