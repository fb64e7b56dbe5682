// Times W4A16MatMul on the shapes of large layers: bytes per second against the device's own copy,
// and time against cuBLAS's FP16 product of the same shape in the same run. One JSON object a line.

#include <algorithm>
#include <cstring>

#include "kernels/cuda/w4a16/w4a16_plan.h"
#include "tests/cuda/bench_support.h"
#include "tests/cuda/cublas_peer.h"

namespace quern::kernels::testing {
namespace {

struct Options {
  std::string cublas;
  bool tune = false;
  bool quick = false;
};

struct Shape {
  int64_t rows, cols;
};

class Bench {
 public:
  explicit Bench(const Options& options)
      : options_(options),
        cublas_(options.cublas),
        random_(12345),
        workspace_(W4A16WorkspaceBytes()),
        x_(size_t{128} * 28672 * 2),
        y_(size_t{128} * 28672 * 2) {
    QUERN_CUDA_CHECK(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
    workspace_.Fill(0);
    cudaDeviceProp properties;
    QUERN_CUDA_CHECK(cudaGetDeviceProperties(&properties, 0));
    multiprocessors_ = properties.multiProcessorCount;
    cold_bytes_ = size_t{4} * static_cast<size_t>(properties.l2CacheSize);
    std::printf(
        "{\"device\": \"%s\", \"compute_capability\": \"%d.%d\", \"multiprocessors\": %d, "
        "\"l2_bytes\": %d}\n",
        properties.name, properties.major, properties.minor, properties.multiProcessorCount,
        properties.l2CacheSize);
    FillActivations();
  }

  void Run() {
    const Bandwidth memory = MeasureMemory(stream_);
    copy_ = memory.copy;
    read_ = memory.read;
    std::vector<Shape> shapes = {
        {4096, 4096}, {4096, 14336}, {14336, 4096}, {8192, 28672}, {28672, 8192}};
    if (options_.tune) shapes = {{4096, 4096}, {14336, 4096}, {8192, 28672}};
    if (options_.quick) shapes = {{4096, 4096}, {28672, 8192}};
    for (const Shape& shape : shapes) {
      MeasurePeer(shape);
      MeasureShape(shape, W4Format::kAwq, ActivationType::kF16);
    }
    const Shape other{14336, 4096};
    for (W4Format format : {W4Format::kAwq, W4Format::kQ4_0, W4Format::kQ4_1}) {
      for (ActivationType type : {ActivationType::kF16, ActivationType::kBF16}) {
        if (format != W4Format::kAwq || type != ActivationType::kF16) {
          if (options_.quick || options_.tune) continue;
          MeasurePeer(other);
          MeasureShape(other, format, type);
        }
      }
    }
  }

 private:
  // Normally distributed as binary16; as bfloat16 the same bits are other finite numbers.
  void FillActivations() {
    std::vector<uint16_t> bits(x_.bytes() / 2);
    std::normal_distribution<float> normal(0, 1);
    for (uint16_t& value : bits) value = FloatToHalf(normal(random_));
    QUERN_CUDA_CHECK(cudaMemcpy(x_.As(), bits.data(), x_.bytes(), cudaMemcpyHostToDevice));
  }

  int Sets(size_t bytes) const {
    return static_cast<int>(std::max<size_t>(2, (cold_bytes_ + bytes - 1) / bytes));
  }
  static int Calls(int sets) { return (23 + sets) / sets * sets; }

  std::vector<int64_t> Batches() const {
    return options_.quick ? std::vector<int64_t>{1, 16, 64}
                          : std::vector<int64_t>{1, 8, 16, 32, 64, 128};
  }

  void MeasurePeer(const Shape& shape) {
    peer_.assign(129, 0);
    if (!cublas_.present()) return;
    const size_t bytes = static_cast<size_t>(shape.rows * shape.cols) * 2;
    const int sets = Sets(bytes);
    std::vector<DeviceMemory> weights;
    for (int i = 0; i < sets; ++i) {
      weights.emplace_back(bytes);
      std::vector<uint16_t> block(size_t{1} << 20);
      std::normal_distribution<float> normal(0, 0.02f);
      if (i == 0) {
        for (uint16_t& value : block) value = FloatToHalf(normal(random_));
        for (size_t at = 0; at < bytes; at += block.size() * 2) {
          QUERN_CUDA_CHECK(cudaMemcpy(weights[0].As<uint8_t>() + at, block.data(),
                                      std::min(block.size() * 2, bytes - at),
                                      cudaMemcpyHostToDevice));
        }
      } else {
        QUERN_CUDA_CHECK(
            cudaMemcpy(weights.back().As(), weights[0].As(), bytes, cudaMemcpyDeviceToDevice));
      }
    }
    for (int64_t batch : Batches()) {
      peer_[static_cast<size_t>(batch)] = MedianMicroseconds(stream_, Calls(sets), [&](int i) {
        cublas_.MatMul(weights[static_cast<size_t>(i % sets)].As(), x_.As(), y_.As(), shape.rows,
                       shape.cols, batch, stream_);
      });
    }
  }

  void MeasureShape(const Shape& shape, W4Format format, ActivationType type) {
    W4Matrix matrix{format, shape.rows, shape.cols, nullptr, nullptr};
    const int sets = Sets(static_cast<size_t>(W4CodeBytes(matrix) + W4ScaleBytes(matrix)));
    std::vector<DeviceWeights> weights;
    weights.reserve(static_cast<size_t>(sets));
    for (int i = 0; i < sets; ++i) weights.emplace_back(random_, matrix);
    for (int64_t batch : Batches()) {
      for (int variant = -1; variant < (options_.tune ? kW4VariantCount : 0); ++variant) {
        if (variant >= 0 && (kW4Variants[variant].batch() < std::min<int64_t>(batch, kW4MaxBatch) ||
                             kW4Variants[variant].batch() > std::max<int64_t>(8, 2 * batch))) {
          continue;
        }
        for (bool overlap : {false, true}) Measure(weights, type, batch, variant, 0, overlap);
        for (int per_sm : {1, 2}) {
          if (variant >= 0) {
            Measure(weights, type, batch, variant, per_sm * multiprocessors_, true);
          }
        }
      }
    }
  }

  void Measure(const std::vector<DeviceWeights>& weights, ActivationType type, int64_t batch,
               int variant, int thread_blocks, bool overlap) {
    const W4Matrix& shape = weights[0].matrix;
    const double us =
        MedianMicroseconds(stream_, Calls(static_cast<int>(weights.size())), [&](int i) {
          const W4A16Args args{weights[static_cast<size_t>(i) % weights.size()].matrix,
                               type,
                               x_.As(),
                               shape.cols,
                               y_.As(),
                               shape.rows,
                               batch,
                               workspace_.As(),
                               workspace_.bytes(),
                               overlap,
                               variant,
                               thread_blocks};
          const std::string wrong = W4A16MatMul(args, stream_);
          if (!wrong.empty()) Die(wrong);
        });
    const auto bytes = static_cast<double>(W4CodeBytes(shape) + W4ScaleBytes(shape) +
                                           2 * batch * (shape.rows + shape.cols));
    const double peer = peer_[static_cast<size_t>(batch)];
    std::printf(
        "{\"op\": \"w4a16\", \"format\": \"%s\", \"type\": \"%s\", \"rows\": %lld, \"cols\": %lld, "
        "\"batch\": %lld, \"variant\": %d, \"thread_blocks\": %d, \"overlap\": %s, \"us\": %.2f, "
        "\"gb_per_s\": %.1f, "
        "\"of_copy\": %.3f, \"of_read\": %.3f, \"tflops\": %.1f, \"cublas_fp16_us\": %.2f, "
        "\"ratio\": %.2f}\n",
        Name(shape.format), Name(type), static_cast<long long>(shape.rows),
        static_cast<long long>(shape.cols), static_cast<long long>(batch), variant, thread_blocks,
        overlap ? "true" : "false", us, bytes / us * 1e-3, bytes / us * 1e-3 / copy_,
        bytes / us * 1e-3 / read_, 2e-6 * static_cast<double>(batch * shape.rows * shape.cols) / us,
        peer, peer / us);
    std::fflush(stdout);
  }

  Options options_;
  CublasPeer cublas_;
  std::mt19937_64 random_;
  DeviceMemory workspace_;
  DeviceMemory x_;
  DeviceMemory y_;
  cudaStream_t stream_ = nullptr;
  size_t cold_bytes_ = 0;
  int multiprocessors_ = 0;
  double copy_ = 0;  // GB/s
  double read_ = 0;
  std::vector<double> peer_;  // microseconds, by batch
};

}  // namespace
}  // namespace quern::kernels::testing

int main(int argc, char** argv) {
  using namespace quern::kernels::testing;
  Options options;
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--cublas") == 0 && i + 1 < argc) {
      options.cublas = argv[++i];
    } else if (std::strcmp(argv[i], "--tune") == 0) {
      options.tune = true;
    } else if (std::strcmp(argv[i], "--quick") == 0) {
      options.quick = true;
    } else {
      Die("usage: w4a16_bench [--cublas libcublas.so] [--tune] [--quick]");
    }
  }
  Bench(options).Run();
  return 0;
}
