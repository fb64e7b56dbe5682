// Times the products with GGUF's types, dense, int8 and E4M3: bytes per second against the device's
// own copy in the same run; of Q4_0 and Q4_1 also W4A16's, beside the one that the backend calls.
// One JSON object a line. The numbers in the operands are any bits.

#include <cstring>

#include "quern/kernels/gemm.h"
#include "quern/kernels/gguf_matmul.h"
#include "quern/kernels/w4a16.h"
#include "quern/kernels/w8a8.h"
#include "tests/cuda/bench_support.h"

namespace quern::kernels::testing {
namespace {

struct Shape {
  int64_t rows, cols;
};

// One kind of product: the bytes of its weights, and how it starts.
struct Op {
  const char* name;
  const char* format;
  std::function<int64_t(const Shape&)> weight_bytes;
  std::function<std::string(const Shape&, const void* weights, int64_t batch)> start;
};

class Bench {
 public:
  Bench()
      : x_(size_t{512} * 16384 * 2),
        y_(size_t{512} * 16384 * 2),
        scales_(size_t{16384} * 4),
        workspace_(W4A16WorkspaceBytes()) {
    QUERN_CUDA_CHECK(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
    x_.Fill(0);
    scales_.Fill(0);
    workspace_.Fill(0);
    cudaDeviceProp properties;
    QUERN_CUDA_CHECK(cudaGetDeviceProperties(&properties, 0));
    capability_ = 10 * properties.major + properties.minor;
    cold_bytes_ = size_t{4} * static_cast<size_t>(properties.l2CacheSize);
    copy_ = MeasureMemory(stream_).copy;
  }

  void Run(bool quick) {
    for (WeightType type : {WeightType::kQ8_0, WeightType::kQ4_0, WeightType::kQ4_1,
                            WeightType::kQ5_0, WeightType::kQ4_K, WeightType::kQ6_K}) {
      const bool is_k = FindWeightTypeInfo(type)->block_elements == 256;
      std::vector<Shape> shapes = {{14336, 4096}, {640, 2048}, {576, 1536}};
      const bool is_w4 = type == WeightType::kQ4_0 || type == WeightType::kQ4_1;
      if (type == WeightType::kQ8_0) shapes.insert(shapes.begin(), {262144, 640});
      if (is_w4) shapes = {{14336, 4096}, {4096, 14336}, {4096, 4096}, {1024, 4096}};
      if (quick) shapes.resize(1);
      for (const Shape& shape : shapes) {
        if (!is_k || shape.cols % 256 == 0) MeasureOp(Gguf(type), shape, quick);
        if (is_w4) MeasureOp(W4A16(type), shape, quick);
      }
    }
    for (const Shape& shape : {Shape{14336, 4096}, {576, 1536}}) {
      MeasureOp(Dense(), shape, quick);
      MeasureOp(EightBit(EightBitType::kInt8), shape, quick);
      if (capability_ >= 89) MeasureOp(EightBit(EightBitType::kE4m3), shape, quick);
    }
  }

 private:
  Op Gguf(WeightType type) {
    const auto matrix = [type](const Shape& shape) {
      return GgufMatrix{type, shape.rows, shape.cols, nullptr};
    };
    return {"gguf", FindWeightTypeInfo(type)->name,
            [=](const Shape& shape) { return GgufBytes(matrix(shape)); },
            [=, this](const Shape& shape, const void* weights, int64_t batch) {
              GgufMatMulArgs args{
                  matrix(shape), ActivationType::kBF16, x_.As(), shape.cols, y_.As(), shape.rows,
                  batch};
              args.weights.data = static_cast<const uint8_t*>(weights);
              args.overlap_previous = true;
              return GgufMatMul(args, stream_);
            }};
  }
  Op W4A16(WeightType type) {
    const auto matrix = [type](const Shape& shape) {
      const W4Format format = type == WeightType::kQ4_0 ? W4Format::kQ4_0 : W4Format::kQ4_1;
      return W4Matrix{format, shape.rows, shape.cols, nullptr, nullptr};
    };
    return {"w4a16-gguf", FindWeightTypeInfo(type)->name,
            [=](const Shape& shape) {
              return W4CodeBytes(matrix(shape)) + W4ScaleBytes(matrix(shape));
            },
            [=, this](const Shape& shape, const void* weights, int64_t batch) {
              W4A16Args args{matrix(shape),
                             ActivationType::kBF16,
                             x_.As(),
                             shape.cols,
                             y_.As(),
                             shape.rows,
                             batch,
                             workspace_.As(),
                             workspace_.bytes(),
                             true};
              args.weights.codes = static_cast<const uint8_t*>(weights);
              args.weights.scales =
                  reinterpret_cast<const uint16_t*>(args.weights.codes + W4CodeBytes(args.weights));
              return W4A16MatMul(args, stream_);
            }};
  }
  Op Dense() {
    return {"gemm", "bf16", [](const Shape& shape) { return shape.rows * shape.cols * 2; },
            [this](const Shape& shape, const void* weights, int64_t batch) {
              return Gemm({ActivationType::kBF16, weights, shape.cols, shape.rows, shape.cols,
                           x_.As(), shape.cols, y_.As(), shape.rows, batch, true},
                          stream_);
            }};
  }
  Op EightBit(EightBitType type) {
    return {"w8a8", type == EightBitType::kInt8 ? "int8" : "e4m3",
            [](const Shape& shape) { return shape.rows * shape.cols; },
            [=, this](const Shape& shape, const void* weights, int64_t batch) {
              const auto* scales = scales_.As<float>();
              return W8A8MatMul(
                  {type, ActivationType::kBF16, weights, shape.cols, scales, shape.rows, shape.cols,
                   x_.As(), shape.cols, scales, y_.As(), shape.rows, batch, true},
                  stream_);
            }};
  }

  // Weights enough that L2 holds none of the next call's.
  void MeasureOp(const Op& op, const Shape& shape, bool quick) {
    const auto bytes = static_cast<size_t>(op.weight_bytes(shape));
    const size_t sets = std::max<size_t>(2, (cold_bytes_ + bytes - 1) / bytes);
    std::vector<DeviceMemory> weights;
    for (size_t i = 0; i < sets; ++i) {
      weights.emplace_back(bytes);
      weights.back().Fill(static_cast<int>(i % 100));
    }
    for (int64_t batch : {1, 8, 16, 32, 64, 512}) {
      if (batch * shape.rows > int64_t{512} * 16384 || (quick && batch > 8)) continue;
      const double us =
          MedianMicroseconds(stream_, static_cast<int>(std::max<size_t>(sets, 24)), [&](int i) {
            const std::string wrong =
                op.start(shape, weights[static_cast<size_t>(i) % sets].As(), batch);
            if (!wrong.empty()) Die(wrong);
          });
      const double moved =
          static_cast<double>(bytes) + 2.0 * static_cast<double>(batch * (shape.rows + shape.cols));
      std::printf(
          "{\"op\": \"%s\", \"format\": \"%s\", \"rows\": %lld, \"cols\": %lld, "
          "\"batch\": %lld, \"us\": %.2f, \"gb_per_s\": %.1f, \"of_copy\": %.3f, "
          "\"tflops\": %.2f}\n",
          op.name, op.format, static_cast<long long>(shape.rows),
          static_cast<long long>(shape.cols), static_cast<long long>(batch), us, moved / us * 1e-3,
          moved / us * 1e-3 / copy_,
          2e-6 * static_cast<double>(batch * shape.rows * shape.cols) / us);
      std::fflush(stdout);
    }
  }

  DeviceMemory x_;
  DeviceMemory y_;
  DeviceMemory scales_;
  DeviceMemory workspace_;  // W4A16's
  cudaStream_t stream_ = nullptr;
  int capability_ = 0;
  size_t cold_bytes_ = 0;
  double copy_ = 0;  // GB/s
};

}  // namespace
}  // namespace quern::kernels::testing

int main(int argc, char** argv) {
  using namespace quern::kernels::testing;
  const bool quick = argc == 2 && std::strcmp(argv[1], "--quick") == 0;
  if (argc > 1 && !quick) Die("usage: matmul_bench [--quick]");
  Bench().Run(quick);
  return 0;
}
