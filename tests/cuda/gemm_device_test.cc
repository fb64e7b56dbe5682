// Gemm and W8A8MatMul on a GPU against float64 (of int8: exact) sums: fresh random inputs, ragged
// shapes, poisoned outputs, every shape of the kernel. `--small` leaves out what is too large for
// the emulator; `--seed N` repeats a run.

#include "kernels/cuda/common/matmul_plan.h"
#include "quern/kernels/dequantize.h"
#include "quern/kernels/gemm.h"
#include "quern/kernels/w8a8.h"
#include "tests/cuda/matmul_test_support.h"

namespace quern::kernels::testing {
namespace {

enum class Kind { kF16, kBF16, kInt8, kE4m3 };

int ElementBytes(Kind kind) { return kind == Kind::kF16 || kind == Kind::kBF16 ? 2 : 1; }
const char* Name(Kind kind) {
  constexpr const char* kNames[] = {"f16", "bf16", "int8", "e4m3"};
  return kNames[static_cast<int>(kind)];
}

// OCP OFP8, E4M3: bias 7, 0x7f and 0xff are NaN, no infinities.
float E4m3ToFloat(uint8_t bits) {
  const int exponent = bits >> 3 & 15;
  const int mantissa = bits & 7;
  const float magnitude = exponent == 0
                              ? std::ldexp(static_cast<float>(mantissa), -9)
                              : std::ldexp(static_cast<float>(8 + mantissa), exponent - 10);
  return (bits & 0x80) != 0 ? -magnitude : magnitude;
}

// Rows of one operand in memory of their kind, with what must not be read behind them, as floats
// and with a scale each.
struct Operand {
  int64_t rows, cols, stride;
  std::vector<uint8_t> bytes;
  std::vector<float> values;  // [rows][cols], unscaled
  std::vector<float> scales;

  // `exact`: small whole numbers, of which every sum is exact in whatever order.
  Operand(std::mt19937_64& random, Kind kind, int64_t row_count, int64_t col_count, bool exact)
      : rows(row_count),
        cols(col_count),
        stride(col_count + 32 / ElementBytes(kind)),
        bytes(static_cast<size_t>(row_count * stride * ElementBytes(kind)), 0xff),
        values(static_cast<size_t>(row_count * col_count)) {
    std::normal_distribution<float> normal(0, 1);
    for (int64_t r = 0; r < rows; ++r) {
      scales.push_back(exact ? 1.0f : 0.01f * (1 + std::fabs(normal(random))));
      for (int64_t k = 0; k < cols; ++k) {
        const float value = exact ? static_cast<float>(random() % 4) - 1 : normal(random);
        values[static_cast<size_t>(r * cols + k)] =
            Put(random, kind, exact, value, static_cast<size_t>(r * stride + k));
      }
    }
  }

  // Stores the value or something like it; what was stored.
  float Put(std::mt19937_64& random, Kind kind, bool exact, float value, size_t at) {
    if (ElementBytes(kind) == 2) {
      const auto type = kind == Kind::kF16 ? ActivationType::kF16 : ActivationType::kBF16;
      const uint16_t bits = Round(type, value);
      std::memcpy(&bytes[2 * at], &bits, 2);
      return Widen(type, bits);
    }
    if (kind == Kind::kInt8) {
      const auto q = static_cast<int8_t>(exact ? static_cast<int>(value)
                                               : static_cast<int>(random() % 256) - 128);
      bytes[at] = static_cast<uint8_t>(q);
      return static_cast<float>(q);
    }
    constexpr uint8_t kWhole[] = {0xb8, 0, 0x38, 0x40};  // -1, 0, 1, 2
    const auto any = static_cast<uint8_t>(random() % 256);
    bytes[at] = exact ? kWhole[static_cast<int>(value) + 1]
                      : static_cast<uint8_t>((any & 0x7f) < 0x50 ? any : any & 0xbf);
    return E4m3ToFloat(bytes[at]);
  }
};

// A product of two operands, on the device.
struct Product {
  Kind kind;
  ActivationType type;  // of y
  Operand w, x;
  DeviceMemory device_w, device_x, w_scales, x_scales;

  Product(std::mt19937_64& random, Kind of, ActivationType out, int64_t rows, int64_t cols,
          int64_t batch, bool exact)
      : kind(of),
        type(out),
        w(random, of, rows, cols, exact),
        x(random, of, batch, cols, exact),
        device_w(w.bytes),
        device_x(x.bytes),
        w_scales(w.scales),
        x_scales(x.scales) {}

  std::string Start(void* y, int64_t y_stride, bool float32_y, int64_t batch, int shape,
                    int thread_blocks) const {
    if (ElementBytes(kind) == 2) {
      return Gemm({type, device_w.As(), w.stride, w.rows, w.cols, device_x.As(), x.stride, y,
                   y_stride, batch, shape % 2 == 1, float32_y, shape, thread_blocks},
                  nullptr);
    }
    return W8A8MatMul(
        {kind == Kind::kInt8 ? EightBitType::kInt8 : EightBitType::kE4m3, type, device_w.As(),
         w.stride, w_scales.As<float>(), w.rows, w.cols, device_x.As(), x.stride,
         x_scales.As<float>(), y, y_stride, batch, shape % 2 == 1, float32_y, shape, thread_blocks},
        nullptr);
  }

  ProductResult Run(const std::string& text, int64_t batch, int shape, int thread_blocks) const {
    return RunProduct(text, type, batch, w.rows, [&](void* y, int64_t y_stride, bool float32_y) {
      return Start(y, y_stride, float32_y, batch, shape, thread_blocks);
    });
  }

  std::string Text(int64_t batch, int shape) const {
    return std::string(Name(kind)) + " to " + testing::Name(type) + " " + std::to_string(w.rows) +
           "x" + std::to_string(w.cols) + " batch " + std::to_string(batch) + " shape " +
           std::to_string(shape);
  }

  // The truth's operands, scales multiplied in; exactly, where they are 1.
  std::vector<WeightRow> Weights() const {
    std::vector<WeightRow> result;
    for (int64_t r = 0; r < w.rows; ++r) {
      WeightRow row{
          std::vector<double>(w.values.begin() + r * w.cols, w.values.begin() + (r + 1) * w.cols),
          {}};
      if (ElementBytes(kind) == 1) {
        for (double& value : row.values)
          value *= static_cast<double>(w.scales[static_cast<size_t>(r)]);
      }
      row.magnitudes = row.values;
      result.push_back(std::move(row));
    }
    return result;
  }
  std::vector<double> Activations() const {
    std::vector<double> result(x.values.begin(), x.values.end());
    if (ElementBytes(kind) == 2) return result;
    for (size_t i = 0; i < result.size(); ++i) {
      result[i] *= static_cast<double>(x.scales[i / static_cast<size_t>(x.cols)]);
    }
    return result;
  }

  // How many roundings of float32, 2^-23 of all magnitudes each, a sum may suffer. 16 bits: one for
  // each 8 columns of a slice (mma.sync may add in halves), four slices. int8: the sum's conversion
  // and two scales. E4M3: within 64 columns tensor cores may keep only 2^-13 of the largest number
  // and truncate, 33 of them, twice; then one for each group, the slices and the scales.
  double Additions(bool exact) const {
    if (exact) return 0;
    const auto cols = static_cast<double>(w.cols);
    if (kind == Kind::kInt8) return 3;
    if (kind == Kind::kE4m3) return 66 * 1024 + cols / 64 / 4 + 8;
    return (cols / 4 + 32) / 8 + 4;
  }
};

bool Fits(int shape) {
  int shared = 0;
  QUERN_CUDA_CHECK(cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0));
  return kMatMulShapes[shape].shared_bytes(2048, 0) <= shared;
}

// The product is right, and each of its rows has the same bits in every batch, shape of the kernel
// and cut of the work.
void RunShape(std::mt19937_64& random, Kind kind, ActivationType type, int64_t rows, int64_t cols,
              const std::vector<int64_t>& batches, bool exact) {
  const int64_t most = *std::max_element(batches.begin(), batches.end());
  const Product product(random, kind, type, rows, cols, most, exact);
  const std::string text = product.Text(most, -1) + (exact ? " exact" : "");
  const ProductResult all = product.Run(text, most, -1, 0);
  CompareProduct(text, type, product.Weights(), product.Activations(), product.Additions(exact),
                 all);
  for (int64_t batch : batches) {
    const ProductResult part = all.First(batch, rows);
    for (int shape = batch == most ? 0 : -1; shape < kMatMulShapeCount; ++shape) {
      // Shapes far larger than the batch have little that is new.
      if (shape >= 0 &&
          (!Fits(shape) || kMatMulShapes[shape].batch() > 4 * std::max<int64_t>(batch, 8))) {
        continue;
      }
      const std::string one = product.Text(batch, shape);
      Expect(product.Run(one, batch, shape, shape < 0 ? 0 : 1 + shape % 3) == part,
             one + ": bits depend on the batch or the shape");
    }
  }
}

void BadArguments() {
  DeviceMemory memory(64 * 256 * 2);
  memory.Fill(0);
  const DeviceMemory y(64 * 64 * 2);
  const GemmArgs good{ActivationType::kF16, memory.As(), 256,    64, 256,
                      memory.As(),          256,         y.As(), 64, 1};
  const auto refused = [&](const GemmArgs& args, const char* part) {
    ExpectRefusal(Gemm(args, nullptr), part);
  };
  auto bad = good;
  bad.cols = 250;
  refused(bad, "250 columns; they must be a multiple of 8");
  bad = good;
  bad.w_stride = 255;
  refused(bad, "w_stride is 255; it must be a multiple of 8 and at least 256");
  bad = good;
  bad.w = memory.As<uint8_t>() + 8;
  refused(bad, "16-byte aligned");
  bad = good;
  bad.rows = 0;
  refused(bad, "from 1 to");
  bad = good;
  bad.x_stride = 248;
  refused(bad, "x_stride is 248");
  bad = good;
  bad.y_stride = 63;
  refused(bad, "y_stride");
  bad = good;
  bad.batch = 0;
  refused(bad, "batch of 0");
  Expect(Gemm(good, nullptr).empty(), "the good arguments are good");
  const auto* scales = memory.As<float>();
  const W8A8Args good8{EightBitType::kInt8,
                       ActivationType::kF16,
                       memory.As(),
                       256,
                       scales,
                       64,
                       256,
                       memory.As(),
                       256,
                       scales,
                       y.As(),
                       64,
                       1};
  const auto refused8 = [&](const W8A8Args& args, const char* part) {
    ExpectRefusal(W8A8MatMul(args, nullptr), part);
  };
  auto bad8 = good8;
  bad8.cols = 248;
  refused8(bad8, "W8A8: 248 columns; they must be a multiple of 16");
  bad8 = good8;
  bad8.cols = bad8.w_stride = bad8.x_stride = 131072;
  refused8(bad8, "fewer than 131072");
  bad8 = good8;
  bad8.x_scales = nullptr;
  refused8(bad8, "w_scales and x_scales");
  bad8 = good8;
  bad8.operands = EightBitType::kE4m3;
  bad8.x_stride = 264;
  refused8(bad8, "FP8: x_stride is 264; it must be a multiple of 16");
  Expect(W8A8MatMul(good8, nullptr).empty(), "the good arguments are good");
  QUERN_CUDA_CHECK(cudaDeviceSynchronize());
}

// From compute capability 8.9 on; below it is refused.
bool HasE4m3() {
  int major = 0;
  int minor = 0;
  QUERN_CUDA_CHECK(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0));
  QUERN_CUDA_CHECK(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, 0));
  if (10 * major + minor >= 89) return true;
  std::mt19937_64 random(1);
  const Product product(random, Kind::kE4m3, ActivationType::kF16, 1, 16, 1, true);
  ExpectRefusal(product.Start(product.device_x.As(), 1, false, 1, -1, 0), "it needs 8.9 or later");
  return false;
}

void RunAll(std::mt19937_64& random, bool small) {
  BadArguments();
  const bool has_e4m3 = HasE4m3();
  for (Kind kind : {Kind::kF16, Kind::kBF16, Kind::kInt8, Kind::kE4m3}) {
    if (kind == Kind::kE4m3 && !has_e4m3) continue;
    for (ActivationType type : {ActivationType::kF16, ActivationType::kBF16}) {
      if (ElementBytes(kind) == 2 && (kind == Kind::kF16) != (type == ActivationType::kF16)) {
        continue;
      }
      const auto shape = [&](int64_t rows, int64_t cols, const std::vector<int64_t>& batches) {
        for (bool exact : {true, false}) {
          RunShape(random, kind, type, rows, cols * 2 / ElementBytes(kind), batches, exact);
        }
      };
      shape(1, 8, {1});
      shape(70, 200, {2, 9, 35});
      shape(33, 72, {1, 3});
      if (small) continue;
      shape(100, 2568, {1, 17, 70, 130});
      shape(4096, 1536, {1, 5, 33});
      shape(640, 2048, {1, 64, 300});
    }
  }
}

}  // namespace
}  // namespace quern::kernels::testing

int main(int argc, char** argv) {
  return quern::kernels::testing::RunDeviceTest(argc, argv, quern::kernels::testing::RunAll);
}
