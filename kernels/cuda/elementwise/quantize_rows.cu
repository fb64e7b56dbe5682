#include "kernels/cuda/elementwise/quantize_rows.cuh"
#include "kernels/cuda/elementwise/quantize_rows_launch.h"

namespace quern::kernels {

// Rows as they are.
template <typename T>
struct PlainRows {
  static constexpr int kElements = 8;
  const T* x;
  int64_t stride;

  __device__ __forceinline__ void Load(int64_t token, int vector, float4 (&v)[2]) const {
    const uint4 bits = reinterpret_cast<const uint4*>(x + token * stride)[vector];
    v[0] = WidenFour<T>(make_uint2(bits.x, bits.y));
    v[1] = WidenFour<T>(make_uint2(bits.z, bits.w));
  }
};

template <typename T>
static cudaError_t StartPlain(const QuantizeRowsArgs& args, cudaStream_t stream) {
  const PlainRows<T> rows{static_cast<const T*>(args.x), args.x_stride};
  return args.output == RowOutput::kInt8
             ? StartQuantizeRows<RowOutput::kInt8>(rows, args.tokens, args.width, args.y,
                                                   args.y_stride, args.y_scale, stream)
             : StartQuantizeRows<RowOutput::kE4m3>(rows, args.tokens, args.width, args.y,
                                                   args.y_stride, args.y_scale, stream);
}

cudaError_t StartQuantizeRows(const QuantizeRowsArgs& args, cudaStream_t stream) {
  return args.type == ActivationType::kF16 ? StartPlain<__half>(args, stream)
                                           : StartPlain<__nv_bfloat16>(args, stream);
}

}  // namespace quern::kernels
