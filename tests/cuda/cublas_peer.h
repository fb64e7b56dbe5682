#pragma once

#include <dlfcn.h>

#include "tests/cuda/device_support.h"

namespace quern::kernels::testing {

// cuBLAS's FP16 product, the peer of the benchmarks, opened at run time: neither its headers nor
// its library are needed to build. The signatures are of cublas_api.h of CUDA 13.
class CublasPeer {
 public:
  // Opens `path`; without it, or with an empty one, the peer is absent.
  explicit CublasPeer(const std::string& path) {
    if (path.empty()) return;
    void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) {
      std::fprintf(stderr, "no cuBLAS to compare with: %s\n", dlerror());
      return;
    }
    const auto create = Find<int (*)(void**)>(library, "cublasCreate_v2");
    const auto set_workspace =
        Find<int (*)(void*, void*, size_t)>(library, "cublasSetWorkspace_v2");
    set_stream_ = Find<int (*)(void*, cudaStream_t)>(library, "cublasSetStream_v2");
    gemm_ = Find<GemmExFn>(library, "cublasGemmEx");
    Must(create(&handle_), "cublasCreate");
    workspace_.emplace_back(size_t{64} << 20);
    Must(set_workspace(handle_, workspace_[0].As(), workspace_[0].bytes()), "cublasSetWorkspace");
  }

  bool present() const { return handle_ != nullptr; }

  // y [batch, rows] = x [batch, cols] * w [rows, cols] transposed, all binary16, sums in float32.
  void MatMul(const void* w, const void* x, void* y, int64_t rows, int64_t cols, int64_t batch,
              cudaStream_t stream) {
    constexpr int kTransposed = 1;  // CUBLAS_OP_T
    constexpr int kPlain = 0;       // CUBLAS_OP_N
    constexpr int kHalf = 2;        // CUDA_R_16F
    constexpr int kCompute = 68;    // CUBLAS_COMPUTE_32F
    constexpr int kAlgorithm = -1;  // CUBLAS_GEMM_DEFAULT
    const float one = 1;
    const float zero = 0;
    Must(set_stream_(handle_, stream), "cublasSetStream");
    const int n = static_cast<int>(rows);
    const int k = static_cast<int>(cols);
    Must(gemm_(handle_, kTransposed, kPlain, n, static_cast<int>(batch), k, &one, w, kHalf, k, x,
               kHalf, k, &zero, y, kHalf, n, kCompute, kAlgorithm),
         "cublasGemmEx");
  }

 private:
  using GemmExFn = int (*)(void*, int, int, int, int, int, const void*, const void*, int, int,
                           const void*, int, int, const void*, void*, int, int, int, int);

  template <typename Fn>
  static Fn Find(void* library, const char* name) {
    void* symbol = dlsym(library, name);
    if (symbol == nullptr) Die(std::string("cuBLAS has no ") + name);
    return reinterpret_cast<Fn>(symbol);
  }
  static void Must(int status, const char* call) {
    if (status != 0) Die(std::string(call) + ": status " + std::to_string(status));
  }

  void* handle_ = nullptr;
  int (*set_stream_)(void*, cudaStream_t) = nullptr;
  GemmExFn gemm_ = nullptr;
  std::vector<DeviceMemory> workspace_;
};

}  // namespace quern::kernels::testing
