// GgufMatMul (and GgufGather: gguf_gather_checks.cc) on a GPU, from GGUF's bytes on, against
// float64 sums over the weights as ref::DequantizeRow gives them: fresh random inputs, ragged
// shapes, poisoned outputs, every shape of the kernel. `--small` leaves out what is too large for
// the emulator; `--seed N` repeats a run.

#include "kernels/cuda/common/matmul_plan.h"
#include "quern/kernels/gguf_matmul.h"
#include "tests/cuda/gguf_test_support.h"

namespace quern::kernels::testing {

void CheckGgufGather(std::mt19937_64& random, bool small);  // gguf_gather_checks.cc

namespace {

// A matrix's rows as the reference has them.
std::vector<WeightRow> Rows(const GgufLayer& layer, const std::vector<int64_t>& which) {
  std::vector<WeightRow> rows;
  const size_t bytes = layer.source.size() / static_cast<size_t>(layer.matrix.rows);
  for (int64_t row : which) {
    rows.push_back(ReadGgufRow(layer.matrix.type,
                               layer.source.data() + static_cast<size_t>(row) * bytes,
                               layer.matrix.cols));
  }
  return rows;
}

std::string Text(const GgufMatMulArgs& args) {
  return std::string(FindWeightTypeInfo(args.weights.type)->name) + " " + Name(args.type) + " " +
         std::to_string(args.weights.rows) + "x" + std::to_string(args.weights.cols) + " batch " +
         std::to_string(args.batch) + " shape " + std::to_string(args.shape) + " thread blocks " +
         std::to_string(args.thread_blocks);
}

ProductResult Run(GgufMatMulArgs args) {
  return RunProduct(Text(args), args.type, args.batch, args.weights.rows,
                    [&](void* y, int64_t y_stride, bool float32_y) {
                      args.y = y;
                      args.y_stride = y_stride;
                      args.float32_y = float32_y;
                      return GgufMatMul(args, nullptr);
                    });
}

bool Fits(int shape) {  // for whatever the type
  int shared = 0;
  QUERN_CUDA_CHECK(cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0));
  return kMatMulShapes[shape].shared_bytes(1088, 576) <= shared;
}

// The product is right, and each of its rows has the same bits in every batch, shape of the kernel
// and cut of the work.
void RunLayer(std::mt19937_64& random, WeightType type, ActivationType activations, int64_t rows,
              int64_t blocks, const std::vector<int64_t>& batches) {
  const GgufLayer layer(random, type, rows, blocks);
  const int64_t most = *std::max_element(batches.begin(), batches.end());
  const Activations x(random, activations, most, layer.matrix.cols);
  const DeviceMemory device_x(x.bits);
  GgufMatMulArgs args{layer.matrix, activations, device_x.As(), x.stride, nullptr, 0, most};
  const ProductResult all = Run(args);
  std::vector<int64_t> every(static_cast<size_t>(rows));
  std::iota(every.begin(), every.end(), 0);
  CompareProduct(Text(args), activations, Rows(layer, every), x.values,
                 GgufAdditions(layer.matrix.cols), all);
  for (int64_t batch : batches) {
    args.batch = batch;
    args.shape = -1;
    args.thread_blocks = 0;
    const ProductResult part = all.First(batch, rows);
    if (batch != most) {
      Expect(Run(args) == part, Text(args) + ": bits depend on the batch");
    }
    for (int shape = 0; shape < kMatMulShapeCount; ++shape) {
      // Shapes far larger than the batch have little that is new.
      if (!Fits(shape) || kMatMulShapes[shape].batch() > 4 * std::max<int64_t>(batch, 8)) continue;
      args.shape = shape;
      args.overlap_previous = shape % 2 == 1;
      args.thread_blocks = 1 + shape % 3;
      Expect(Run(args) == part, Text(args) + ": bits depend on the shape");
    }
  }
}

// As many rows as Gemma 3's head has, some of them compared.
void RunHead(std::mt19937_64& random) {
  const GgufLayer layer(random, WeightType::kQ8_0, 262144, 20);
  for (int64_t batch : {1, 5}) {
    const Activations x(random, ActivationType::kBF16, batch, layer.matrix.cols);
    const DeviceMemory device_x(x.bits);
    const GgufMatMulArgs args{
        layer.matrix, ActivationType::kBF16, device_x.As(), x.stride, nullptr, 0, batch};
    const ProductResult y = Run(args);
    std::vector<int64_t> some = {0, layer.matrix.rows - 1};
    for (int i = 0; i < 200; ++i) some.push_back(static_cast<int64_t>(random() % 262144));
    ProductResult part;
    for (int64_t r = 0; r < batch; ++r) {
      for (int64_t row : some) {
        const auto at = static_cast<size_t>(r * layer.matrix.rows + row);
        part.narrow.push_back(y.narrow[at]);
        part.wide.push_back(y.wide[at]);
      }
    }
    CompareProduct(Text(args), args.type, Rows(layer, some), x.values,
                   GgufAdditions(layer.matrix.cols), part);
  }
}

void BadArguments(std::mt19937_64& random) {
  const GgufLayer layer(random, WeightType::kQ4_K, 64, 1);
  DeviceMemory x(256 * 2);
  x.Fill(0);
  const DeviceMemory y(64 * 2);
  const GgufMatMulArgs good{layer.matrix, ActivationType::kF16, x.As(), 256, y.As(), 64, 1};
  const auto refused = [&](const GgufMatMulArgs& args, const char* part) {
    ExpectRefusal(GgufMatMul(args, nullptr), part);
  };
  auto bad = good;
  bad.weights.cols = 32;
  refused(bad, "multiple of 256");
  bad = good;
  bad.weights.type = WeightType::kQ5_K;
  refused(bad, "Q5_K have no layout");
  bad = good;
  bad.weights.rows = 0;
  refused(bad, "from 1 to");
  bad = good;
  bad.weights.data += 8;
  refused(bad, "16-byte aligned");
  bad = good;
  bad.x = x.As<uint8_t>() + 2;
  refused(bad, "16-byte aligned");
  bad = good;
  bad.y = nullptr;
  refused(bad, "y must be");
  bad = good;
  bad.y = y.As<uint16_t>() + 1;
  bad.float32_y = true;
  refused(bad, "y must be device memory with 4-byte alignment");
  bad = good;
  bad.x_stride = 257;
  refused(bad, "x_stride is 257; it must be a multiple of 8 and at least 256");
  bad = good;
  bad.y_stride = 63;
  refused(bad, "y_stride");
  bad = good;
  bad.batch = 0;
  refused(bad, "batch of 0");
  bad = good;
  bad.shape = kMatMulShapeCount;
  refused(bad, "no shape");
  bad = good;
  bad.thread_blocks = -1;
  refused(bad, "thread_blocks");
  Expect(GgufMatMul(good, nullptr).empty(), "the good arguments are good");
  QUERN_CUDA_CHECK(cudaDeviceSynchronize());
}

void RunAll(std::mt19937_64& random, bool small) {
  BadArguments(random);
  CheckGgufGather(random, small);
  for (WeightType type : kGgufTypes) {
    const bool is_k = FindWeightTypeInfo(type)->block_elements == 256;
    for (ActivationType activations : {ActivationType::kF16, ActivationType::kBF16}) {
      const auto layer = [&](int64_t rows, int64_t cols, const std::vector<int64_t>& batches) {
        RunLayer(random, type, activations, rows, (cols + (is_k ? 255 : 31)) / (is_k ? 256 : 32),
                 batches);
      };
      layer(1, 32, {1});
      layer(70, is_k ? 512 : 288, {2, 9, 35});
      layer(33, is_k ? 1280 : 96, {1, 3});
      if (small) continue;
      layer(100, 2560, {1, 17, 70, 130});
      layer(1000, 2048, {1, 8, 64});
      layer(4096, 1536, {1, 5, 33});
      layer(640, 2048, {1, 300});
    }
  }
  if (!small) RunHead(random);
}

}  // namespace
}  // namespace quern::kernels::testing

int main(int argc, char** argv) {
  return quern::kernels::testing::RunDeviceTest(argc, argv, quern::kernels::testing::RunAll);
}
