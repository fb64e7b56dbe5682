#pragma once

#include <cstddef>
#include <tuple>
#include <type_traits>
#include <utility>

#include "kernels/simt/cuda_device_api.h"
#include "kernels/simt/cuda_graph_api.h"
#include "kernels/simt/cuda_language.h"
#include "kernels/simt/cuda_memory_api.h"
#include "kernels/simt/cuda_stream_api.h"
#include "kernels/simt/cuda_types.h"
#include "kernels/simt/simt.h"

// The part of CUDA's runtime that the project's host code uses, on the emulator: one device of
// compute capability 9.0 with few multiprocessors. What there is and how it differs from a GPU's:
// docs/simt.md. Values of enumerations are CUDA 13.0's.

enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value);
// By threads and shared memory alone: the emulator knows no registers.
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void* kernel,
                                                          int threads, size_t shared_bytes);

enum cudaLaunchAttributeID { cudaLaunchAttributeProgrammaticStreamSerialization = 6 };
struct cudaLaunchAttribute {
  cudaLaunchAttributeID id;
  union {
    int programmaticStreamSerializationAllowed;
  } val;
};
struct cudaLaunchConfig_t {
  dim3 gridDim;
  dim3 blockDim;
  size_t dynamicSmemBytes;
  cudaStream_t stream;
  cudaLaunchAttribute* attrs;
  unsigned numAttrs;
};

namespace quern::simt {

// The configuration, and the line of the call that it is given to.
struct ConfigAt {
  const cudaLaunchConfig_t* config;
  Where where;

  ConfigAt(const cudaLaunchConfig_t* config_in,  // NOLINT(google-explicit-constructor)
           Where where_in = Where::Here())
      : config(config_in), where(where_in) {}
};
// The arguments are copied.
cudaError_t LaunchChecked(const Kernel& kernel, const ConfigAt& at);

// A kernel and its arguments, each converted to its parameter's type once.
template <typename... P>
struct Call {
  static_assert((std::is_trivially_copyable_v<P> && ...), "CUDA copies a kernel's arguments");
  void (*kernel)(P...);
  std::tuple<P...> arguments;

  static void Run(const void* call) {
    const auto& self = *static_cast<const Call*>(call);
    std::apply(self.kernel, self.arguments);
  }
};

}  // namespace quern::simt

template <typename... P, typename... A>
cudaError_t cudaLaunchKernelEx(quern::simt::ConfigAt config, void (*kernel)(P...),
                               A&&... arguments) {
  using Call = quern::simt::Call<P...>;
  const Call call{kernel, {std::forward<A>(arguments)...}};
  return quern::simt::LaunchChecked(
      {Call::Run, &call, sizeof(call), reinterpret_cast<const void*>(kernel)}, config);
}
